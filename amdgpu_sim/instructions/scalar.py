"""Scalar arithmetic, logic, comparisons and EXEC manipulation (one value a wave)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from amdgpu_sim.decoding import Decoding, Execute, instruction
from amdgpu_sim.instructions.vector_compare import INTEGER
from amdgpu_sim.instructions.vector_float import fma, to_integer
from amdgpu_sim.operands import TYPE_DWORDS
from amdgpu_sim.waves import EXEC, SCC, Array, Waves

U32, I32, U64, I64, F32 = np.uint32, np.int32, np.uint64, np.int64, np.float32
_B = U32(31)
Function = Callable[..., Any]


def scalar_writer(d: Decoding, number: int, kind: str) -> Callable[[Waves, Array], None]:
    """A function that writes operand ``number`` as ``kind``."""
    register = d.destination(number, TYPE_DWORDS.get(kind, 1), "s")
    if TYPE_DWORDS.get(kind) == 2:
        return lambda w, x: w.set_scalar64(register, x.view(U64))
    if kind in ("i32", "f32"):
        return lambda w, x: w.set_scalar(register, x.view(U32))
    return lambda w, x: w.set_scalar(register, x)


def scalar(names: str, result: str, sources: str, function: Function, scc: Function | None = None) -> None:
    """Define scalar instructions. ``scc`` maps (result, *sources) to the flag; None leaves it alone."""
    kinds = sources.split()

    @instruction(*names.split())
    def _(d: Decoding) -> Execute:
        d.parse_operands()
        d.instruction.category = "salu"
        if len(d.operands) != len(kinds) + 1:
            raise d.unsupported(f"{len(kinds) + 1} operands expected")
        readers = [d.source(n, kind) for n, kind in enumerate(kinds, 1)]
        write = scalar_writer(d, 0, result)
        if scc:
            d.write_also("s", SCC)

        def execute(w: Waves) -> None:
            values = [read(w) for read in readers]
            value = function(*values)
            if scc:
                w.scc = np.broadcast_to(scc(value, *values), w.scc.shape).copy()
            write(w, value)

        return execute


def sign_extend16(value: Array) -> Array:
    """The 16-bit immediate of a ``k`` instruction as int32."""
    return (value << I32(16)) >> I32(16)


def _nonzero(value: Array, *_: Array) -> Array:
    return value != 0


def _both(name: str, function: Function, scc: Function | None = _nonzero) -> None:
    for width in ("32", "64"):
        names = " ".join(f"s_{part}_b{width}" for part in name.split())
        scalar(names, f"u{width}", f"u{width} u{width}", function, scc)


_both("and", np.bitwise_and)
_both("or", np.bitwise_or)
_both("xor", np.bitwise_xor)
_both("andn2 and_not1", lambda a, b: a & ~b)
_both("orn2 or_not1", lambda a, b: a | ~b)
_both("nand", lambda a, b: ~(a & b))
_both("nor", lambda a, b: ~(a | b))
_both("xnor", lambda a, b: ~(a ^ b))
for _width in ("32", "64"):
    scalar(f"s_mov_b{_width}", f"u{_width}", f"u{_width}", lambda a: a)
    scalar(f"s_not_b{_width}", f"u{_width}", f"u{_width}", lambda a: ~a, _nonzero)
scalar("s_movk_i32", "i32", "i32", sign_extend16)
scalar("s_brev_b32", "u32", "u32", lambda a: np.array([[int(f"{int(x):032b}"[::-1], 2)] for x in a.flat], U32))
scalar("s_sext_i32_i16", "i32", "i32", lambda a: (a << I32(16)) >> I32(16))
scalar("s_sext_i32_i8", "i32", "i32", lambda a: (a << I32(24)) >> I32(24))
scalar("s_abs_i32", "i32", "i32", np.abs, _nonzero)
scalar("s_bcnt1_i32_b32", "u32", "u32", lambda a: np.bitwise_count(a).astype(U32), _nonzero)
scalar("s_bcnt1_i32_b64", "u32", "u64", lambda a: np.bitwise_count(a).astype(U32), _nonzero)


def _lowest_bit(value: Array) -> Array:
    found = [[(int(x) & -int(x)).bit_length() - 1 if x else 0xFFFFFFFF] for x in value.flat]
    return np.array(found, np.int64).astype(U32)


def _leading_zeros(value: Array) -> Array:
    bits = value.dtype.itemsize * 8
    return np.array([[bits - int(x).bit_length() if x else 0xFFFFFFFF] for x in value.flat], np.int64).astype(U32)


scalar("s_ff1_i32_b32 s_ctz_i32_b32", "u32", "u32", _lowest_bit)
scalar("s_ff1_i32_b64 s_ctz_i32_b64", "u32", "u64", _lowest_bit)
scalar("s_flbit_i32_b32 s_clz_i32_u32", "u32", "u32", _leading_zeros)
scalar("s_flbit_i32_b64 s_clz_i32_u64", "u32", "u64", _leading_zeros)

scalar("s_lshl_b32", "u32", "u32 u32", lambda a, b: a << (b & _B), _nonzero)
scalar("s_lshr_b32", "u32", "u32 u32", lambda a, b: a >> (b & _B), _nonzero)
scalar("s_ashr_i32", "i32", "i32 u32", lambda a, b: a >> (b & _B).astype(I32), _nonzero)
scalar("s_lshl_b64", "u64", "u64 u32", lambda a, b: a << (b & U32(63)).astype(U64), _nonzero)
scalar("s_lshr_b64", "u64", "u64 u32", lambda a, b: a >> (b & U32(63)).astype(U64), _nonzero)
scalar("s_ashr_i64", "i64", "i64 u32", lambda a, b: a >> (b & U32(63)).astype(I64), _nonzero)


def _field(value: Array, control: Array) -> tuple[Array, Array]:
    width = (control >> U32(16)) & U32(0x7F)
    raw = value.astype(U64) >> (control & U32(31)).astype(U64)
    return raw & ((U64(1) << np.minimum(width, 63).astype(U64)) - U64(1)), width.astype(I64)


def _bfe_signed(value: Array, control: Array) -> Array:
    raw, width = _field(value, control)
    shift = 64 - np.clip(width, 1, 32)
    return np.where(width == 0, 0, (raw.view(I64) << shift) >> shift).astype(I32)


scalar("s_bfe_u32", "u32", "u32 u32", lambda a, b: _field(a, b)[0].astype(U32), _nonzero)
scalar("s_bfe_i32", "i32", "u32 u32", _bfe_signed, _nonzero)
scalar("s_bfm_b32", "u32", "u32 u32", lambda a, b: ((U32(1) << (a & _B)) - U32(1)) << (b & _B))
scalar("s_pack_ll_b32_b16", "u32", "u32 u32", lambda a, b: (a & U32(0xFFFF)) | (b << U32(16)))
scalar("s_pack_lh_b32_b16", "u32", "u32 u32", lambda a, b: (a & U32(0xFFFF)) | (b & U32(0xFFFF0000)))
scalar("s_pack_hh_b32_b16", "u32", "u32 u32", lambda a, b: (a >> U32(16)) | (b & U32(0xFFFF0000)))


def _add_overflow(r: Array, a: Array, b: Array) -> Array:
    return ((a ^ r) & (b ^ r)) < 0


def _sub_overflow(r: Array, a: Array, b: Array) -> Array:
    return ((a ^ b) & (a ^ r)) < 0


scalar("s_add_i32 s_add_co_i32", "i32", "i32 i32", np.add, _add_overflow)
scalar("s_sub_i32 s_sub_co_i32", "i32", "i32 i32", np.subtract, _sub_overflow)
scalar("s_add_u32 s_add_co_u32", "u32", "u32 u32", np.add, lambda r, a, b: r < a)
scalar("s_sub_u32 s_sub_co_u32", "u32", "u32 u32", np.subtract, lambda r, a, b: b > a)
scalar("s_add_nc_u64 s_add_u64", "u64", "u64 u64", np.add)
scalar("s_sub_nc_u64 s_sub_u64", "u64", "u64 u64", np.subtract)
scalar("s_mul_i32", "u32", "u32 u32", np.multiply)
scalar("s_mul_u64", "u64", "u64 u64", np.multiply)
scalar("s_mul_hi_u32", "u32", "u32 u32", lambda a, b: ((a.astype(U64) * b) >> U64(32)).astype(U32))
scalar("s_mul_hi_i32", "i32", "i32 i32", lambda a, b: ((a.astype(I64) * b) >> I64(32)).astype(I32))
scalar("s_max_i32", "i32", "i32 i32", np.maximum, lambda r, a, b: a >= b)
scalar("s_min_i32", "i32", "i32 i32", np.minimum, lambda r, a, b: a < b)
scalar("s_max_u32", "u32", "u32 u32", np.maximum, lambda r, a, b: a >= b)
scalar("s_min_u32", "u32", "u32 u32", np.minimum, lambda r, a, b: a < b)
for _shift in (1, 2, 3, 4):
    scalar(f"s_lshl{_shift}_add_u32", "u32", "u32 u32",
           lambda a, b, n=_shift: (a << U32(n)) + b,
           lambda r, a, b, n=_shift: (a.astype(U64) << U64(n)) + b > U64(0xFFFFFFFF))  # fmt: skip

scalar("s_add_f32", "f32", "f32 f32", np.add)
scalar("s_sub_f32", "f32", "f32 f32", np.subtract)
scalar("s_mul_f32", "f32", "f32 f32", np.multiply)
scalar("s_max_f32 s_max_num_f32", "f32", "f32 f32", np.fmax)
scalar("s_min_f32 s_min_num_f32", "f32", "f32 f32", np.fmin)
scalar("s_cvt_f32_u32", "f32", "u32", lambda a: a.astype(F32))
scalar("s_cvt_f32_i32", "f32", "i32", lambda a: a.astype(F32))
scalar("s_cvt_u32_f32", "u32", "f32", lambda a: to_integer(a, 0, 2**32 - 1).astype(U32))
scalar("s_cvt_i32_f32", "i32", "f32", lambda a: to_integer(a, -(2**31), 2**31 - 1).astype(I32))
scalar("s_trunc_f32", "f32", "f32", np.trunc)
scalar("s_rndne_f32", "f32", "f32", np.rint)
scalar("s_floor_f32", "f32", "f32", np.floor)
scalar("s_fmamk_f32 s_fmaak_f32", "f32", "f32 f32 f32", fma)


@instruction("s_fmac_f32")
def _(d: Decoding) -> Execute:
    d.parse_operands()
    d.instruction.category = "salu"
    a, b, c, write = d.source(1, "f32"), d.source(2, "f32"), d.source(0, "f32"), scalar_writer(d, 0, "f32")
    return lambda w: write(w, fma(a(w), b(w), c(w)))


def _define_carry(names: str, sign: int) -> None:
    @instruction(*names.split())
    def _(d: Decoding) -> Execute:
        d.parse_operands()
        d.instruction.category = "salu"
        a, b, write = d.source(1, "u32"), d.source(2, "u32"), scalar_writer(d, 0, "u32")
        d.read_also("s", SCC)
        d.write_also("s", SCC)

        def execute(w: Waves) -> None:
            total = a(w).astype(I64) + sign * (b(w).astype(I64) + w.scc)
            w.scc = np.broadcast_to((total < 0) | (total > 0xFFFFFFFF), w.scc.shape).copy()
            write(w, total.astype(U32))

        return execute


_define_carry("s_addc_u32 s_add_co_ci_u32", 1)
_define_carry("s_subb_u32 s_sub_co_ci_u32", -1)


def _define_select(width: str) -> None:
    @instruction(f"s_cselect_b{width}")
    def _(d: Decoding) -> Execute:
        d.parse_operands()
        d.instruction.category = "salu"
        a, b, write = d.source(1, f"u{width}"), d.source(2, f"u{width}"), scalar_writer(d, 0, f"u{width}")
        d.read_also("s", SCC)
        return lambda w: write(w, np.where(w.scc, a(w), b(w)))

    @instruction(f"s_cmov_b{width}")
    def _(d: Decoding) -> Execute:
        d.parse_operands()
        d.instruction.category = "salu"
        a, b, write = d.source(1, f"u{width}"), d.source(0, f"u{width}"), scalar_writer(d, 0, f"u{width}")
        d.read_also("s", SCC)
        return lambda w: write(w, np.where(w.scc, a(w), b(w)))


_define_select("32")
_define_select("64")


def _define_compare(name: str, kind: str, function: Function) -> None:
    @instruction(name)
    def _(d: Decoding) -> Execute:
        d.parse_operands()
        d.instruction.category = "salu"
        a, b = d.source(0, kind), d.source(1, kind)
        d.write_also("s", SCC)

        def execute(w: Waves) -> None:
            w.scc = np.broadcast_to(function(a(w), b(w)), w.scc.shape).copy()

        return execute


for _name, _function in INTEGER.items():
    _scalar_name = "lg" if _name == "ne" else _name
    for _kind in ("i32", "u32", "u64"):
        _define_compare(f"s_cmp_{_scalar_name}_{_kind}", _kind, _function)
    _define_compare(f"s_cmp_{_scalar_name}_f32", "f32", _function)
    _define_compare(f"s_cmpk_{_scalar_name}_i32", "i32", lambda a, b, f=_function: f(a, sign_extend16(b)))
    _define_compare(f"s_cmpk_{_scalar_name}_u32", "u32", _function)
_define_compare("s_bitcmp0_b32", "u32", lambda a, b: (a >> (b & _B)) & U32(1) == 0)
_define_compare("s_bitcmp1_b32", "u32", lambda a, b: (a >> (b & _B)) & U32(1) == 1)


@instruction("s_addk_i32", "s_mulk_i32", "s_addk_co_i32")
def _(d: Decoding) -> Execute:
    d.parse_operands()
    d.instruction.category = "salu"
    a, b, write = d.source(0, "i32"), d.source(1, "i32"), scalar_writer(d, 0, "i32")
    adds = "add" in d.mnemonic
    if adds:
        d.write_also("s", SCC)

    def execute(w: Waves) -> None:
        x, y = a(w), sign_extend16(b(w))
        value = x + y if adds else x * y
        if adds:
            w.scc = _add_overflow(value, x, y)
        write(w, value)

    return execute


_SAVE: dict[str, Function] = {
    "and": lambda a, e: a & e, "or": lambda a, e: a | e, "xor": lambda a, e: a ^ e,
    "andn2": lambda a, e: a & ~e, "and_not1": lambda a, e: a & ~e, "andn1": lambda a, e: ~a & e,
    "and_not0": lambda a, e: ~a & e, "orn2": lambda a, e: a | ~e, "or_not1": lambda a, e: a | ~e,
}  # fmt: skip


def _define_saveexec(name: str, width: str, function: Function) -> None:
    @instruction(f"s_{name}_saveexec_b{width}")
    def _(d: Decoding) -> Execute:
        d.parse_operands()
        d.instruction.category = "salu"
        source, write = d.source(1, f"u{width}"), scalar_writer(d, 0, f"u{width}")
        words = int(width) // 32
        d.write_also("s", EXEC, words)
        d.write_also("s", SCC)

        def execute(w: Waves) -> None:
            old = w.s[EXEC].copy() if words == 1 else w.s[EXEC] | (w.s[EXEC + 1].astype(U64) << U64(32))
            new = function(source(w), old)
            write(w, old)
            w.scc = np.broadcast_to(new != 0, w.scc.shape).copy()
            (w.set_scalar if words == 1 else w.set_scalar64)(EXEC, new)

        return execute


for _name, _function in _SAVE.items():
    for _width in ("32", "64"):
        _define_saveexec(_name, _width, _function)
