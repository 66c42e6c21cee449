"""Integer vector instructions against Python integers on every lane."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from assembler import compute
from test_vector_instructions import words

import amdgpu_sim

Array = np.ndarray[Any, Any]
M16, M32 = 0xFFFF, 0xFFFFFFFF


def s16(x: int) -> int:
    return (x & M16) - ((x & 0x8000) << 1)


def s24(x: int) -> int:
    return (x & 0xFFFFFF) - ((x & 0x800000) << 1)


def s32(x: int) -> int:
    return x - ((x & 0x80000000) << 1)


def lane_by_lane(function: Callable[..., int], *sources: Array) -> Array:
    return np.array([function(*map(int, lane)) & M32 for lane in zip(*sources, strict=True)], np.uint32)


def leading(x: int) -> int:
    return 32 - x.bit_length() if x else -1


def trailing(x: int) -> int:
    return (x & -x).bit_length() - 1 if x else -1


def bfe_signed(x: int, offset: int, width: int) -> int:
    value = x >> (offset & 31) & (1 << (width & 31)) - 1
    return value - (value >> (width & 31) - 1 << (width & 31)) if width & 31 else 0


# target, mnemonic, sources, value of Python integers (32 bits of it are kept)
INTEGER: list[tuple[str, str, int, Callable[..., int]]] = [
    ("gfx942", "v_xnor_b32_e32", 2, lambda a, b: ~(a ^ b)),
    ("gfx1100", "v_xor3_b32", 3, lambda a, b, c: a ^ b ^ c),
    ("gfx942", "v_alignbyte_b32", 3, lambda a, b, c: (a << 32 | b) >> 8 * (c & 3)),
    ("gfx942", "v_bfe_i32", 3, bfe_signed),
    ("gfx942", "v_bfm_b32", 2, lambda a, b: ((1 << (a & 31)) - 1) << (b & 31)),
    ("gfx942", "v_ffbh_u32_e32", 1, leading),
    ("gfx1100", "v_clz_i32_u32_e32", 1, leading),
    ("gfx942", "v_ffbl_b32_e32", 1, trailing),
    ("gfx1100", "v_ctz_i32_b32_e32", 1, trailing),
    ("gfx942", "v_add_i32", 2, lambda a, b: a + b),
    ("gfx1100", "v_add_nc_i32", 2, lambda a, b: a + b),
    ("gfx942", "v_sub_i32", 2, lambda a, b: a - b),
    ("gfx1100", "v_sub_nc_i32", 2, lambda a, b: a - b),
    ("gfx1100", "v_subrev_nc_u32_e32", 2, lambda a, b: b - a),
    ("gfx942", "v_mul_i32_i24_e32", 2, lambda a, b: s24(a) * s24(b)),
    ("gfx942", "v_mad_i32_i24", 3, lambda a, b, c: s24(a) * s24(b) + c),
    ("gfx942", "v_min3_u32", 3, lambda a, b, c: min(a, b, c)),
    ("gfx942", "v_max3_u32", 3, lambda a, b, c: max(a, b, c)),
    ("gfx942", "v_med3_u32", 3, lambda a, b, c: sorted([a, b, c])[1]),
    ("gfx942", "v_min3_i32", 3, lambda a, b, c: min(s32(a), s32(b), s32(c))),
    ("gfx942", "v_max3_i32", 3, lambda a, b, c: max(s32(a), s32(b), s32(c))),
    ("gfx942", "v_med3_i32", 3, lambda a, b, c: sorted([s32(a), s32(b), s32(c)])[1]),
    ("gfx942", "v_sad_u32", 3, lambda a, b, c: abs(a - b) + c),
    ("gfx942", "v_sad_u16", 3, lambda a, b, c: abs(a % 65536 - b % 65536) + abs(a // 65536 - b // 65536) + c),
    ("gfx942", "v_and_b16", 2, lambda a, b: a & b & M16),
    ("gfx942", "v_lshrrev_b16_e32", 2, lambda a, b: (b & M16) >> (a & 15)),
    ("gfx942", "v_add_u16_e32", 2, lambda a, b: (a + b) & M16),
    ("gfx942", "v_sub_u16_e32", 2, lambda a, b: (a - b) & M16),
    ("gfx942", "v_add_i16", 2, lambda a, b: (a + b) & M16),
    ("gfx942", "v_sub_i16", 2, lambda a, b: (a - b) & M16),
    ("gfx942", "v_mul_lo_u16_e32", 2, lambda a, b: (a * b) & M16),
    ("gfx942", "v_mad_u16", 3, lambda a, b, c: (a * b + c) & M16),
    ("gfx942", "v_accvgpr_write_b32", 1, lambda a: a),
    ("gfx942", "v_dot4_u32_u8", 3, lambda a, b, c: c + sum((a >> n & 255) * (b >> n & 255) for n in (0, 8, 16, 24))),
    ("gfx942", "v_pk_add_u16", 2, lambda a, b: pair(lambda x, y: x + y, a, b)),
    ("gfx942", "v_pk_add_i16", 2, lambda a, b: pair(lambda x, y: x + y, a, b)),
    ("gfx942", "v_pk_sub_i16", 2, lambda a, b: pair(lambda x, y: x - y, a, b)),
    ("gfx942", "v_pk_mul_lo_u16", 2, lambda a, b: pair(lambda x, y: x * y, a, b)),
    ("gfx942", "v_pk_mad_u16", 3, lambda a, b, c: pair(lambda x, y, z: x * y + z, a, b, c)),
    ("gfx942", "v_pk_max_u16", 2, lambda a, b: pair(max, a, b)),
    ("gfx942", "v_pk_min_u16", 2, lambda a, b: pair(min, a, b)),
    ("gfx942", "v_pk_max_i16", 2, lambda a, b: pair(lambda x, y: max(s16(x), s16(y)), a, b)),
    ("gfx942", "v_pk_min_i16", 2, lambda a, b: pair(lambda x, y: min(s16(x), s16(y)), a, b)),
    ("gfx942", "v_pk_lshlrev_b16", 2, lambda a, b: pair(lambda x, y: y << (x & 15), a, b)),
    ("gfx942", "v_pk_lshrrev_b16", 2, lambda a, b: pair(lambda x, y: y >> (x & 15), a, b)),
]


def pair(function: Callable[..., int], *values: int) -> int:
    low, high = (function(*(v >> n & M16 for v in values)) & M16 for n in (0, 16))
    return low | high << 16


def table_words(target: str, count: int) -> list[Array]:
    lanes = amdgpu_sim.TARGETS[target].wave_size
    return [words(seed)[:lanes].copy() for seed in range(count)]


@pytest.mark.parametrize(("target", "name", "count", "value"), INTEGER, ids=[case[1] for case in INTEGER])
def test_integers(target: str, name: str, count: int, value: Callable[..., int]) -> None:
    inputs = table_words(target, count)
    result = compute(target, f"{name} v20, {', '.join(f'v{10 + n}' for n in range(count))}", *inputs)[0]
    assert np.array_equal(result, lane_by_lane(value, *inputs))


# gfx11's 16-bit arithmetic keeps the other half of the destination, here zero
HALVES11: list[tuple[str, int, Callable[..., int]]] = [
    ("v_or_b16", 2, lambda a, b: a | b), ("v_xor_b16", 2, lambda a, b: a ^ b), ("v_not_b16_e32", 1, lambda a: ~a),
    ("v_add_nc_u16", 2, lambda a, b: a + b), ("v_sub_nc_u16", 2, lambda a, b: a - b),
    ("v_add_nc_i16", 2, lambda a, b: a + b), ("v_sub_nc_i16", 2, lambda a, b: a - b),
]  # fmt: skip


@pytest.mark.parametrize(("name", "count", "value"), HALVES11, ids=[case[0] for case in HALVES11])
def test_halfword_integers(name: str, count: int, value: Callable[..., int]) -> None:
    inputs = table_words("gfx1100", count)
    sources = [f"v{10 + n}" for n in range(count)]
    low = compute("gfx1100", f"v_mov_b32_e32 v20, 0\n{name} v20, {', '.join(sources)}", *inputs)[0]
    assert np.array_equal(low, lane_by_lane(lambda *x: value(*x) & M16, *inputs))
    if count == 2:
        code = f"v_mov_b32_e32 v20, 0\n{name} v20, {', '.join(sources)} op_sel:[1,0,1]"
        high = compute("gfx1100", code, *inputs)[0]
        assert np.array_equal(high, lane_by_lane(lambda a, b: (value(a >> 16, b) & M16) << 16, *inputs))


def test_conversions_of_integers() -> None:
    a = words(0)
    for byte in range(4):
        result = compute("gfx942", f"v_cvt_f32_ubyte{byte}_e32 v20, v10", a)[0].view(np.float32)
        assert np.array_equal(result, (a >> 8 * byte & 255).astype(np.float32))
    low = a.astype(np.uint16)
    assert np.array_equal(compute("gfx1100", "v_cvt_u32_u16_e32 v20, v10", a[:32])[0], low[:32])
    assert np.array_equal(
        compute("gfx1100", "v_cvt_i32_i16_e32 v20, v10", a[:32])[0].view(np.int32), low[:32].view(np.int16)
    )
    with np.errstate(all="ignore"):
        for name, numbers in (("u16", low), ("i16", low.view(np.int16))):
            result = compute("gfx942", f"v_cvt_f16_{name}_e32 v20, v10", a)[0].astype(np.uint16).view(np.float16)
            assert np.array_equal(result, numbers.astype(np.float16))


def test_byte_dot_products() -> None:
    a, b, c = (words(n) for n in range(3))
    x, y = (v.view(np.int8).reshape(64, 4).astype(np.int64) for v in (a, b))
    result = compute("gfx942", "v_mov_b32_e32 v20, v12\nv_dot4c_i32_i8_e32 v20, v10, v11", a, b, c)[0]
    assert np.array_equal(result, ((x * y).sum(1) + c).astype(np.uint32))
    unsigned = b.view(np.uint8).reshape(64, 4).astype(np.int64)
    result = compute("gfx1100", "v_dot4_i32_iu8 v20, v10, v11, v12 neg_lo:[1,0,0]", a[:32], b[:32], c[:32])[0]
    assert np.array_equal(result, ((x * unsigned).sum(1) + c).astype(np.uint32)[:32])


def registers64(values: Array) -> list[Array]:
    bits = values.view(np.uint64)
    return [bits.astype(np.uint32), (bits >> np.uint64(32)).astype(np.uint32)]


def from64(result: Array) -> Array:
    return result[0].astype(np.uint64) | result[1].astype(np.uint64) << np.uint64(32)


def test_wide_integers() -> None:
    a, b = (np.random.default_rng(n).integers(0, 2**64, 64, dtype=np.uint64) for n in (0, 1))
    code = "v_ashrrev_i64 v[20:21], 13, v[10:11]"
    assert np.array_equal(
        from64(compute("gfx942", code, *registers64(a), outputs=2)).view(np.int64), a.view(np.int64) >> 13
    )
    code = "v_lshl_add_u64 v[20:21], v[10:11], 3, v[12:13]"
    result = from64(compute("gfx942", code, *registers64(a), *registers64(b), outputs=2))
    assert np.array_equal(result, (a << np.uint64(3)) + b)
    x, y = (v.astype(np.uint32) for v in (a, b))
    for target, name, lanes in (("gfx942", "v_mad_i64_i32", 64), ("gfx1201", "v_mad_co_i64_i32", 32)):
        carry = "s[10:11]" if lanes == 64 else "s10"
        code = f"{name} v[20:21], {carry}, v10, v11, v[12:13]\nv_mov_b32_e32 v22, s10"
        inputs = [x[:lanes], y[:lanes], *[part[:lanes] for part in registers64(a)]]
        result = compute(target, code, *inputs, outputs=3)
        signed = (x.view(np.int32)[:lanes], y.view(np.int32)[:lanes], a.view(np.int64)[:lanes])
        totals = [int(p) * int(q) + int(r) for p, q, r in zip(*signed, strict=True)]
        assert from64(result).tolist() == [total % 2**64 for total in totals]
        assert result[2][0] == sum((total < 0) << lane for lane, total in enumerate(totals[:32]))
    code = "v_mad_co_u64_u32 v[20:21], s10, v10, v11, v[12:13]\nv_mov_b32_e32 v22, s10"
    result = compute("gfx1201", code, x[:32], y[:32], *[part[:32] for part in registers64(a)], outputs=3)
    totals = [int(p) * int(q) + int(r) for p, q, r in zip(x[:32], y[:32], a[:32], strict=True)]
    assert from64(result).tolist() == [total % 2**64 for total in totals]
    assert result[2][0] == sum((total >> 64) << lane for lane, total in enumerate(totals))


@pytest.mark.parametrize(("target", "plain", "with_carry"), [
    ("gfx942", ("v_sub_co_u32", "v_subrev_co_u32"), ("v_subb_co_u32", "v_subbrev_co_u32")),
    ("gfx1100", ("v_sub_co_u32", "v_subrev_co_u32"), ("v_sub_co_ci_u32", "v_subrev_co_ci_u32")),
])  # fmt: skip
def test_borrow_chains(target: str, plain: tuple[str, str], with_carry: tuple[str, str]) -> None:
    low_a, low_b, high_a, high_b = table_words(target, 4)
    vcc = "vcc" if target == "gfx942" else "vcc_lo"
    for reverse in (0, 1):
        code = f"{plain[reverse]} v20, {vcc}, v10, v11\n{with_carry[reverse]} v21, {vcc}, v12, v13, {vcc}"
        low, high = compute(target, code, low_a, low_b, high_a, high_b, outputs=2)
        for lane in range(len(low)):
            a, b = (int(h[lane]) << 32 | int(x[lane]) for h, x in ((high_a, low_a), (high_b, low_b)))
            assert (int(high[lane]) << 32 | int(low[lane])) == ((b - a) if reverse else (a - b)) % 2**64


@pytest.mark.parametrize("table", [0x36, 0xE8])
def test_truth_tables_of_halves(table: int) -> None:
    a, b, c = (words(seed) for seed in range(3))
    result = compute("gfx950", f"v_bitop3_b16 v20, v10, v11, v12 bitop3:{table:#x}", a, b, c)[0]
    for bit in range(16):
        index = (a >> bit & 1) * 4 + (b >> bit & 1) * 2 + (c >> bit & 1)
        assert np.array_equal(result >> bit & 1, table >> index & 1)
