"""Vector floating-point arithmetic and conversions in float16, float32 and float64."""

from __future__ import annotations

import numpy as np

from amdgpu_sim.conversions import Float8, float8, float_to_bf16_bits
from amdgpu_sim.decoding import Decoding, Execute, instruction
from amdgpu_sim.instructions.vector import halfword_writer, result_writer, vector
from amdgpu_sim.waves import Array, Waves

F16, F32, F64, U32 = np.float16, np.float32, np.float64, np.uint32


def fma(a: Array, b: Array, c: Array) -> Array:
    """a * b + c of float32 through binary64 (the product is exact; the sum is rounded twice)."""
    return (a.astype(F64) * b + c).astype(F32)


def fma16(a: Array, b: Array, c: Array) -> Array:
    """a * b + c of float16, rounded once: the binary64 sum is exact."""
    return (a.astype(F64) * b.astype(F64) + c).astype(F16)


def to_integer(value: Array, low: int, high: int) -> Array:
    """Truncate towards zero, saturate to [low, high], NaN to 0; int64."""
    finite = np.where(np.isnan(value), 0.0, value).astype(F64)
    return np.clip(np.trunc(finite), low, high).astype(np.int64)


def _median(a: Array, b: Array, c: Array) -> Array:
    any_nan = np.isnan(a) | np.isnan(b) | np.isnan(c)
    lowest = np.fmin(np.fmin(a, b), c)
    middle = np.fmax(np.fmin(a, b), np.fmin(np.fmax(a, b), c))
    return np.where(any_nan, lowest, middle)


vector("v_add_f32", "f32", "f32 f32", np.add)
vector("v_sub_f32", "f32", "f32 f32", np.subtract)
vector("v_subrev_f32", "f32", "f32 f32", lambda a, b: b - a)
vector("v_mul_f32", "f32", "f32 f32", np.multiply)
vector("v_mul_legacy_f32 v_mul_dx9_zero_f32", "f32", "f32 f32",
       lambda a, b: np.where((a == 0) | (b == 0), F32(0), a * b))  # fmt: skip
vector("v_max_f32 v_max_num_f32", "f32", "f32 f32", np.fmax)
vector("v_min_f32 v_min_num_f32", "f32", "f32 f32", np.fmin)
vector("v_max3_f32 v_max3_num_f32", "f32", "f32 f32 f32", lambda a, b, c: np.fmax(np.fmax(a, b), c))
vector("v_min3_f32 v_min3_num_f32", "f32", "f32 f32 f32", lambda a, b, c: np.fmin(np.fmin(a, b), c))
vector("v_maxmin_f32 v_maxmin_num_f32", "f32", "f32 f32 f32", lambda a, b, c: np.fmin(np.fmax(a, b), c))
vector("v_minmax_f32 v_minmax_num_f32", "f32", "f32 f32 f32", lambda a, b, c: np.fmax(np.fmin(a, b), c))
vector("v_med3_f32 v_med3_num_f32", "f32", "f32 f32 f32", _median)
vector("v_fma_f32 v_fmamk_f32 v_fmaak_f32", "f32", "f32 f32 f32", fma)
vector("v_fmac_f32", "f32", "f32 f32 dst", fma)
vector("v_mad_f32 v_madmk_f32 v_madak_f32", "f32", "f32 f32 f32", lambda a, b, c: a * b + c)
vector("v_mac_f32", "f32", "f32 f32 dst", lambda a, b, c: a * b + c)
vector("v_ldexp_f32", "f32", "f32 i32", np.ldexp)
vector("v_floor_f32", "f32", "f32", np.floor)
vector("v_ceil_f32", "f32", "f32", np.ceil)
vector("v_trunc_f32", "f32", "f32", np.trunc)
vector("v_rndne_f32", "f32", "f32", np.rint)
vector("v_fract_f32", "f32", "f32", lambda a: np.minimum(a - np.floor(a), F32(1 - 2.0**-24)))
vector("v_frexp_mant_f32", "f32", "f32", lambda a: np.frexp(a)[0])
vector(
    "v_frexp_exp_i32_f32",
    "i32",
    "f32",
    lambda a: np.where(np.isfinite(a), np.frexp(a)[1], 0).astype(np.int32),
)

