"""Vector instructions against expectations written with numpy and ml_dtypes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from assembler import compute

Array = np.ndarray[Any, Any]
EDGES_F32 = np.array([0.0, -0.0, 1.0, -1.5, np.inf, -np.inf, np.nan, 65504.0, 1e-8, 3.4e38, 2.5, -2.5], np.float32)
EDGES_U32 = np.array([0, 1, 31, 32, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF, 0x12345678, 24], np.uint32)


def floats(seed: int, lanes: int = 64, dtype: Any = np.float32) -> Array:
    random = np.random.default_rng(seed)
    values = (random.standard_normal(lanes) * 8.0 ** random.integers(-3, 4, lanes)).astype(np.float32)
    values[: len(EDGES_F32)] = np.roll(EDGES_F32, seed)
    return values.astype(dtype)


def words(seed: int, lanes: int = 64) -> Array:
    random = np.random.default_rng(seed)
    values = random.integers(0, 2**32, lanes, dtype=np.uint32)
    values[: len(EDGES_U32)] = np.roll(EDGES_U32, seed)
    return values


def signed(x: Array) -> Array:
    return x.view(np.int32).astype(np.int64)


def low32(x: Array) -> Array:
    return (np.asarray(x).astype(np.int64) & 0xFFFFFFFF).astype(np.uint32)


def wide(x: Array) -> Array:
    return x.astype(np.int64)


def exact(*sources: Any) -> Array:
    """The last argument, a function of Python integers, on every lane; modulo 2**32."""
    *values, function = sources
    return np.array([function(*map(int, lane)) % 2**32 for lane in zip(*values, strict=True)], np.uint32)


U32_CASES: list[tuple[str, int, Callable[..., Array]]] = [
    ("v_and_b32_e32", 2, lambda a, b: a & b),
    ("v_or_b32_e32", 2, lambda a, b: a | b),
    ("v_xor_b32_e32", 2, lambda a, b: a ^ b),
    ("v_not_b32_e32", 1, lambda a: ~a),
    ("v_add_u32_e32", 2, lambda a, b: low32(wide(a) + wide(b))),
    ("v_sub_u32_e32", 2, lambda a, b: low32(wide(a) - wide(b))),
    ("v_subrev_u32_e32", 2, lambda a, b: low32(wide(b) - wide(a))),
    ("v_lshlrev_b32_e32", 2, lambda a, b: low32(wide(b) << (wide(a) & 31))),
    ("v_lshrrev_b32_e32", 2, lambda a, b: low32(wide(b) >> (wide(a) & 31))),
    ("v_ashrrev_i32_e32", 2, lambda a, b: low32(signed(b) >> (wide(a) & 31))),
    ("v_mul_lo_u32", 2, lambda a, b: exact(a, b, lambda x, y: x * y)),
    ("v_mul_hi_u32", 2, lambda a, b: exact(a, b, lambda x, y: x * y >> 32)),
    ("v_mul_hi_i32", 2, lambda a, b: low32((signed(a) * signed(b)) >> 32)),
    ("v_mul_u32_u24_e32", 2, lambda a, b: low32((wide(a) & 0xFFFFFF) * (wide(b) & 0xFFFFFF))),
    ("v_min_u32_e32", 2, np.minimum),
    ("v_max_u32_e32", 2, np.maximum),
    ("v_min_i32_e32", 2, lambda a, b: low32(np.minimum(signed(a), signed(b)))),
    ("v_max_i32_e32", 2, lambda a, b: low32(np.maximum(signed(a), signed(b)))),
    ("v_or3_b32", 3, lambda a, b, c: a | b | c),
    ("v_and_or_b32", 3, lambda a, b, c: (a & b) | c),
    ("v_xad_u32", 3, lambda a, b, c: low32(wide(a ^ b) + wide(c))),
    ("v_add3_u32", 3, lambda a, b, c: low32(wide(a) + wide(b) + wide(c))),
    ("v_lshl_add_u32", 3, lambda a, b, c: low32((wide(a) << (wide(b) & 31)) + wide(c))),
    ("v_add_lshl_u32", 3, lambda a, b, c: low32((wide(a) + wide(b)) % 2**32 << (wide(c) & 31))),
    ("v_lshl_or_b32", 3, lambda a, b, c: low32(wide(a) << (wide(b) & 31)) | c),
    ("v_bfi_b32", 3, lambda a, b, c: (a & b) | (~a & c)),
    ("v_bfrev_b32_e32", 1, lambda a: np.array([int(f"{x:032b}"[::-1], 2) for x in a], np.uint32)),
    ("v_mad_u32_u24", 3, lambda a, b, c: low32((wide(a) & 0xFFFFFF) * (wide(b) & 0xFFFFFF) + wide(c))),
    ("v_alignbit_b32", 3, lambda a, b, c: exact(a, b, c, lambda x, y, z: (x << 32 | y) >> (z & 31))),
    ("v_bfe_u32", 3, lambda a, b, c: exact(a, b, c, lambda x, y, z: x >> (y & 31) & ((1 << (z & 31)) - 1))),
    ("v_bcnt_u32_b32", 2, lambda a, b: low32(np.array([int(x).bit_count() for x in a]) + wide(b))),
    ("v_cvt_f32_u32_e32", 1, lambda a: a.astype(np.float32).view(np.uint32)),
    ("v_cvt_f32_i32_e32", 1, lambda a: signed(a).astype(np.float32).view(np.uint32)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "count", "expected"), U32_CASES, ids=[case[0] for case in U32_CASES])
def test_integer(name: str, count: int, expected: Callable[..., Array]) -> None:
    inputs = [words(seed) for seed in range(count)]
    result = compute("gfx942", f"{name} v20, {', '.join(f'v{10 + n}' for n in range(count))}", *inputs)
    assert np.array_equal(result[0], expected(*inputs))


@pytest.mark.parametrize("table", [0x36, 0x6C, 0xF8, 0x01, 0x80])
def test_bitop3(table: int) -> None:
    a, b, c = (words(seed) for seed in range(3))
    result = compute("gfx950", f"v_bitop3_b32 v20, v10, v11, v12 bitop3:{hex(table)}", a, b, c)[0]
    for bit in range(32):
        index = (a >> bit & 1) * 4 + (b >> bit & 1) * 2 + (c >> bit & 1)
        assert np.array_equal(result >> bit & 1, table >> index & 1)


def test_perm() -> None:
    a, b = words(0), words(1)
    selector = np.array([0x07060504, 0x03020100, 0x0C0D0809, 0x05040100] * 16, np.uint32)
    result = compute("gfx942", "v_perm_b32 v20, v10, v11, v12", a, b, selector)[0]
    for lane in range(64):
        source = int(b[lane]).to_bytes(4, "little") + int(a[lane]).to_bytes(4, "little")
        signs = [0xFF * (source[n] >> 7) for n in (1, 3, 5, 7)]
        table = list(source) + signs + [0, 0xFF]
        assert result[lane] == int.from_bytes(
            bytes(table[s] for s in int(selector[lane]).to_bytes(4, "little")), "little"
        )


@pytest.mark.parametrize("target", ["gfx942", "gfx1100"])
def test_carry_chain(target: str) -> None:
    lanes = 64 if target == "gfx942" else 32
    low_a, low_b, high_a, high_b = (words(seed, lanes) for seed in range(4))
    vcc, add = ("vcc", "v_addc_co_u32_e32") if lanes == 64 else ("vcc_lo", "v_add_co_ci_u32_e32")
    code = f"v_add_co_u32 v20, {vcc}, v10, v11\n{add} v21, {vcc}, v12, v13, {vcc}"
    low, high = compute(target, code, low_a, low_b, high_a, high_b, outputs=2)
    for lane in range(lanes):
        total = (int(high_a[lane]) << 32 | int(low_a[lane])) + (int(high_b[lane]) << 32 | int(low_b[lane]))
        assert (int(high[lane]) << 32 | int(low[lane])) == total % 2**64


F32_CASES: list[tuple[str, int, Callable[..., Array]]] = [
    ("v_add_f32_e32", 2, lambda a, b: a + b),
    ("v_sub_f32_e32", 2, lambda a, b: a - b),
    ("v_mul_f32_e32", 2, lambda a, b: a * b),
    ("v_max_f32_e32", 2, np.fmax),
    ("v_min_f32_e32", 2, np.fmin),
    ("v_max3_f32", 3, lambda a, b, c: np.fmax(np.fmax(a, b), c)),
    ("v_fma_f32", 3, lambda a, b, c: (a.astype(np.longdouble) * b + c).astype(np.float32)),
    ("v_trunc_f32_e32", 1, np.trunc),
    ("v_rndne_f32_e32", 1, np.rint),
    ("v_floor_f32_e32", 1, np.floor),
    ("v_cvt_f32_f16_e32", 1, lambda a: a.view(np.float16)[::2].astype(np.float32)),
]


@pytest.mark.parametrize(("name", "count", "expected"), F32_CASES, ids=[case[0] for case in F32_CASES])
def test_float(name: str, count: int, expected: Callable[..., Array]) -> None:
    inputs = [floats(seed) for seed in range(count)]
    result = compute("gfx942", f"{name} v20, {', '.join(f'v{10 + n}' for n in range(count))}", *inputs)[0]
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(result.view(np.float32), expected(*inputs))


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("exp", np.exp2),
        ("log", np.log2),
        ("rcp", lambda x: 1 / x),
        ("rsq", lambda x: 1 / np.sqrt(x)),
        ("sqrt", np.sqrt),
    ],
)
def test_transcendental(name: str, function: Callable[[Array], Array]) -> None:
    inputs = np.abs(np.random.default_rng(0).standard_normal(64).astype(np.float32)) + np.float32(0.01)
    result = compute("gfx942", f"v_{name}_f32_e32 v20, v10", inputs)[0].view(np.float32)
    # the hardware's own bound is one unit in the last place
    np.testing.assert_allclose(result, function(inputs.astype(np.float64)), rtol=2.0**-23)


def test_transcendental_flushes_denormals() -> None:
    inputs = np.full(64, -130.0, np.float32)
    assert not compute("gfx942", "v_exp_f32_e32 v20, v10", inputs).any()


def test_division_sequence() -> None:
    """The sequence that compilers emit for IEEE division, on hard operands; correctly rounded in the end."""
    numerator, denominator = floats(3), floats(5)
    numerator[12:18] = [1e-38, 3e38, 1e30, 1e-30, 1e-42, 7.0]
    denominator[12:18] = [3e38, 1e-38, 1e-30, 1e30, 3.0, 1e-41]
    code = """
    v_div_scale_f32 v2, s[10:11], v11, v11, v10
    v_div_scale_f32 v3, vcc, v10, v11, v10
    v_rcp_f32_e32 v4, v2
    v_fma_f32 v5, -v2, v4, 1.0
    v_fmac_f32_e32 v4, v5, v4
    v_mul_f32_e32 v5, v3, v4
    v_fma_f32 v6, -v2, v5, v3
    v_fmac_f32_e32 v5, v6, v4
    v_fma_f32 v2, -v2, v5, v3
    v_div_fmas_f32 v2, v2, v4, v5
    v_div_fixup_f32 v20, v2, v11, v10"""
    with np.errstate(all="ignore"):
        expected = numerator / denominator
    result = compute("gfx942", code, numerator, denominator)[0].view(np.float32)
    np.testing.assert_allclose(result, expected, rtol=2.0**-23, atol=2.0**-148)


def test_source_and_output_modifiers() -> None:
    a, b = floats(0), floats(1)
    with np.errstate(all="ignore"):
        expected = [-np.abs(a) + b, np.clip(np.nan_to_num(a * b, nan=0.0), 0, 1), (a + b) * np.float32(2)]
    codes = [
        "v_add_f32_e64 v20, -|v10|, v11",
        "v_mul_f32_e64 v20, v10, v11 clamp",
        "v_add_f32_e64 v20, v10, v11 mul:2",
    ]
    for code, value in zip(codes, expected, strict=True):
        np.testing.assert_array_equal(compute("gfx942", code, a, b)[0].view(np.float32), value)


def test_integer_clamp() -> None:
    a, b = words(0), words(1)
    result = compute("gfx942", "v_sub_u32_e64 v20, v10, v11 clamp", a, b)[0]
    assert np.array_equal(result, np.where(a > b, a - b, 0))
    packed = compute("gfx942", "v_pk_sub_u16 v20, v10, v11 clamp", a, b)[0].view(np.uint16)
    x, y = a.view(np.uint16), b.view(np.uint16)
    assert np.array_equal(packed, np.where(x > y, x - y, 0))


@pytest.mark.parametrize("target", ["gfx950", "gfx942", "gfx1201"])
@pytest.mark.parametrize("kind", ["fp8", "bf8"])
def test_fp8_conversions(target: str, kind: str) -> None:
    lanes = 32 if target == "gfx1201" else 64
    fnuz = target == "gfx942"
    dtype = {
        ("fp8", False): ml_dtypes.float8_e4m3fn, ("fp8", True): ml_dtypes.float8_e4m3fnuz,
        ("bf8", False): ml_dtypes.float8_e5m2, ("bf8", True): ml_dtypes.float8_e5m2fnuz,
    }[kind, fnuz]  # fmt: skip
    a, b = (np.random.default_rng(n).standard_normal(lanes).astype(np.float32) * 60 for n in (0, 1))
    a[:6] = [0.0, -0.0, 1e-3, -0.0019, 208.0, np.nan]
    result = compute(target, f"v_cvt_pk_{kind}_f32 v2, v10, v11\nv_and_b32_e32 v20, 0xffff, v2".replace(
        "v_cvt", "v_mov_b32_e32 v2, 0\nv_cvt"), a, b)[0]  # fmt: skip
    expected = a.astype(dtype).view(np.uint8), b.astype(dtype).view(np.uint8)
    nan = np.isnan(a)
    assert np.array_equal((result & 0xFF)[~nan], expected[0][~nan])
    assert np.array_equal(result >> 8, expected[1])
    codes = np.arange(lanes, dtype=np.uint32) * (256 // lanes)
    back = compute(target, f"v_cvt_f32_{kind}_e32 v20, v10", codes)[0].view(np.float32)
    np.testing.assert_array_equal(back, codes.astype(np.uint8).view(dtype).astype(np.float32))


@pytest.mark.parametrize("kind", ["fp8", "bf8"])
@pytest.mark.parametrize("wide", ["f16", "bf16"])
def test_fp8_pairs_widen(kind: str, wide: str) -> None:
    narrow = {"fp8": ml_dtypes.float8_e4m3fn, "bf8": ml_dtypes.float8_e5m2}[kind]
    codes = np.arange(256, dtype=np.uint8).reshape(64, 4)
    inputs = codes.copy().view(np.uint32).reshape(-1)
    for half in (0, 1):
        line = f"v_cvt_scalef32_pk_{wide}_{kind} v20, v10, 1.0" + (" op_sel:[1,0,0]" if half else "")
        pairs = compute("gfx950", line, inputs)[0].view(np.uint16)
        values = pairs.view({"f16": np.float16, "bf16": ml_dtypes.bfloat16}[wide]).reshape(64, 2)
        expected = codes[:, 2 * half : 2 * half + 2].copy().view(narrow)
        np.testing.assert_array_equal(values.astype(np.float32), expected.astype(np.float32))


def test_narrow_conversions() -> None:
    a, b = floats(0), floats(1)
    a[20:24] = [1 + 2.0**-8, 1 + 3 * 2.0**-8, 1 + 2.0**-11, 1 + 3 * 2.0**-11]  # halfway between two numbers
    with np.errstate(all="ignore"):
        half = a.astype(np.float16).view(np.uint16).astype(np.uint32)
        pair = a.astype(ml_dtypes.bfloat16).view(np.uint16).astype(np.uint32)
        pair |= b.astype(ml_dtypes.bfloat16).view(np.uint16).astype(np.uint32) << 16
    assert np.array_equal(compute("gfx942", "v_cvt_f16_f32_e32 v20, v10", a)[0], half)
    result = compute("gfx950", "v_cvt_pk_bf16_f32 v20, v10, v11", a, b)[0]
    for shift, source in ((0, a), (16, b)):
        number = ~np.isnan(source)
        assert np.array_equal((result >> shift & 0xFFFF)[number], (pair >> shift & 0xFFFF)[number])
    truncated = compute("gfx942", "v_cvt_pkrtz_f16_f32 v20, v10, v10", np.full(64, 1.9999, np.float32))[0]
    assert (truncated.view(np.float16) == np.float16(1.999)).all()


def test_packed_float16_selects_and_negates() -> None:
    a, b = (floats(n, 128, np.float16).view(np.uint32) for n in (0, 1))
    x, y = a.view(np.float16), b.view(np.float16)
    with np.errstate(all="ignore"):
        expected = np.stack([x[1::2] + y[0::2], x[0::2] - y[1::2]], 1)
    code = "v_pk_add_f16 v20, v10, v11 op_sel:[1,0] op_sel_hi:[0,1] neg_hi:[0,1]"
    np.testing.assert_array_equal(compute("gfx942", code, a, b)[0].view(np.float16).reshape(-1, 2), expected)


def test_packed_float32() -> None:
    a, b, c, d = (floats(n) for n in range(4))
    code = "v_pk_mul_f32 v[20:21], v[10:11], v[12:13] op_sel_hi:[1,0]"
    low, high = compute("gfx942", code, a, b, c, d, outputs=2)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(low.view(np.float32), a * c)
        np.testing.assert_array_equal(high.view(np.float32), b * c)


def test_dot_products() -> None:
    a, b = (np.random.default_rng(n).standard_normal(64).astype(np.float16).view(np.uint32) for n in (0, 1))
    c = np.ones(32, np.float32)
    result = compute("gfx1100", "v_dot2_f32_f16 v20, v10, v11, v12", a, b, c)[0].view(np.float32)
    products = (a.view(np.float16).astype(float) * b.view(np.float16)).reshape(-1, 2)
    # Two sums, each rounded at most once at the magnitude of its terms.
    bound = np.finfo(np.float32).eps * (np.abs(products).sum(1) + 1)
    assert (np.abs(result - (products.sum(1) + 1)) <= bound).all()
    bytes_a, bytes_b = (np.random.default_rng(n).integers(-128, 128, (64, 4)).astype(np.int8) for n in (2, 3))
    total = compute(
        "gfx942",
        "v_dot4_i32_i8 v20, v10, v11, 5",
        bytes_a.view(np.uint32)[:, 0],
        bytes_b.view(np.uint32)[:, 0],
    )
    assert np.array_equal(total[0].view(np.int32), (bytes_a.astype(int) * bytes_b).sum(1) + 5)


@pytest.mark.parametrize("name", ["eq", "lt", "le", "gt", "ge", "lg", "o", "u", "nlt", "neq"])
def test_comparisons_and_selection(name: str) -> None:
    a, b = floats(0), np.roll(floats(0), 3)
    nan = np.isnan(a) | np.isnan(b)
    ordered = {"eq": a == b, "lt": a < b, "le": a <= b, "gt": a > b, "ge": a >= b, "lg": (a != b) & ~nan,
               "o": ~nan, "u": nan, "nlt": ~(a < b), "neq": a != b}  # fmt: skip
    code = f"v_cmp_{name}_f32_e64 s[10:11], v10, v11\nv_cndmask_b32_e64 v20, 3, v10, s[10:11]"
    assert np.array_equal(compute("gfx942", code, a, b)[0], np.where(ordered[name], a.view(np.uint32), 3))


def test_sub_dword_addressing() -> None:
    a, b = words(0), words(1)
    code = "v_and_b32_sdwa v20, v10, v11 dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:WORD_1 src1_sel:BYTE_2"
    assert np.array_equal(compute("gfx942", code, a, b)[0], (a >> 16) & (b >> 16 & 0xFF))
    code = "v_mov_b32_e32 v20, v11\n" + (
        "v_or_b32_sdwa v20, v10, v10 dst_sel:BYTE_1 dst_unused:UNUSED_PRESERVE src0_sel:BYTE_3 src1_sel:BYTE_3"
    )
    assert np.array_equal(compute("gfx942", code, a, b)[0], (b & 0xFFFF00FF) | (a >> 24 << 8))


def test_dual_issue_exchanges_registers() -> None:
    a, b = words(0, 32), words(1, 32)
    code = "v_dual_mov_b32 v10, v11 :: v_dual_mov_b32 v11, v10\nv_mov_b32_e32 v20, v10\nv_mov_b32_e32 v21, v11"
    assert np.array_equal(compute("gfx1100", code, a, b, outputs=2), np.stack([b, a]))


def test_halfword_results_keep_or_clear_the_other_half() -> None:
    a = words(0, 32)
    kept = compute("gfx1100", "v_mov_b32_e32 v20, -1\nv_mov_b16_e32 v20.l, v10.h", a)[0]
    assert np.array_equal(kept, (a >> 16) | 0xFFFF0000)
    cleared = compute("gfx942", "v_mov_b32_e32 v20, -1\nv_lshlrev_b16_e32 v20, 4, v10", words(0))[0]
    assert np.array_equal(cleared, (words(0) << 4) & 0xFFFF)


@pytest.mark.parametrize("name", ["eq", "ne", "lt", "le", "gt", "ge"])
@pytest.mark.parametrize("kind", ["u16", "i16", "u32", "i32", "u64", "i64"])
def test_integer_comparisons(name: str, kind: str) -> None:
    compare = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
               "ge": np.greater_equal}[name]  # fmt: skip
    inputs = [words(0), words(1), np.roll(words(0), 1), words(1)]
    inputs[2][20:40], inputs[3][20:40] = inputs[0][20:40], inputs[1][20:40]
    wide_kind = kind.endswith("64")
    operands = "v[10:11], v[12:13]" if wide_kind else "v10, v12"
    dtype = np.dtype({"u": "uint", "i": "int"}[kind[0]] + kind[1:])
    if wide_kind:
        a, b = (np.stack(inputs[n : n + 2], 1).reshape(-1).view(dtype) for n in (0, 2))
    else:
        a, b = (inputs[n].astype(np.uint16 if kind.endswith("16") else np.uint32).view(dtype) for n in (0, 2))
    code = f"v_cmp_{name}_{kind}_e64 s[10:11], {operands}\nv_cndmask_b32_e64 v20, 0, 1, s[10:11]"
    assert np.array_equal(compute("gfx942", code, *inputs)[0], compare(a, b))


def test_compare_into_exec() -> None:
    lanes = np.arange(32, dtype=np.uint32)
    code = "v_mov_b32_e32 v20, 0\ns_mov_b32 s10, exec_lo\nv_cmpx_gt_u32_e32 9, v10\nv_mov_b32_e32 v20, 1\n"
    assert np.array_equal(compute("gfx1100", code + "s_mov_b32 exec_lo, s10", lanes)[0], lanes < 9)


@pytest.mark.parametrize(
    ("bits", "member"),
    [(0x003, np.isnan), (0x204, np.isinf), (0x060, lambda x: x == 0), (0x004, np.isneginf),
     (0x090, lambda x: (np.abs(x) < 2.0**-126) & (x != 0)),
     (0x100, lambda x: np.isfinite(x) & (x >= 2.0**-126))],
)  # fmt: skip
def test_classes(bits: int, member: Callable[[Array], Array]) -> None:
    values = floats(0)
    values[20:22] = [1e-40, -1e-40]
    code = f"s_movk_i32 s12, {hex(bits)}\nv_cmp_class_f32_e64 s[10:11], v10, s12\n"
    code += "v_cndmask_b32_e64 v20, 0, 1, s[10:11]"
    assert np.array_equal(compute("gfx942", code, values)[0], member(values))


def test_mixed_precision_multiply_add() -> None:
    halves = np.random.default_rng(0).standard_normal(128).astype(np.float16)
    c = np.random.default_rng(1).standard_normal(64).astype(np.float32)
    pair = halves.reshape(-1, 2).astype(np.float64)
    inputs = (halves.view(np.uint32), c)
    code = "v_fma_mix_f32 v20, v10, v10, v11 op_sel:[0,1,0] op_sel_hi:[1,1,0]"
    result = compute("gfx942", code, *inputs)[0].view(np.float32)
    assert np.array_equal(result, (pair[:, 0] * pair[:, 1] + c).astype(np.float32))
    code = "v_mov_b32_e32 v20, 0\nv_fma_mixhi_f16 v20, v10, -v11, 1.0 op_sel_hi:[1,0,0]"
    high = compute("gfx942", code, *inputs)[0] >> 16
    expected = (1 - pair[:, 0] * c).astype(np.float32).astype(np.float16)
    assert np.array_equal(high.astype(np.uint16).view(np.float16), expected)


def test_doubles() -> None:
    a = np.random.default_rng(0).standard_normal(64)
    low, high = a.view(np.uint64).astype(np.uint32), (a.view(np.uint64) >> 32).astype(np.uint32)
    code = "v_mul_f64 v[20:21], v[10:11], v[10:11]\nv_add_f64 v[20:21], v[20:21], 1.0\n"
    code += "v_cvt_f32_f64_e32 v22, v[20:21]"
    result = compute("gfx942", code, low, high, outputs=3)
    assert np.array_equal(result[0] + (result[1].astype(np.uint64) << 32), (a * a + 1).view(np.uint64))
    assert np.array_equal(result[2].view(np.float32), (a * a + 1).astype(np.float32))
    back = compute("gfx942", "v_cvt_f64_i32_e32 v[20:21], v10", low, outputs=2)
    assert np.array_equal((back[0] + (back[1].astype(np.uint64) << 32)).view(np.float64), low.view(np.int32))


def test_float_to_integer_saturates() -> None:
    values = floats(0)
    values[15:18] = [3e9, -3e9, 5e9]
    exact_values = np.nan_to_num(np.trunc(values.astype(np.float64)), nan=0, posinf=2.0**40, neginf=-(2.0**40))
    signed_result = compute("gfx942", "v_cvt_i32_f32_e32 v20, v10", values)[0].view(np.int32)
    assert np.array_equal(signed_result, np.clip(exact_values, -(2**31), 2**31 - 1))
    assert np.array_equal(
        compute("gfx942", "v_cvt_u32_f32_e32 v20, v10", values)[0], np.clip(exact_values, 0, 2**32 - 1)
    )


def test_wide_shifts_and_multiply_add() -> None:
    low, high, other = words(0), words(1), words(2)
    value = low.astype(np.uint64) | high.astype(np.uint64) << 32
    for name, expected in (("v_lshlrev_b64", value << 13), ("v_lshrrev_b64", value >> 13)):
        result = compute("gfx942", f"{name} v[20:21], 13, v[10:11]", low, high, outputs=2)
        assert np.array_equal(result[0] | result[1].astype(np.uint64) << 32, expected)
    result = compute("gfx942", "v_mad_u64_u32 v[20:21], s[10:11], v12, v12, v[10:11]", low, high, other, outputs=2)
    product = other.astype(np.uint64) ** 2 + value
    assert np.array_equal(result[0] | result[1].astype(np.uint64) << 32, product)


@pytest.mark.parametrize("name", ["mac", "mad", "madmk", "madak"])
def test_multiply_add_that_rounds_twice(name: str) -> None:
    a, b, c = floats(0), floats(1), floats(2)
    constant = np.float32(0.1)
    factor, addend = {"madmk": (constant, b), "madak": (b, constant)}.get(name, (b, c))
    sources = {
        "mac": "v10, v11",
        "mad": "v10, v11, v12",
        "madmk": "v10, 0x3dcccccd, v11",
        "madak": "v10, v11, 0x3dcccccd",
    }
    code = f"v_mov_b32_e32 v20, v12\nv_{name}_f32 v20, {sources[name]}"
    with np.errstate(all="ignore"):
        expected = a * factor + addend
    np.testing.assert_array_equal(compute("gfx90a", code, a, b, c)[0].view(np.float32), expected)


def test_arithmetic_shift_of_half_words_and_of_a_byte() -> None:
    count, value = words(0), words(1)
    low, shifts = value.astype(np.uint16).view(np.int16).astype(np.int64), (count & 15).astype(np.int64)
    plain = compute("gfx942", "v_ashrrev_i16_e32 v20, v10, v11", count, value)[0]
    assert np.array_equal(plain, np.array([int(x) // 2 ** int(n) % 2**16 for x, n in zip(low, shifts, strict=True)]))
    selects = "dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:DWORD src1_sel:BYTE_1"
    byte = compute("gfx942", f"v_ashrrev_i16_sdwa v20, v10, sext(v11) {selects}", count, value)[0]
    signed = (value >> np.uint32(8)).astype(np.uint8).view(np.int8).astype(np.int64)
    assert np.array_equal(byte, np.array([int(x) // 2 ** int(n) % 2**16 for x, n in zip(signed, shifts, strict=True)]))
