"""The rest of the lane-wise vector instructions, each against Python integers or numpy on every lane."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from assembler import assemble, compute
from test_vector_instructions import floats, words

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
    assert np.array_equal(compute("gfx1100", "v_cvt_i32_i16_e32 v20, v10", a[:32])[0].view(np.int32), low[:32].view(np.int16))
    with np.errstate(all="ignore"):
        for name, numbers in (("u16", low), ("i16", low.view(np.int16))):
            result = compute("gfx942", f"v_cvt_f16_{name}_e32 v20, v10", a)[0].astype(np.uint16).view(np.float16)
            assert np.array_equal(result, numbers.astype(np.float16))


def single(function: Callable[..., Any], *values: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(function(*values)).astype(np.float32)


def median(a: Array, b: Array, c: Array) -> Array:
    lowest = np.fmin(np.fmin(a, b), c)
    return np.where(np.isnan(a) | np.isnan(b) | np.isnan(c), lowest, np.sort(np.stack([a, b, c]), axis=0)[1])


FLOAT: list[tuple[str, str, int, Callable[..., Any]]] = [
    ("gfx942", "v_subrev_f32_e32", 2, lambda a, b: b - a),
    ("gfx942", "v_mul_legacy_f32", 2, lambda a, b: np.where((a == 0) | (b == 0), 0, a * b)),
    ("gfx1100", "v_mul_dx9_zero_f32_e32", 2, lambda a, b: np.where((a == 0) | (b == 0), 0, a * b)),
    ("gfx1201", "v_max_num_f32_e32", 2, np.fmax),
    ("gfx1201", "v_min_num_f32_e32", 2, np.fmin),
    ("gfx942", "v_min3_f32", 3, lambda a, b, c: np.fmin(np.fmin(a, b), c)),
    ("gfx1201", "v_min3_num_f32", 3, lambda a, b, c: np.fmin(np.fmin(a, b), c)),
    ("gfx1201", "v_max3_num_f32", 3, lambda a, b, c: np.fmax(np.fmax(a, b), c)),
    ("gfx942", "v_med3_f32", 3, median),
    ("gfx1201", "v_med3_num_f32", 3, median),
    ("gfx942", "v_ceil_f32_e32", 1, np.ceil),
    ("gfx942", "v_fract_f32_e32", 1, lambda a: np.where(np.isinf(a), np.nan, np.minimum(a - np.floor(a), 1 - 2.0**-24))),
    ("gfx942", "v_cvt_f32_f16_e32", 1, lambda a: a.view(np.float16)[::2]),
    ("gfx942", "v_rcp_iflag_f32_e32", 1, lambda a: np.where(np.abs(1 / a) < 2.0**-126, np.copysign(0, a), 1 / a)),
]


@pytest.mark.parametrize(("target", "name", "count", "value"), FLOAT, ids=[case[1] for case in FLOAT])
def test_floats(target: str, name: str, count: int, value: Callable[..., Any]) -> None:
    lanes = amdgpu_sim.TARGETS[target].wave_size
    inputs = [floats(seed)[:lanes].copy() for seed in range(count)]
    result = compute(target, f"{name} v20, {', '.join(f'v{10 + n}' for n in range(count))}", *inputs)[0].view(np.float32)
    np.testing.assert_array_equal(result, single(value, *inputs))


def test_literal_multiply_add_and_scaling() -> None:
    a, b = (np.random.default_rng(n).integers(-99, 99, 64).astype(np.float32) for n in (0, 1))
    assert np.array_equal(compute("gfx942", "v_fmaak_f32 v20, v10, v11, 0x41200000", a, b)[0].view(np.float32), a * b + 10)
    assert np.array_equal(compute("gfx942", "v_fmamk_f32 v20, v10, 0x41200000, v11", a, b)[0].view(np.float32), a * 10 + b)
    assert np.array_equal(compute("gfx942", "v_mad_f32 v20, v10, v11, 1.0", a, b)[0].view(np.float32), a * b + 1)
    power = np.arange(64, dtype=np.int32) - 30
    result = compute("gfx942", "v_ldexp_f32 v20, v10, v11", a, power)[0].view(np.float32)
    assert np.array_equal(result, (a * 2.0**power).astype(np.float32))
    values = floats(0)
    finite = np.isfinite(values)
    mantissa = compute("gfx942", "v_frexp_mant_f32_e32 v20, v10", values)[0].view(np.float32)
    exponent = compute("gfx942", "v_frexp_exp_i32_f32_e32 v20, v10", values)[0].view(np.int32)
    assert np.array_equal(mantissa[finite] * 2.0 ** exponent[finite], values[finite])
    assert (((np.abs(mantissa[finite]) >= 0.5) & (np.abs(mantissa[finite]) < 1)) | (values[finite] == 0)).all()
    assert not exponent[~finite].any()


def test_sine_and_cosine_take_revolutions() -> None:
    a = np.linspace(-2, 2, 64).astype(np.float32)
    for name, function in (("sin", np.sin), ("cos", np.cos)):
        result = compute("gfx942", f"v_{name}_f32_e32 v20, v10", a)[0].view(np.float32)
        np.testing.assert_allclose(result, function(2 * np.pi * a.astype(np.float64)), atol=2.0**-22)


@pytest.mark.parametrize(("name", "function"), [
    ("exp", np.exp2), ("log", np.log2), ("rcp", lambda x: 1 / x), ("rsq", lambda x: 1 / np.sqrt(x)), ("sqrt", np.sqrt),
])  # fmt: skip
def test_scalar_transcendentals_of_gfx12(name: str, function: Callable[[Any], Any]) -> None:
    code = f"v_s_{name}_f32 s10, s11\nv_mov_b32_e32 v20, s10"
    for value in (0.7, 3.25):
        bits = int(np.float32(value).view(np.uint32))
        result = compute("gfx1201", f"s_mov_b32 s11, {bits:#x}\n{code}", np.zeros(32, np.uint32))[0].view(np.float32)
        np.testing.assert_allclose(result, function(np.float64(np.float32(value))), rtol=2.0**-23)


HALF: list[tuple[str, str, int, Callable[..., Any]]] = [
    ("gfx942", "v_add_f16_e32", 2, lambda a, b: a + b), ("gfx942", "v_sub_f16_e32", 2, lambda a, b: a - b),
    ("gfx942", "v_subrev_f16_e32", 2, lambda a, b: b - a), ("gfx942", "v_mul_f16_e32", 2, lambda a, b: a * b),
    ("gfx942", "v_max_f16_e32", 2, np.fmax), ("gfx942", "v_min_f16_e32", 2, np.fmin),
    ("gfx1201", "v_max_num_f16_e32", 2, np.fmax), ("gfx1201", "v_min_num_f16_e32", 2, np.fmin),
    ("gfx942", "v_fma_f16", 3, lambda a, b, c: a.astype(float) * b + c),
    ("gfx942", "v_exp_f16_e32", 1, lambda a: np.exp2(a.astype(float))),
    ("gfx942", "v_log_f16_e32", 1, lambda a: np.log2(a.astype(float))),
    ("gfx942", "v_rcp_f16_e32", 1, lambda a: 1 / a.astype(float)),
]  # fmt: skip


def half_inputs(target: str, count: int) -> tuple[list[Array], list[Array]]:
    """float16 numbers and the registers that hold them in their low halves."""
    lanes = amdgpu_sim.TARGETS[target].wave_size
    numbers = [floats(seed, lanes).astype(np.float16) for seed in range(count)]
    return numbers, [x.view(np.uint16).astype(np.uint32) | 0x12340000 for x in numbers]


@pytest.mark.parametrize(("target", "name", "count", "value"), HALF, ids=[case[1] for case in HALF])
def test_half_precision(target: str, name: str, count: int, value: Callable[..., Any]) -> None:
    with np.errstate(all="ignore"):
        numbers, registers = half_inputs(target, count)
        expected = np.asarray(value(*numbers)).astype(np.float16)
    code = f"v_mov_b32_e32 v20, 0\n{name} v20, {', '.join(f'v{10 + n}' for n in range(count))}"
    result = compute(target, code, *registers)[0]
    assert not (result >> 16).any()
    np.testing.assert_array_equal(result.astype(np.uint16).view(np.float16), expected)


def test_half_precision_accumulation_and_clamp() -> None:
    with np.errstate(all="ignore"):
        (a, b, c), registers = half_inputs("gfx942", 3)
        code = "v_mov_b32_e32 v20, v12\nv_fmac_f16_e32 v20, v10, v11"
        result = compute("gfx942", code, *registers)[0].astype(np.uint16).view(np.float16)
        np.testing.assert_array_equal(result, (a.astype(float) * b + c).astype(np.float16))
        result = compute("gfx942", "v_add_f16_e64 v20, v10, v11 clamp", *registers)[0].astype(np.uint16).view(np.float16)
        np.testing.assert_array_equal(result, np.clip(a + b, 0, 1))


PACKED16: list[tuple[str, int, Callable[..., Any]]] = [
    ("v_pk_mul_f16", 2, lambda a, b: a * b), ("v_pk_fma_f16", 3, lambda a, b, c: a.astype(float) * b + c),
    ("v_pk_max_f16", 2, np.fmax), ("v_pk_min_f16", 2, np.fmin),
]  # fmt: skip


@pytest.mark.parametrize(("name", "count", "value"), PACKED16, ids=[case[0] for case in PACKED16])
def test_packed_half_precision(name: str, count: int, value: Callable[..., Any]) -> None:
    with np.errstate(all="ignore"):
        numbers = [floats(seed, 128).astype(np.float16) for seed in range(count)]
        expected = np.asarray(value(*numbers)).astype(np.float16)
    code = f"{name} v20, {', '.join(f'v{10 + n}' for n in range(count))}"
    result = compute("gfx942", code, *[x.view(np.uint32) for x in numbers])[0].view(np.float16)
    np.testing.assert_array_equal(result, expected)
    clamped = compute("gfx942", code + " clamp", *[x.view(np.uint32) for x in numbers])[0].view(np.float16)
    np.testing.assert_array_equal(clamped, np.clip(expected, np.float16(0), np.float16(1)))


def test_packed_single_precision_and_moves() -> None:
    random = np.random.default_rng(0)
    a, b, c, d, e, f = (random.integers(-50, 50, 64).astype(np.float32) for _ in range(6))
    code = "v_pk_fma_f32 v[20:21], v[10:11], v[12:13], v[14:15] neg_lo:[1,0,0] neg_hi:[0,0,1]"
    low, high = compute("gfx942", code, a, b, c, d, e, f, outputs=2)
    assert np.array_equal(low.view(np.float32), -a * c + e)
    assert np.array_equal(high.view(np.float32), b * d - f)
    low, high = compute("gfx942", "v_pk_add_f32 v[20:21], v[10:11], 1.0 op_sel_hi:[1,0]", a, b, outputs=2)
    assert np.array_equal(low.view(np.float32), a + 1)
    assert np.array_equal(high.view(np.float32), b + 1)
    for modifiers, picked in (("op_sel:[1,0]", (b, c)), ("op_sel:[0,1]", (a, d)), ("", (a, c))):
        code = f"v_pk_mov_b32 v[20:21], v[10:11], v[12:13] {modifiers}"
        assert np.array_equal(compute("gfx942", code, a, b, c, d, outputs=2).view(np.float32), np.stack(picked))
    moved = compute("gfx942", "v_mov_b64_e32 v[20:21], v[10:11]", a, b, outputs=2)
    assert np.array_equal(moved.view(np.float32), np.stack([a, b]))
    code = "v_accvgpr_write_b32 a1, v10\nv_accvgpr_mov_b32 a3, a1\nv_accvgpr_read_b32 v20, a3"
    assert np.array_equal(compute("gfx942", code, a)[0].view(np.float32), a)


@pytest.mark.parametrize(("target", "name", "dtype", "accumulates"), [
    ("gfx942", "v_dot2_f32_f16", np.float16, False), ("gfx950", "v_dot2_f32_bf16", ml_dtypes.bfloat16, False),
    ("gfx942", "v_dot2c_f32_f16_e32", np.float16, True), ("gfx950", "v_dot2c_f32_bf16_e32", ml_dtypes.bfloat16, True),
    ("gfx1100", "v_dot2acc_f32_f16", np.float16, True),
])  # fmt: skip
def test_two_element_dot_products(target: str, name: str, dtype: Any, accumulates: bool) -> None:
    lanes = amdgpu_sim.TARGETS[target].wave_size
    a, b = (np.random.default_rng(n).standard_normal(2 * lanes).astype(dtype) for n in (0, 1))
    c = np.random.default_rng(2).standard_normal(lanes).astype(np.float32)
    tail = "v20, v10, v11" if accumulates else "v20, v10, v11, v12"
    result = compute(target, f"v_mov_b32_e32 v20, v12\n{name} {tail}", a.view(np.uint32), b.view(np.uint32), c)[0]
    products = (a.astype(float) * b.astype(float)).reshape(-1, 2)
    bound = 2.0**-23 * (np.abs(products).sum(1) + np.abs(c))
    assert (np.abs(result.view(np.float32) - (products.sum(1) + c)) <= bound).all()


def test_byte_dot_products() -> None:
    a, b, c = (words(n) for n in range(3))
    x, y = (v.view(np.int8).reshape(64, 4).astype(np.int64) for v in (a, b))
    result = compute("gfx942", "v_mov_b32_e32 v20, v12\nv_dot4c_i32_i8_e32 v20, v10, v11", a, b, c)[0]
    assert np.array_equal(result, ((x * y).sum(1) + c).astype(np.uint32))
    unsigned = b.view(np.uint8).reshape(64, 4).astype(np.int64)
    result = compute("gfx1100", "v_dot4_i32_iu8 v20, v10, v11, v12 neg_lo:[1,0,0]", a[:32], b[:32], c[:32])[0]
    assert np.array_equal(result, ((x * unsigned).sum(1) + c).astype(np.uint32)[:32])


DOUBLE: list[tuple[str, int, Callable[..., Any]]] = [
    ("v_max_f64", 2, np.fmax), ("v_min_f64", 2, np.fmin), ("v_add_f64", 2, lambda a, b: a + b), ("v_rcp_f64_e32", 1, lambda a: 1 / a),
]  # fmt: skip


def registers64(values: Array) -> list[Array]:
    bits = values.view(np.uint64)
    return [bits.astype(np.uint32), (bits >> np.uint64(32)).astype(np.uint32)]


def from64(result: Array) -> Array:
    return result[0].astype(np.uint64) | result[1].astype(np.uint64) << np.uint64(32)


@pytest.mark.parametrize(("name", "count", "value"), DOUBLE, ids=[case[0] for case in DOUBLE])
def test_double_precision(name: str, count: int, value: Callable[..., Any]) -> None:
    a, b = (np.random.default_rng(n).standard_normal(64) for n in (0, 1))
    sources = ", ".join(["v[10:11]", "v[12:13]"][:count])
    result = compute("gfx942", f"{name} v[20:21], {sources}", *registers64(a), *registers64(b), outputs=2)
    assert np.array_equal(from64(result).view(np.float64), value(*[a, b][:count]))


def test_double_conversions() -> None:
    a = np.array([0.5, -0.5, 3.99, -3.99, 1e300, -1e300, np.nan, 4e9] * 8)
    exact = np.trunc(np.nan_to_num(a, nan=0))
    for name, low, high in (("i32", -(2**31), 2**31 - 1), ("u32", 0, 2**32 - 1)):
        result = compute("gfx942", f"v_cvt_{name}_f64_e32 v20, v[10:11]", *registers64(a))[0]
        assert np.array_equal(result, np.clip(exact, low, high).astype(np.int64).astype(np.uint32))
    single_values = floats(0)
    wide = from64(compute("gfx942", "v_cvt_f64_f32_e32 v[20:21], v10", single_values, outputs=2)).view(np.float64)
    np.testing.assert_array_equal(wide, single_values.astype(np.float64))
    wide = from64(compute("gfx942", "v_cvt_f64_u32_e32 v[20:21], v10", words(0), outputs=2)).view(np.float64)
    assert np.array_equal(wide, words(0).astype(np.float64))


def test_wide_integers() -> None:
    a, b = (np.random.default_rng(n).integers(0, 2**64, 64, dtype=np.uint64) for n in (0, 1))
    code = "v_ashrrev_i64 v[20:21], 13, v[10:11]"
    assert np.array_equal(from64(compute("gfx942", code, *registers64(a), outputs=2)).view(np.int64), a.view(np.int64) >> 13)
    code = "v_lshl_add_u64 v[20:21], v[10:11], 3, v[12:13]"
    result = from64(compute("gfx942", code, *registers64(a), *registers64(b), outputs=2))
    assert np.array_equal(result, (a << np.uint64(3)) + b)
    x, y = (v.astype(np.uint32) for v in (a, b))
    for target, name, lanes in (("gfx942", "v_mad_i64_i32", 64), ("gfx1201", "v_mad_co_i64_i32", 32)):
        carry = "vcc" if lanes == 64 else "null"
        inputs = [x[:lanes], y[:lanes], *[part[:lanes] for part in registers64(a)]]
        result = from64(compute(target, f"{name} v[20:21], {carry}, v10, v11, v[12:13]", *inputs, outputs=2))
        product = x.view(np.int32).astype(np.int64) * y.view(np.int32).astype(np.int64)
        assert np.array_equal(result, (product + a.view(np.int64)).view(np.uint64)[:lanes])
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


def test_narrow_packing() -> None:
    a, b = floats(0), floats(1)
    with np.errstate(all="ignore"):
        halves = np.stack([a, b], 1).astype(np.float16)
    result = compute("gfx950", "v_cvt_pk_f16_f32 v20, v10, v11", a, b)[0].view(np.float16).reshape(-1, 2)
    np.testing.assert_array_equal(result, halves)
    inputs = [np.ascontiguousarray(halves[:, n]).view(np.uint16).astype(np.uint32) | 0xABCD0000 for n in (0, 1)]
    packed = compute("gfx942", "v_pack_b32_f16 v20, v10, v11", *inputs)[0]
    assert np.array_equal(packed, halves.view(np.uint32)[:, 0])
    swapped = compute("gfx942", "v_pack_b32_f16 v20, v10, v11 op_sel:[1,0]", *inputs)[0]
    assert np.array_equal(swapped & M16, np.full(64, 0xABCD))
    values = np.array([1.9999, -1.9999, 70000.0, -70000.0, 65504.0, 1e-8, -1e-8, 3.0] * 4, np.float32)
    truncated = compute("gfx1100", "v_cvt_pk_rtz_f16_f32 v20, v10, 0", values)[0].astype(np.uint16).view(np.float16)
    largest = np.float16(65504)
    expected = [np.float16(1.999), np.float16(-1.999), largest, -largest, largest, 0, 0, 3] * 4
    assert np.array_equal(truncated, np.array(expected, np.float16))


FP8_TYPES = {("fp8", True): ml_dtypes.float8_e4m3fnuz, ("bf8", True): ml_dtypes.float8_e5m2fnuz,
             ("fp8", False): ml_dtypes.float8_e4m3fn, ("bf8", False): ml_dtypes.float8_e5m2}  # fmt: skip


@pytest.mark.parametrize("kind", ["fp8", "bf8"])
@pytest.mark.parametrize("target", ["gfx942", "gfx950", "gfx1201"])
def test_eight_bit_pairs_and_bytes(target: str, kind: str) -> None:
    lanes = amdgpu_sim.TARGETS[target].wave_size
    dtype = FP8_TYPES[kind, target == "gfx942"]
    codes = np.arange(4 * lanes).astype(np.uint8)
    numbers = codes.view(dtype).astype(np.float32).reshape(-1, 4)
    registers = codes.view(np.uint32)
    pick = {"gfx942": " src0_sel:WORD_1", "gfx950": " src0_sel:WORD_1"}.get(target, " op_sel:[1,0]")
    suffix = "_sdwa" if lanes == 64 else "_e64"
    low = compute(target, f"v_cvt_pk_f32_{kind}_e32 v[20:21], v10", registers, outputs=2).view(np.float32)
    np.testing.assert_array_equal(low, numbers[:, :2].T)
    high = compute(target, f"v_cvt_pk_f32_{kind}{suffix} v[20:21], v10{pick}", registers, outputs=2).view(np.float32)
    np.testing.assert_array_equal(high, numbers[:, 2:].T)
    for byte in range(4):
        select = f" src0_sel:BYTE_{byte}" if lanes == 64 else f" byte_sel:{byte}"
        result = compute(target, f"v_cvt_f32_{kind}{suffix} v20, v10{select}", registers)[0].view(np.float32)
        np.testing.assert_array_equal(result, numbers[:, byte])


def test_eight_bit_conversion_into_the_upper_half() -> None:
    a = np.random.default_rng(0).standard_normal(64).astype(np.float32)
    code = "v_mov_b32_e32 v20, 0x1234\nv_cvt_pk_fp8_f32 v20, v10, -v10 op_sel:[0,0,1]"
    result = compute("gfx942", code, a)[0]
    low, high = (x.astype(ml_dtypes.float8_e4m3fnuz).view(np.uint8).astype(np.uint32) for x in (a, -a))
    assert np.array_equal(result, low << 16 | high << 24 | 0x1234)
    code = "v_mov_b32_e32 v20, 0\nv_cvt_scalef32_pk_fp8_f32 v20, v10, -v10, 1.0"
    low, high = (x.astype(ml_dtypes.float8_e4m3fn).view(np.uint8).astype(np.uint32) for x in (a, -a))
    assert np.array_equal(compute("gfx950", code, a)[0], low | high << 8)
    code = code.replace("fp8", "bf8")
    low, high = (x.astype(ml_dtypes.float8_e5m2).view(np.uint8).astype(np.uint32) for x in (a, -a))
    assert np.array_equal(compute("gfx950", code, a)[0], low | high << 8)


FLOAT_COMPARE: dict[str, Callable[[Array, Array], Array]] = {
    "eq": lambda a, b: a == b, "lt": lambda a, b: a < b, "le": lambda a, b: a <= b, "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b, "lg": lambda a, b: (a < b) | (a > b), "neq": lambda a, b: ~(a == b),
    "o": lambda a, b: (a == a) & (b == b), "u": lambda a, b: (a != a) | (b != b), "nlt": lambda a, b: ~(a < b),
    "nle": lambda a, b: ~(a <= b), "ngt": lambda a, b: ~(a > b), "nge": lambda a, b: ~(a >= b),
    "nlg": lambda a, b: ~((a < b) | (a > b)),
}  # fmt: skip


def compare_inputs(kind: str, lanes: int) -> tuple[Array, Array, list[Array], str]:
    """Two arrays with equal, different and (floats) unordered lanes, their registers and the operands."""
    bits = int(kind[1:])
    if kind[0] == "f":
        with np.errstate(all="ignore"):
            a, b = (np.roll(floats(0, lanes), n).astype(f"float{bits}") for n in (0, 3))
    else:
        name = ("u" if kind[0] == "u" else "") + f"int{bits}"
        a, b = (np.roll(words(0)[:lanes], n).astype(name) for n in (0, 3))
    b[10:20] = a[10:20]
    if bits == 64:
        return a, b, [*registers64(a), *registers64(b)], "v[10:11], v[12:13]"
    unsigned = np.uint16 if bits == 16 else np.uint32
    return a, b, [x.view(unsigned).astype(np.uint32) for x in (a, b)], "v10, v11"


INTEGER_COMPARE = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}


@pytest.mark.parametrize("kind", ["f16", "f32", "f64", "u16", "i16", "u32", "i32", "u64", "i64"])
def test_every_comparison(kind: str) -> None:
    """Into a register pair, and into EXEC; gfx9's v_cmpx writes both."""
    table: dict[str, Any] = FLOAT_COMPARE if kind[0] == "f" else INTEGER_COMPARE
    for name, function in table.items():
        a, b, registers, operands = compare_inputs(kind, 64)
        code = f"v_cmp_{name}_{kind}_e64 s[10:11], {operands}\nv_cndmask_b32_e64 v20, 0, 1, s[10:11]"
        assert np.array_equal(compute("gfx942", code, *registers)[0], function(a, b)), name
        code = f"""v_mov_b32_e32 v20, 0
        v_cmpx_{name}_{kind}_e64 s[10:11], {operands}
        v_mov_b32_e32 v20, 1
        s_mov_b64 exec, -1
        v_cndmask_b32_e64 v21, 0, 1, s[10:11]"""
        assert np.array_equal(compute("gfx942", code, *registers, outputs=2), np.stack([function(a, b)] * 2)), name
        a, b, registers, operands = compare_inputs(kind, 32)
        code = f"v_mov_b32_e32 v20, 0\nv_cmpx_{name}_{kind}_e64 {operands}\nv_mov_b32_e32 v20, 1\ns_mov_b32 exec_lo, -1"
        assert np.array_equal(compute("gfx1100", code, *registers)[0], function(a, b)), name