vector("v_add_f16", "f16", "f16 f16", np.add)
vector("v_sub_f16", "f16", "f16 f16", np.subtract)
vector("v_subrev_f16", "f16", "f16 f16", lambda a, b: b - a)
vector("v_mul_f16", "f16", "f16 f16", np.multiply)
vector("v_max_f16 v_max_num_f16", "f16", "f16 f16", np.fmax)
vector("v_min_f16 v_min_num_f16", "f16", "f16 f16", np.fmin)
vector("v_fma_f16", "f16", "f16 f16 f16", fma16)
vector("v_fmac_f16", "f16", "f16 f16 dst", fma16)

vector("v_add_f64", "f64", "f64 f64", np.add, "valu_double")
vector("v_mul_f64", "f64", "f64 f64", np.multiply, "valu_double")
vector("v_max_f64", "f64", "f64 f64", np.fmax, "valu_double")
vector("v_min_f64", "f64", "f64 f64", np.fmin, "valu_double")

vector("v_cvt_f16_f32", "f16", "f32", lambda a: a.astype(F16))
vector("v_cvt_f32_f16", "f32", "f16", lambda a: a.astype(F32))
vector("v_cvt_f64_f32", "f64", "f32", lambda a: a.astype(F64))
vector("v_cvt_f32_f64", "f32", "f64", lambda a: a.astype(F32))
vector("v_cvt_f32_i32", "f32", "i32", lambda a: a.astype(F32))
vector("v_cvt_f32_u32", "f32", "u32", lambda a: a.astype(F32))
vector("v_cvt_f64_i32", "f64", "i32", lambda a: a.astype(F64))
vector("v_cvt_f64_u32", "f64", "u32", lambda a: a.astype(F64))
vector("v_cvt_i32_f32", "i32", "f32", lambda a: to_integer(a, -(2**31), 2**31 - 1).astype(np.int32))
vector("v_cvt_u32_f32", "u32", "f32", lambda a: to_integer(a, 0, 2**32 - 1).astype(U32))
vector("v_cvt_i32_f64", "i32", "f64", lambda a: to_integer(a, -(2**31), 2**31 - 1).astype(np.int32))
vector("v_cvt_u32_f64", "u32", "f64", lambda a: to_integer(a, 0, 2**32 - 1).astype(U32))
vector("v_cvt_f16_u16", "f16", "u16", lambda a: a.astype(F16))
vector("v_cvt_f16_i16", "f16", "i16", lambda a: a.astype(F16))
for _byte in range(4):
    vector(f"v_cvt_f32_ubyte{_byte}", "f32", "u32",
           lambda a, n=_byte: ((a >> U32(8 * n)) & U32(255)).astype(F32))  # fmt: skip


def _pair(low: Array, high: Array) -> Array:
    return low.astype(U32) | (high.astype(U32) << U32(16))


def toward_zero16(value: Array) -> Array:
    """float32 to float16 rounded towards zero."""
    nearest = value.astype(F16)
    over = np.abs(nearest.astype(F32)) > np.abs(value)
    return np.where(over, np.nextafter(nearest, F16(0)), nearest)


vector("v_cvt_pk_f16_f32", "u32", "f32 f32",
       lambda a, b: _pair(a.astype(F16).view(np.uint16), b.astype(F16).view(np.uint16)))  # fmt: skip
vector("v_cvt_pkrtz_f16_f32 v_cvt_pk_rtz_f16_f32", "u32", "f32 f32",
       lambda a, b: _pair(toward_zero16(a).view(np.uint16), toward_zero16(b).view(np.uint16)))  # fmt: skip
vector("v_cvt_pk_bf16_f32", "u32", "f32 f32", lambda a, b: _pair(float_to_bf16_bits(a), float_to_bf16_bits(b)))
vector("v_pack_b32_f16", "u32", "f16 f16", lambda a, b: _pair(a.view(np.uint16), b.view(np.uint16)))


