"""Floating-point vector instructions against numpy and ml_dtypes on every lane."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from assembler import assemble, compute, prologue, wait_loads
from test_integer_instructions import from64, registers64
from test_vector_instructions import floats, words

import amdgpu_sim

Array = np.ndarray[Any, Any]
M16 = 0xFFFF


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
    (
        "gfx942",
        "v_fract_f32_e32",
        1,
        lambda a: np.where(np.isinf(a), np.nan, np.minimum(a - np.floor(a), 1 - 2.0**-24)),
    ),
    ("gfx942", "v_cvt_f32_f16_e32", 1, lambda a: a.view(np.float16)[::2]),
    ("gfx942", "v_rcp_iflag_f32_e32", 1, lambda a: np.where(np.abs(1 / a) < 2.0**-126, np.copysign(0, a), 1 / a)),
]


@pytest.mark.parametrize(("target", "name", "count", "value"), FLOAT, ids=[case[1] for case in FLOAT])
def test_floats(target: str, name: str, count: int, value: Callable[..., Any]) -> None:
    lanes = amdgpu_sim.TARGETS[target].wave_size
    inputs = [floats(seed)[:lanes].copy() for seed in range(count)]
    result = compute(target, f"{name} v20, {', '.join(f'v{10 + n}' for n in range(count))}", *inputs)[0].view(
        np.float32
    )
    np.testing.assert_array_equal(result, single(value, *inputs))


def test_literal_multiply_add_and_scaling() -> None:
    a, b = (np.random.default_rng(n).integers(-99, 99, 64).astype(np.float32) for n in (0, 1))
    assert np.array_equal(
        compute("gfx942", "v_fmaak_f32 v20, v10, v11, 0x41200000", a, b)[0].view(np.float32), a * b + 10
    )
    assert np.array_equal(
        compute("gfx942", "v_fmamk_f32 v20, v10, 0x41200000, v11", a, b)[0].view(np.float32), a * 10 + b
    )
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
        result = (
            compute("gfx942", "v_add_f16_e64 v20, v10, v11 clamp", *registers)[0].astype(np.uint16).view(np.float16)
        )
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


DOUBLE: list[tuple[str, int, Callable[..., Any]]] = [
    ("v_max_f64", 2, np.fmax),
    ("v_min_f64", 2, np.fmin),
    ("v_add_f64", 2, lambda a, b: a + b),
    ("v_rcp_f64_e32", 1, lambda a: 1 / a),
]


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


def test_float_denormals_are_flushed_where_the_kernel_asks() -> None:
    """With float_denorm_mode_32 0, denormal sources and results become zero."""
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
