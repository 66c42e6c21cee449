"""Vector integer, bitwise, shift, permute-bytes and carry instructions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from amdgpu_sim.decoding import Decoding, Execute, instruction
from amdgpu_sim.instructions.vector import result_writer, vector
from amdgpu_sim.waves import NULL, Array, Waves

U32, I32, U64, I64, U16 = np.uint32, np.int32, np.uint64, np.int64, np.uint16
_B, _Q = U32(31), U64(32)


def _u24(x: Array) -> Array:
    return x & U32(0xFFFFFF)


def _i24(x: Array) -> Array:
    return (x << I32(8)) >> I32(8)


def _bfe_u32(x: Array, offset: Array, width: Array) -> Array:
    return (x >> (offset & _B)) & ((U32(1) << (width & _B)) - U32(1))


def _bfe_i32(x: Array, offset: Array, width: Array) -> Array:
    width = width & _B
    field = (_bfe_u32(x, offset, width).astype(U64) << (U64(64) - np.maximum(width, 1))).view(I64)
    return np.where(width == 0, 0, field >> (I64(64) - np.maximum(width, 1).astype(I64))).astype(I32)


def _reverse_bits(x: Array) -> Array:
    flat = np.ascontiguousarray(x).view(np.uint8).reshape(*x.shape, 4)
    bits = np.unpackbits(flat, axis=-1, bitorder="little")[..., ::-1]
    return np.packbits(bits, axis=-1, bitorder="little").view(U32)[..., 0]


def _leading_zeros(x: Array) -> Array:
    _, exponent = np.frexp(x.astype(np.float64))
    return np.where(x == 0, U32(0xFFFFFFFF), (32 - exponent).astype(U32))


def _trailing_zeros(x: Array) -> Array:
    _, exponent = np.frexp((x & (~x + U32(1))).astype(np.float64))
    return np.where(x == 0, U32(0xFFFFFFFF), (exponent - 1).astype(U32))


def _perm(high: Array, low: Array, selector: Array) -> Array:
    pair = (high.astype(U64) << _Q) | low
    result = np.zeros(np.broadcast_shapes(pair.shape, selector.shape), U32)
    for byte in range(4):
        pick = (selector >> U32(8 * byte)) & U32(0xFF)
        chosen = (pair >> (np.minimum(pick, 7).astype(U64) * U64(8))) & U64(0xFF)
        sign_bit = np.minimum(np.maximum(pick, 8) - 8, 3).astype(U64) * U64(16) + U64(15)
        sign = np.where((pair >> sign_bit) & U64(1), U64(0xFF), U64(0))
        value = np.where(pick < 8, chosen, np.where(pick < 12, sign, np.where(pick == 12, U64(0), U64(0xFF))))
        result |= value.astype(U32) << U32(8 * byte)
    return result


def _align(high: Array, low: Array, shift: Array) -> Array:
    return (((high.astype(U64) << _Q) | low) >> shift.astype(U64)).astype(U32)


def _high(a: Array, b: Array) -> Array:
    return ((a.astype(U64) * b.astype(U64)) >> _Q).astype(U32)


def _high_signed(a: Array, b: Array) -> Array:
    return ((a.astype(I64) * b.astype(I64)) >> I64(32)).astype(I32)


def _median(a: Array, b: Array, c: Array) -> Array:
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))


vector("v_mov_b32 v_accvgpr_read_b32 v_accvgpr_write_b32 v_accvgpr_mov_b32", "b32", "b32", lambda a: a)
vector("v_mov_b64", "b64", "b64", lambda a: a)
vector("v_cvt_u32_u16", "u32", "u16", lambda a: a.astype(U32))
vector("v_cvt_i32_i16", "i32", "i16", lambda a: a.astype(I32))
vector("v_mov_b16", "u16", "u16", lambda a: a)
vector("v_not_b32", "u32", "u32", lambda a: ~a)
vector("v_and_b32", "u32", "u32 u32", np.bitwise_and)
vector("v_or_b32", "u32", "u32 u32", np.bitwise_or)
vector("v_xor_b32", "u32", "u32 u32", np.bitwise_xor)
vector("v_xnor_b32", "u32", "u32 u32", lambda a, b: ~(a ^ b))
vector("v_or3_b32", "u32", "u32 u32 u32", lambda a, b, c: a | b | c)
vector("v_xor3_b32", "u32", "u32 u32 u32", lambda a, b, c: a ^ b ^ c)
vector("v_and_or_b32", "u32", "u32 u32 u32", lambda a, b, c: (a & b) | c)
vector("v_bfi_b32", "u32", "u32 u32 u32", lambda a, b, c: (a & b) | (~a & c))
vector("v_bfrev_b32", "u32", "u32", _reverse_bits)
vector("v_ffbh_u32 v_clz_i32_u32", "u32", "u32", _leading_zeros)
vector("v_ffbl_b32 v_ctz_i32_b32", "u32", "u32", _trailing_zeros)
vector("v_bcnt_u32_b32", "u32", "u32 u32", lambda a, b: np.bitwise_count(a).astype(U32) + b)
vector("v_perm_b32", "u32", "u32 u32 u32", _perm)
vector("v_alignbit_b32", "u32", "u32 u32 u32", lambda a, b, c: _align(a, b, c & _B))
vector("v_alignbyte_b32", "u32", "u32 u32 u32", lambda a, b, c: _align(a, b, U32(8) * (c & U32(3))))
vector("v_bfe_u32", "u32", "u32 u32 u32", _bfe_u32)
vector("v_bfe_i32", "i32", "u32 u32 u32", _bfe_i32)
vector("v_bfm_b32", "u32", "u32 u32", lambda a, b: ((U32(1) << (a & _B)) - U32(1)) << (b & _B))

vector("v_lshlrev_b32", "u32", "u32 u32", lambda n, x: x << (n & _B))
vector("v_lshrrev_b32", "u32", "u32 u32", lambda n, x: x >> (n & _B))
vector("v_ashrrev_i32", "i32", "u32 i32", lambda n, x: x >> (n & _B).astype(I32))
vector("v_lshlrev_b64", "u64", "u32 u64", lambda n, x: x << (n & U32(63)).astype(U64))
vector("v_lshrrev_b64", "u64", "u32 u64", lambda n, x: x >> (n & U32(63)).astype(U64))
vector("v_ashrrev_i64", "i64", "u32 i64", lambda n, x: x >> (n & U32(63)).astype(I64))
vector("v_lshlrev_b16", "u16", "u16 u16", lambda n, x: x << (n & U16(15)))
vector("v_lshrrev_b16", "u16", "u16 u16", lambda n, x: x >> (n & U16(15)))
vector("v_ashrrev_i16", "i16", "i16 i16", lambda n, x: x >> (n & np.int16(15)))
vector("v_and_b16", "u16", "u16 u16", np.bitwise_and)
vector("v_or_b16", "u16", "u16 u16", np.bitwise_or)
vector("v_xor_b16", "u16", "u16 u16", np.bitwise_xor)
vector("v_not_b16", "u16", "u16", lambda a: ~a)
vector("v_lshl_add_u32", "u32", "u32 u32 u32", lambda a, b, c: (a << (b & _B)) + c)
vector("v_add_lshl_u32", "u32", "u32 u32 u32", lambda a, b, c: (a + b) << (c & _B))
vector("v_lshl_or_b32", "u32", "u32 u32 u32", lambda a, b, c: (a << (b & _B)) | c)
vector("v_lshl_add_u64", "u64", "u64 u32 u64", lambda a, b, c: (a << (b & U32(7)).astype(U64)) + c)

vector("v_add_u32 v_add_nc_u32", "u32", "u32 u32", np.add)
vector("v_sub_u32 v_sub_nc_u32", "u32", "u32 u32", np.subtract)
vector("v_subrev_u32 v_subrev_nc_u32", "u32", "u32 u32", lambda a, b: b - a)
vector("v_add_i32 v_add_nc_i32", "i32", "i32 i32", np.add)
vector("v_sub_i32 v_sub_nc_i32", "i32", "i32 i32", np.subtract)
vector("v_add_i16 v_add_nc_i16", "i16", "i16 i16", np.add)
vector("v_sub_i16 v_sub_nc_i16", "i16", "i16 i16", np.subtract)
vector("v_add_u16 v_add_nc_u16", "u16", "u16 u16", np.add)
vector("v_sub_u16 v_sub_nc_u16", "u16", "u16 u16", np.subtract)
vector("v_mul_lo_u16", "u16", "u16 u16", np.multiply)
vector("v_add3_u32", "u32", "u32 u32 u32", lambda a, b, c: a + b + c)
vector("v_xad_u32", "u32", "u32 u32 u32", lambda a, b, c: (a ^ b) + c)
vector("v_mul_lo_u32", "u32", "u32 u32", np.multiply, "valu_quarter")
vector("v_mul_hi_u32", "u32", "u32 u32", _high, "valu_quarter")
vector("v_mul_hi_i32", "i32", "i32 i32", _high_signed, "valu_quarter")
vector("v_mul_u32_u24", "u32", "u32 u32", lambda a, b: _u24(a) * _u24(b))
vector("v_mul_i32_i24", "i32", "i32 i32", lambda a, b: _i24(a) * _i24(b))
vector("v_mad_u32_u24", "u32", "u32 u32 u32", lambda a, b, c: _u24(a) * _u24(b) + c)
vector("v_mad_i32_i24", "i32", "i32 i32 i32", lambda a, b, c: _i24(a) * _i24(b) + c)
vector("v_mad_u16", "u16", "u16 u16 u16", lambda a, b, c: a * b + c)
vector("v_min_u32", "u32", "u32 u32", np.minimum)
vector("v_max_u32", "u32", "u32 u32", np.maximum)
vector("v_min_i32", "i32", "i32 i32", np.minimum)
vector("v_max_i32", "i32", "i32 i32", np.maximum)
vector("v_min3_u32", "u32", "u32 u32 u32", lambda a, b, c: np.minimum(np.minimum(a, b), c))
vector("v_max3_u32", "u32", "u32 u32 u32", lambda a, b, c: np.maximum(np.maximum(a, b), c))
vector("v_min3_i32", "i32", "i32 i32 i32", lambda a, b, c: np.minimum(np.minimum(a, b), c))
vector("v_max3_i32", "i32", "i32 i32 i32", lambda a, b, c: np.maximum(np.maximum(a, b), c))
for kind in ("i32", "u32"):
    vector(f"v_maxmin_{kind}", kind, f"{kind} {kind} {kind}", lambda a, b, c: np.minimum(np.maximum(a, b), c))
    vector(f"v_minmax_{kind}", kind, f"{kind} {kind} {kind}", lambda a, b, c: np.maximum(np.minimum(a, b), c))
vector("v_med3_i32", "i32", "i32 i32 i32", _median)
vector("v_med3_u32", "u32", "u32 u32 u32", _median)


def _distance(a: Array, b: Array) -> Array:
    return np.maximum(a, b) - np.minimum(a, b)


def _sad_halves(a: Array, b: Array, c: Array) -> Array:
    low = np.uint32(0xFFFF)
    return _distance(a & low, b & low) + _distance(a >> np.uint32(16), b >> np.uint32(16)) + c


vector("v_sad_u32", "u32", "u32 u32 u32", lambda a, b, c: _distance(a, b) + c)
vector("v_sad_u16", "u32", "u32 u32 u32", _sad_halves)


def _truth_table(kind: str) -> Callable[[Decoding], Execute]:
    def decode(d: Decoding) -> Execute:
        d.parse_operands()
        table = d.modifier("bitop3", 0)
        a, b, c = (d.source(number, kind) for number in (1, 2, 3))
        write = result_writer(d, 0, kind)

        def execute(w: Waves) -> None:
            x, y, z = a(w), b(w), c(w)
            result = np.zeros(w.active.shape, x.dtype)
            for row in range(8):
                if table >> row & 1:
                    result |= (x if row & 4 else ~x) & (y if row & 2 else ~y) & (z if row & 1 else ~z)
            write(w, result)

        return execute

    return decode


instruction("v_bitop3_b32")(_truth_table("u32"))
instruction("v_bitop3_b16")(_truth_table("u16"))


def _carry(sign: int, carry_in: bool, reverse: bool) -> Callable[[Decoding], Execute]:
    def decode(d: Decoding) -> Execute:
        d.parse_operands()
        register = d.operands[1].index
        words = d.target.wave_size // 32
        d.destination(1, words, "s")
        first, second = d.source(3 if reverse else 2, "u32"), d.source(2 if reverse else 3, "u32")
        carry = d.operands[4].index if carry_in else NULL
        if carry_in:
            d.read_also("s", carry, words)
        write = result_writer(d, 0, "u32")

        def execute(w: Waves) -> None:
            extra = w.lane_mask(carry).astype(I64) if carry_in else 0
            total = first(w).astype(I64) + sign * (second(w).astype(I64) + extra)
            write(w, total.astype(U32))
            w.set_lane_mask(register, np.broadcast_to((total < 0) | (total > 0xFFFFFFFF), w.active.shape))

        return execute

    return decode


instruction("v_add_co_u32")(_carry(1, False, False))
instruction("v_addc_co_u32", "v_add_co_ci_u32")(_carry(1, True, False))
instruction("v_sub_co_u32")(_carry(-1, False, False))
instruction("v_subrev_co_u32")(_carry(-1, False, True))
instruction("v_subb_co_u32", "v_sub_co_ci_u32")(_carry(-1, True, False))
instruction("v_subbrev_co_u32", "v_subrev_co_ci_u32")(_carry(-1, True, True))


@instruction("v_mad_u64_u32", "v_mad_co_u64_u32", "v_mad_i64_i32", "v_mad_co_i64_i32")
def _(d: Decoding) -> Execute:
    d.parse_operands()
    d.instruction.category = "valu_quarter"
    d.instruction.upward = True
    signed = "i64" in d.mnemonic
    narrow, wide = ("i32", "i64") if signed else ("u32", "u64")
    a, b, c = d.source(2, narrow), d.source(3, narrow), d.source(4, wide)
    register = d.operands[1].index
    write = result_writer(d, 0, wide)
    d.destination(1, d.target.wave_size // 32, "s")
    dtype = I64 if signed else U64

    def execute(w: Waves) -> None:
        addend = c(w)
        product = a(w).astype(dtype) * b(w).astype(dtype)
        total = product + addend
        if signed:  # bit 64 of the sum: its sign, which wrapping inverts
            wrapped = ((product ^ total) & (addend ^ total)) < 0
            carry = (total < 0) ^ wrapped
        else:
            carry = total < addend
        write(w, np.broadcast_to(total, w.active.shape).copy())
        w.set_lane_mask(register, np.broadcast_to(carry, w.active.shape))

    return execute


@instruction("v_mbcnt_lo_u32_b32", "v_mbcnt_hi_u32_b32")
def _(d: Decoding) -> Execute:
    d.parse_operands()
    mask, base = d.source(1, "u32"), d.source(2, "u32")
    write = result_writer(d, 0, "u32")
    lane = np.arange(d.target.wave_size)
    below = np.clip(lane - (32 if "hi" in d.mnemonic else 0), 0, 32).astype(U64)
    prefix = ((U64(1) << below) - U64(1)).astype(U32)
    return lambda w: write(w, np.bitwise_count(mask(w) & prefix).astype(U32) + base(w))