@instruction(
    "v_fma_mix_f32",
    "v_fma_mixlo_f16",
    "v_fma_mixhi_f16",
    "v_mad_mix_f32",
    "v_mad_mixlo_f16",
    "v_mad_mixhi_f16",
)
def _(d: Decoding) -> Execute:
    d.parse_operands()
    halves, wide = d.modifier("op_sel", [0, 0, 0]), d.modifier("op_sel_hi", [0, 0, 0])
    sources = [d.source(n, "f16" if wide[n - 1] else "f32", halves[n - 1]) for n in (1, 2, 3)]

    def compute(w: Waves) -> Array:
        a, b, c = (read(w).astype(F32) for read in sources)
        return np.broadcast_to(fma(a, b, c), w.active.shape)

    if d.mnemonic.endswith("f32"):
        write = result_writer(d, 0, "f32")
        return lambda w: write(w, compute(w))
    put = halfword_writer(d, d.destination(0, 1, "v"), 1 if "hi" in d.mnemonic else 0)
    clamp = bool(d.modifier("clamp"))
    return lambda w: put(w, (np.clip(compute(w), 0, 1) if clamp else compute(w)).astype(F16).view(np.uint16))


def _format(d: Decoding) -> Float8:
    if d.target.fp8 == "none":
        raise d.unsupported(f"{d.target.name} has no 8-bit float instructions")
    return float8("bf8" if "bf8" in d.mnemonic else "fp8", d.target.fp8)


def _only_unit_scale(d: Decoding, operand: int) -> None:
    if not (d.operands[operand].kind == "const" and d.operands[operand].value in (1, 1.0)):
        raise d.unsupported("only a scale of 1.0 is modelled")


@instruction("v_cvt_pk_fp8_f32", "v_cvt_pk_bf8_f32", "v_cvt_scalef32_pk_fp8_f32", "v_cvt_scalef32_pk_bf8_f32")
def _(d: Decoding) -> Execute:
    d.parse_operands()
    number = _format(d)
    if "scalef32" in d.mnemonic:
        _only_unit_scale(d, 3)
    a, b = d.source(1, "f32"), d.source(2, "f32")
    high = d.modifier("op_sel", [0, 0, 0])[-1]
    put = halfword_writer(d, d.destination(0, 1, "v"), d.operands[0].half if d.operands[0].half is not None else high)

    def execute(w: Waves) -> None:
        low, upper = number.encode(a(w), saturate=False), number.encode(b(w), saturate=False)
        put(w, low.astype(U32) | (upper.astype(U32) << U32(8)))

    return execute


@instruction("v_cvt_f32_fp8", "v_cvt_f32_bf8")
def _(d: Decoding) -> Execute:
    d.parse_operands()
    number = _format(d)
    name = str(d.modifier("src0_sel", "BYTE_0")) if d.line.mnemonic.endswith("sdwa") else "BYTE_0"
    if name not in ("BYTE_0", "BYTE_1", "BYTE_2", "BYTE_3", "DWORD"):
        raise d.unsupported(f"src0_sel:{name}")
    halves = d.modifier("op_sel", [0, 0])
    byte = d.modifier("byte_sel", int(name[-1]) if name[-1].isdigit() else halves[0] + 2 * halves[1])
    read = d.source(1, "u32")
    write = result_writer(d, 0, "f32")
    return lambda w: write(w, number.decode((read(w) >> U32(8 * byte)) & U32(255)))


@instruction("v_cvt_pk_f32_fp8", "v_cvt_pk_f32_bf8")
def _(d: Decoding) -> Execute:
    d.parse_operands()
    number = _format(d)
    high = d.modifier("op_sel", [0, 0])[0] or d.modifier("src0_sel", "WORD_0") == "WORD_1"
    read = d.source(1, "u16", int(high))
    register = d.destination(0, 2, "v")

    def execute(w: Waves) -> None:
        pair = read(w)
        w.set_vector(register, number.decode(pair & 255).view(U32))
        w.set_vector(register + 1, number.decode(pair >> 8).view(U32))

    return execute


@instruction(
    "v_cvt_scalef32_pk_f16_fp8",
    "v_cvt_scalef32_pk_f16_bf8",
    "v_cvt_scalef32_pk_bf16_fp8",
    "v_cvt_scalef32_pk_bf16_bf8",
)
def _(d: Decoding) -> Execute:
    d.parse_operands()
    number = _format(d)
    _only_unit_scale(d, 2)
    read = d.source(1, "u16", d.modifier("op_sel", [0, 0, 0])[0])
    write = result_writer(d, 0, "u32")

    def narrow(codes: Array) -> Array:
        value = number.decode(codes)
        return float_to_bf16_bits(value) if "_bf16_" in d.mnemonic else value.astype(F16).view(np.uint16)

    return lambda w: write(w, _pair(narrow(read(w) & 255), narrow(read(w) >> 8)))