def test_comparisons_of_selected_bytes_and_classes_into_vcc() -> None:
    a, b = words(0), words(1)
    b[5:9] = a[5:9] >> 8
    code = "v_cmp_eq_u32_sdwa s[10:11], v10, v11 src0_sel:BYTE_1 src1_sel:BYTE_0\nv_cndmask_b32_e64 v20, 0, 1, s[10:11]"
    assert np.array_equal(compute("gfx942", code, a, b)[0], (a >> 8 & 255) == (b & 255))
    with pytest.raises(amdgpu_sim.UnsupportedInstructionError, match="without a destination"):
        compute("gfx942", "v_cmp_eq_u32_sdwa v10, v11 src0_sel:BYTE_1 src1_sel:BYTE_0", a, b)
    values = floats(0)
    code = "v_mov_b32_e32 v2, 0x204\nv_cmp_class_f32_e32 vcc, v10, v2\nv_cndmask_b32_e32 v20, 0, v11, vcc"
    code = code.replace("v_cmp_class_f32_e32 vcc, ", "v_cmp_class_f32_e32 ")
    assert np.array_equal(compute("gfx942", code, values, a)[0], np.where(np.isinf(values), a, 0))


def test_conditional_moves_of_halves_and_bytes() -> None:
    a, b = (words(n)[:32].copy() for n in (0, 1))
    code = "v_mov_b32_e32 v20, 0\nv_cmp_lt_u32_e32 vcc_lo, v10, v11\nv_cndmask_b16 v20, v10, v11, vcc_lo op_sel:[1,0,0]"
    result = compute("gfx1100", code.replace("vcc_lo, v10, v11\nv_cnd", "v10, v11\nv_cnd", 1).replace("v_cmp_lt_u32_e32 vcc_lo, ", "v_cmp_lt_u32_e32 "), a, b)[0]
    assert np.array_equal(result, np.where(a < b, b & M16, a >> 16))
    a, b = words(0), words(1)
    code = """v_cmp_lt_u32_e32 vcc, v10, v11
    v_cndmask_b32_sdwa v20, v10, v11, vcc dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:BYTE_3 src1_sel:WORD_1"""
    result = compute("gfx942", code.replace("v_cmp_lt_u32_e32 vcc, ", "v_cmp_lt_u32_e32 "), a, b)[0]
    assert np.array_equal(result, np.where(a < b, b >> 16, a >> 24))


def test_sub_dword_floats_and_sign_extension() -> None:
    with np.errstate(all="ignore"):
        x, y = (floats(n, 128).astype(np.float16) for n in (0, 1))
        expected = x[1::2] + y[0::2]
    code = "v_add_f16_sdwa v20, v10, v11 dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:WORD_1 src1_sel:WORD_0"
    result = compute("gfx942", code, x.view(np.uint32), y.view(np.uint32))[0].astype(np.uint16).view(np.float16)
    np.testing.assert_array_equal(result, expected)
    a, b = words(0), words(1)
    code = "v_add_u32_sdwa v20, sext(v10), v11 dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:BYTE_2 src1_sel:DWORD"
    signed_byte = (a >> 16).astype(np.uint8).view(np.int8).astype(np.int64)
    assert np.array_equal(compute("gfx942", code, a, b)[0], (signed_byte + b).astype(np.uint32))
    code = "v_max_i32_sdwa v20, sext(v10), sext(v11) dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:BYTE_2 src1_sel:WORD_1"
    other = (b >> 16).astype(np.uint16).view(np.int16).astype(np.int64)
    assert np.array_equal(compute("gfx942", code, a, b)[0].view(np.int32), np.maximum(signed_byte, other))


def test_float_denormals_are_flushed_where_the_kernel_asks() -> None:
    """With float_denorm_mode_32 0, denormal sources and results become zero."""
    from assembler import prologue, wait_loads

    a = np.array([1e-40, 1e-38, 3e-39, 1.0] * 16, np.float32)
    b = np.array([1.0, 0.5, 2.0, 1e-39] * 16, np.float32)
    body = f"""{prologue("gfx942")}
    global_load_dword v10, v1, s[4:5]
    global_load_dword v11, v1, s[4:5] offset:256
    {wait_loads("gfx942")}
    v_mul_f32_e32 v20, v10, v11
    global_store_dword v1, v20, s[6:7]"""
    for mode, flushed in ((3, False), (0, True)):
        result = np.zeros(64, np.float32)
        program = assemble("gfx942", body, directives=f"\t\t.amdhsa_float_denorm_mode_32 {mode}\n")
        program.launch((1,), (64,), [np.stack([a, b]), result])
        tiny = np.float32(2.0**-126)
        x, y = (np.where(flushed & (np.abs(v) < tiny), np.float32(0), v) for v in (a, b))
        product = x * y
        assert np.array_equal(result, np.where(flushed & (np.abs(product) < tiny), np.float32(0), product))


@pytest.mark.parametrize("table", [0x36, 0xE8])
def test_truth_tables_of_halves(table: int) -> None:
    a, b, c = (words(seed) for seed in range(3))
    result = compute("gfx950", f"v_bitop3_b16 v20, v10, v11, v12 bitop3:{table:#x}", a, b, c)[0]
    for bit in range(16):
        index = (a >> bit & 1) * 4 + (b >> bit & 1) * 2 + (c >> bit & 1)
        assert np.array_equal(result >> bit & 1, table >> index & 1)


def test_mixed_precision_into_the_lower_half() -> None:
    with np.errstate(all="ignore"):
        (a, _), (registers, _) = half_inputs("gfx942", 2)
        c = floats(3)
        expected = (a.astype(np.float64) * 2 + c).astype(np.float32).astype(np.float16)
        clamped = np.clip((a.astype(np.float64) * 2 + c).astype(np.float32), 0, 1).astype(np.float16)
    code = "v_mov_b32_e32 v20, 0\nv_fma_mixlo_f16 v20, v10, 2.0, v11 op_sel_hi:[1,0,0]"
    result = compute("gfx942", code, registers, c)[0].astype(np.uint16).view(np.float16)
    np.testing.assert_array_equal(result, expected)
    result = compute("gfx942", code + " clamp", registers, c)[0].astype(np.uint16).view(np.float16)
    np.testing.assert_array_equal(result, clamped)


@pytest.mark.parametrize(("target", "line", "why"), [
    ("gfx90a", "v_cvt_pk_fp8_f32 v1, v0, v0", "no 8-bit float"),
    ("gfx950", "v_cvt_scalef32_pk_fp8_f32 v1, v0, v0, v0", "scale of 1.0"),
    ("gfx942", "v_cvt_f32_fp8_sdwa v1, v0 src0_sel:WORD_1", "WORD_1"),
    ("gfx942", "v_pk_mov_b32 v[0:1], v[2:3], v[4:5] op_sel_hi:[0,0]", "op_sel_hi"),
    ("gfx942", "v_and_b32_sdwa v1, v0, v0 dst_sel:BYTE_0 dst_unused:UNUSED_SEXT src0_sel:DWORD src1_sel:DWORD", "UNUSED_SEXT"),
    ("gfx942", "v_add_f32_sdwa v1, -v0, v0 dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:WORD_0 src1_sel:DWORD", "SDWA selection"),
    ("gfx942", "v_cndmask_b32_dpp v1, v0, v2, vcc row_shl:1 row_mask:0xf bank_mask:0xf", "DPP conditional"),
    ("gfx942", "v_mad_i64_i32 v[0:1], s[4:5], v2, v3, v[4:5]", "overflow"),
    ("gfx942", "v_cmp_eq_u32_e64 s[0:1], v0, v1, v2", "two sources"),
])  # fmt: skip
def test_what_is_refused(target: str, line: str, why: str) -> None:
    with pytest.raises(amdgpu_sim.UnsupportedInstructionError, match=why):
        assemble(target, line)
