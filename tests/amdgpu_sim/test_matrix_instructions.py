"""Matrix instructions against matrices laid out as AMD's matrix-instruction documentation describes them."""

# mypy: disable-error-code="arg-type,call-arg,no-any-return"

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from assembler import assemble, prologue, run, wait_loads

import amdgpu_sim

Array = np.ndarray[Any, Any]
FP8 = {
    "gfx942": ml_dtypes.float8_e4m3fnuz,
    "gfx950": ml_dtypes.float8_e4m3fn,
    "gfx1201": ml_dtypes.float8_e4m3fn,
}
BF8 = {"gfx942": ml_dtypes.float8_e5m2fnuz, "gfx950": ml_dtypes.float8_e5m2, "gfx1201": ml_dtypes.float8_e5m2}


def dtype_of(element: str, target: str) -> Any:
    plain: dict[str, Any] = {
        "f16": np.float16,
        "bf16": ml_dtypes.bfloat16,
        "f32": np.float32,
        "xf32": np.float32,
        "i8": np.int8,
        "f64": np.float64,
    }
    return plain.get(element) or (FP8 if element == "fp8" else BF8)[target]


def random_matrix(rows: int, columns: int, dtype: Any, seed: int) -> Array:
    random = np.random.default_rng(seed)
    if dtype is np.int8:
        return random.integers(-128, 128, (rows, columns)).astype(np.int8)
    return random.standard_normal((rows, columns)).astype(np.float32).astype(dtype)


def execute(target: str, mnemonic: str, a: Array, b: Array, c: Array, lanes: int, modifiers: str = "") -> Array:
    """``a``, ``b``, ``c``: (lanes, registers) uint32 as they lie in registers; returns the result alike."""
    counts = [x.shape[1] for x in (a, b, c)]
    dword = "dword" if lanes == 64 else "b32"
    table = np.ascontiguousarray(np.concatenate([a, b, c], axis=1).T)
    result = np.zeros((counts[2], lanes), np.uint32)
    base = [10, 10 + counts[0] + counts[0] % 2]
    base.append(base[1] + counts[1] + counts[1] % 2)
    registers = [base[n] + m for n in range(3) for m in range(counts[n])]
    body = [prologue(target)]
    add = "v_add_u32_e32" if lanes == 64 else "v_add_nc_u32_e32"
    for register in registers:
        body.append(f"global_load_{dword} v{register}, v1, s[4:5]\n{add} v1, {4 * lanes}, v1")
    ranges = [f"v[{base[n]}:{base[n] + counts[n] - 1}]" if counts[n] > 1 else f"v{base[n]}" for n in range(3)]
    body += [wait_loads(target), f"{mnemonic} {ranges[2]}, {ranges[0]}, {ranges[1]}, {ranges[2]}{modifiers}"]
    body += ["v_lshlrev_b32_e32 v1, 2, v0"]
    for number in range(counts[2]):
        body += [f"global_store_{dword} v1, v{base[2] + number}, s[6:7]", f"{add} v1, {4 * lanes}, v1"]
    run(target, "\n".join(body), table, result)
    return result.T.copy()


def expected_product(a: Array, b: Array, c: Array) -> Array:
    return a.astype(np.float64) @ b.astype(np.float64) + c.astype(np.float64)


# (target, mnemonic, size, depth, blocks, element of A, element of B)
MFMA = [
    ("gfx90a", "v_mfma_f32_32x32x8f16", 32, 8, 1, "f16", "f16"),
    ("gfx90a", "v_mfma_f32_16x16x16f16", 16, 16, 1, "f16", "f16"),
    ("gfx90a", "v_mfma_f32_16x16x16bf16_1k", 16, 16, 1, "bf16", "bf16"),
    ("gfx90a", "v_mfma_f32_32x32x8bf16_1k", 32, 8, 1, "bf16", "bf16"),
    ("gfx90a", "v_mfma_f32_32x32x4bf16_1k", 32, 4, 2, "bf16", "bf16"),
    ("gfx90a", "v_mfma_f32_16x16x4bf16_1k", 16, 4, 4, "bf16", "bf16"),
    ("gfx90a", "v_mfma_f32_4x4x4bf16_1k", 4, 4, 16, "bf16", "bf16"),
    ("gfx90a", "v_mfma_f32_32x32x2f32", 32, 2, 1, "f32", "f32"),
    ("gfx90a", "v_mfma_f32_16x16x4f32", 16, 4, 1, "f32", "f32"),
    ("gfx90a", "v_mfma_f32_32x32x1f32", 32, 1, 2, "f32", "f32"),
    ("gfx90a", "v_mfma_f32_16x16x1f32", 16, 1, 4, "f32", "f32"),
    ("gfx90a", "v_mfma_f32_4x4x1f32", 4, 1, 16, "f32", "f32"),
    ("gfx90a", "v_mfma_f32_32x32x4f16", 32, 4, 2, "f16", "f16"),
    ("gfx90a", "v_mfma_f32_16x16x4f16", 16, 4, 4, "f16", "f16"),
    ("gfx90a", "v_mfma_f32_4x4x4f16", 4, 4, 16, "f16", "f16"),
    ("gfx90a", "v_mfma_i32_16x16x16i8", 16, 16, 1, "i8", "i8"),
    ("gfx90a", "v_mfma_i32_32x32x8i8", 32, 8, 1, "i8", "i8"),
    ("gfx90a", "v_mfma_i32_32x32x4i8", 32, 4, 2, "i8", "i8"),
    ("gfx90a", "v_mfma_i32_16x16x4i8", 16, 4, 4, "i8", "i8"),
    ("gfx90a", "v_mfma_i32_4x4x4i8", 4, 4, 16, "i8", "i8"),
    ("gfx90a", "v_mfma_f64_16x16x4f64", 16, 4, 1, "f64", "f64"),
    ("gfx942", "v_mfma_f32_16x16x16_f16", 16, 16, 1, "f16", "f16"),
    ("gfx942", "v_mfma_f32_32x32x8_f16", 32, 8, 1, "f16", "f16"),
    ("gfx942", "v_mfma_f32_32x32x8_bf16", 32, 8, 1, "bf16", "bf16"),
    ("gfx942", "v_mfma_f32_16x16x16_bf16", 16, 16, 1, "bf16", "bf16"),
    ("gfx942", "v_mfma_f32_32x32x4_2b_f16", 32, 4, 2, "f16", "f16"),
    ("gfx942", "v_mfma_f32_16x16x4_4b_bf16", 16, 4, 4, "bf16", "bf16"),
    ("gfx942", "v_mfma_f32_4x4x4_16b_f16", 4, 4, 16, "f16", "f16"),
    ("gfx942", "v_mfma_f32_32x32x1_2b_f32", 32, 1, 2, "f32", "f32"),
    ("gfx942", "v_mfma_f32_16x16x1_4b_f32", 16, 1, 4, "f32", "f32"),
    ("gfx942", "v_mfma_f32_4x4x1_16b_f32", 4, 1, 16, "f32", "f32"),
    ("gfx942", "v_mfma_f32_32x32x2_f32", 32, 2, 1, "f32", "f32"),
    ("gfx942", "v_mfma_f32_16x16x4_f32", 16, 4, 1, "f32", "f32"),
    ("gfx942", "v_mfma_f32_16x16x8_xf32", 16, 8, 1, "xf32", "xf32"),
    ("gfx942", "v_mfma_f32_32x32x4_xf32", 32, 4, 1, "xf32", "xf32"),
    ("gfx942", "v_mfma_f32_16x16x32_fp8_fp8", 16, 32, 1, "fp8", "fp8"),
    ("gfx942", "v_mfma_f32_32x32x16_bf8_fp8", 32, 16, 1, "bf8", "fp8"),
    ("gfx942", "v_mfma_i32_32x32x16_i8", 32, 16, 1, "i8", "i8"),
    ("gfx942", "v_mfma_i32_16x16x32_i8", 16, 32, 1, "i8", "i8"),
    ("gfx942", "v_mfma_i32_4x4x4_16b_i8", 4, 4, 16, "i8", "i8"),
    ("gfx942", "v_mfma_f64_16x16x4_f64", 16, 4, 1, "f64", "f64"),
    ("gfx950", "v_mfma_f32_16x16x32_f16", 16, 32, 1, "f16", "f16"),
    ("gfx950", "v_mfma_f32_32x32x16_f16", 32, 16, 1, "f16", "f16"),
    ("gfx950", "v_mfma_f32_32x32x16_bf16", 32, 16, 1, "bf16", "bf16"),
    ("gfx950", "v_mfma_f32_16x16x32_bf16", 16, 32, 1, "bf16", "bf16"),
    ("gfx950", "v_mfma_f32_16x16x32_fp8_bf8", 16, 32, 1, "fp8", "bf8"),
    ("gfx950", "v_mfma_f32_32x32x16_bf8_bf8", 32, 16, 1, "bf8", "bf8"),
    ("gfx950", "v_mfma_i32_32x32x32_i8", 32, 32, 1, "i8", "i8"),
    ("gfx950", "v_mfma_i32_16x16x64_i8", 16, 64, 1, "i8", "i8"),
    ("gfx950", "v_mfma_f32_32x32x64_f8f6f4", 32, 64, 1, "fp8", "fp8"),
    ("gfx950", "v_mfma_f32_16x16x128_f8f6f4", 16, 128, 1, "fp8", "fp8"),
]


@pytest.mark.parametrize(("target", "name", "size", "depth", "blocks", "left", "right"), MFMA)
def test_mfma(target: str, name: str, size: int, depth: int, blocks: int, left: str, right: str) -> None:
    groups = 64 // size // blocks
    per_lane = depth // groups
    result_type = np.float64 if left == "f64" else np.int32 if left == "i8" else np.float32
    a = [random_matrix(size, depth, dtype_of(left, target), n) for n in range(blocks)]
    b = [random_matrix(depth, size, dtype_of(right, target), 100 + n) for n in range(blocks)]
    if left == "xf32":
        # inputs that ten bits of mantissa hold: then the product is that of float32
        a, b = ([(x.view(np.uint32) & 0xFFFFE000).view(np.float32) for x in matrices] for matrices in (a, b))
    c = [(random_matrix(size, size, np.float32, 200 + n) * 9).astype(result_type) for n in range(blocks)]
    lanes_a, lanes_b = [], []
    for lane in range(64):
        block, group, line = lane // size // groups, lane // size % groups, lane % size
        part = slice(group * per_lane, (group + 1) * per_lane)
        lanes_a.append(np.ascontiguousarray(a[block][line, part]))
        lanes_b.append(np.ascontiguousarray(b[block][part, line]))
    registers = size * size * blocks // 64
    place = np.zeros((64, registers, 3), int)
    for lane in range(64):
        for register in range(registers):
            if left == "f64":
                block, row = 0, register * 4 + lane // 16
            elif size == 4:
                block, row = lane // 4, register
            else:
                block, inner = divmod(register, size * size // 64)
                row = inner % 4 + 4 * (lane // size) + (256 // size) * (inner // 4)
            place[lane, register] = block, row, lane % size
    packed_c = np.array([[c[k][i, j] for k, i, j in place[lane]] for lane in range(64)], result_type)
    words = execute(target, name, np.stack(lanes_a).view(np.uint32), np.stack(lanes_b).view(np.uint32),
                    packed_c.view(np.uint32), 64)  # fmt: skip
    result = words.view(result_type)
    expected = np.stack([expected_product(*x) for x in zip(a, b, c, strict=True)])
    wanted = expected[place[..., 0], place[..., 1], place[..., 2]]
    if left == "i8":
        assert np.array_equal(result, wanted)
        return
    # every product and sum is rounded to float32 (float64) at most once per term
    magnitude = np.stack([np.abs(x.astype(float)) @ np.abs(y.astype(float)) for x, y in zip(a, b, strict=True)])
    bound = (magnitude[place[..., 0], place[..., 1], place[..., 2]] + np.abs(packed_c)) * (depth + 1)
    assert (np.abs(result - wanted) <= bound * (2.0**-53 if left == "f64" else 2.0**-24)).all()


WMMA = [
    ("gfx1100", "f16", "f16"),
    ("gfx1100", "bf16", "bf16"),
    ("gfx1100", "i8", "i8"),
    ("gfx1201", "f16", "f16"),
    ("gfx1201", "bf16", "bf16"),
    ("gfx1201", "fp8", "fp8"),
    ("gfx1201", "bf8", "fp8"),
    ("gfx1201", "i8", "i8"),
]


@pytest.mark.parametrize(("target", "left", "right"), WMMA)
def test_wmma(target: str, left: str, right: str) -> None:
    result_type: Any = np.int32 if left == "i8" else np.float32
    a = random_matrix(16, 16, dtype_of(left, target), 0)
    b = random_matrix(16, 16, dtype_of(right, target), 1)
    c = (random_matrix(16, 16, np.float32, 2) * 9).astype(result_type)
    twelve = target == "gfx1201"
    lanes_a, lanes_b, packed_c = [], [], np.zeros((32, 8), result_type)
    for lane in range(32):
        part = slice(8 * (lane // 16), 8 * (lane // 16) + 8) if twelve else slice(0, 16)
        lanes_a.append(np.ascontiguousarray(a[lane % 16, part]))
        lanes_b.append(np.ascontiguousarray(b[part, lane % 16]))
    rows = [[8 * (lane // 16) + r if twelve else 2 * r + lane // 16 for r in range(8)] for lane in range(32)]
    for lane in range(32):
        packed_c[lane] = c[rows[lane], lane % 16]
    name = {"f16": "f32_16x16x16_f16", "bf16": "f32_16x16x16_bf16", "i8": "i32_16x16x16_iu8"}.get(
        left, f"f32_16x16x16_{left}_{right}"
    )
    text = f"v_wmma_{name}"
    words = execute_signed(target, text, np.stack(lanes_a), np.stack(lanes_b), packed_c, left == "i8")
    expected = expected_product(a, b, c)
    wanted = np.array([[expected[r, lane % 16] for r in rows[lane]] for lane in range(32)])
    result = words.view(result_type)
    if left == "i8":
        assert np.array_equal(result, wanted)
        return
    bound = np.abs(a.astype(float)) @ np.abs(b.astype(float)) + np.abs(c)
    limits = np.array([[bound[r, lane % 16] for r in rows[lane]] for lane in range(32)]) * 17 * 2.0**-24
    assert (np.abs(result - wanted) <= limits).all()


def execute_signed(target: str, name: str, a: Array, b: Array, c: Array, signed: bool) -> Array:
    """Like :func:`execute`; integers are marked as signed by neg_lo."""
    words = [np.ascontiguousarray(x).view(np.uint32) for x in (a, b, c)]
    if not signed:
        return execute(target, name, *words, 32)
    count = words[0].shape[1]
    body = [prologue(target)]
    for n in range(2 * count + 8):
        body.append(f"global_load_b32 v{10 + n}, v1, s[4:5]\nv_add_nc_u32_e32 v1, 0x80, v1")
    body.append(wait_loads(target))
    ranges = [f"v[{10 + n}:{9 + n + m}]" for n, m in ((0, count), (count, count), (2 * count, 8))]
    body.append(f"{name} {ranges[2]}, {ranges[0]}, {ranges[1]}, {ranges[2]} neg_lo:[1,1,0]")
    body.append("v_lshlrev_b32_e32 v1, 2, v0")
    for n in range(8):
        body.append(f"global_store_b32 v1, v{10 + 2 * count + n}, s[6:7]\nv_add_nc_u32_e32 v1, 0x80, v1")
    result = np.zeros((8, 32), np.uint32)
    run(target, "\n".join(body), np.ascontiguousarray(np.concatenate(words, axis=1).T), result)
    return result.T.copy()


@pytest.mark.parametrize(("target", "element", "half"), [
    ("gfx1100", "f16", 0), ("gfx1100", "f16", 1), ("gfx1100", "bf16", 0), ("gfx1100", "bf16", 1), ("gfx1201", "f16", 0),
    ("gfx1201", "bf16", 0),
])  # fmt: skip
def test_wmma_with_narrow_results(target: str, element: str, half: int) -> None:
    """gfx11 keeps a 16-bit result in one half of eight registers, gfx12 packs two rows into each of four."""
    dtype, twelve = dtype_of(element, target), target == "gfx1201"
    a, b, c = (random_matrix(16, 16, dtype, n) for n in range(3))
    lanes_a, lanes_b = [], []
    for lane in range(32):
        part = slice(8 * (lane // 16), 8 * (lane // 16) + 8) if twelve else slice(0, 16)
        lanes_a.append(np.ascontiguousarray(a[lane % 16, part]))
        lanes_b.append(np.ascontiguousarray(b[part, lane % 16]))
    if twelve:
        rows = np.array([[8 * (lane // 16) + r for r in range(8)] for lane in range(32)])
        packed = np.ascontiguousarray(c[rows, np.arange(32)[:, None] % 16])
    else:
        rows = np.array([[2 * r + lane // 16 for r in range(8)] for lane in range(32)])
        packed = np.full((32, 16), 1.5, dtype)
        packed[:, half::2] = c[rows, np.arange(32)[:, None] % 16]
    name = f"v_wmma_{element}_16x16x16_{element}"
    words = [np.stack(lanes_a).view(np.uint32), np.stack(lanes_b).view(np.uint32), packed.view(np.uint32)]
    result = execute(target, name, *words, 32, " op_sel:[0,0,1]" if half else "").view(dtype)
    if not twelve:
        assert (result[:, 1 - half :: 2] == dtype(1.5)).all()
        result = result[:, half::2]
    exact = expected_product(a, b, c)[rows, np.arange(32)[:, None] % 16]
    sums = (np.abs(a.astype(float)) @ np.abs(b.astype(float)) + np.abs(c.astype(float)))[
        rows, np.arange(32)[:, None] % 16
    ]
    # float32 sums, rounded once to half a unit of the type
    unit = 2.0 ** (-11 if element == "f16" else -8)
    assert (np.abs(result.astype(float) - exact) <= unit * np.abs(exact) + 2 * 17 * 2.0**-24 * sums).all()


@pytest.mark.parametrize(("target", "text", "why"), [
    ("gfx942", "v_mfma_f32_16x16x16_f16 v[0:3], v[4:6], v[6:7], v[0:3]", "2 vector registers"),
    ("gfx942", "v_mfma_f32_16x16x128_f8f6f4 v[0:3], v[4:11], v[12:19], v[0:3]", "has no f8f6f4"),
    ("gfx950", "v_mfma_f32_16x16x128_f8f6f4 v[0:3], v[4:11], v[12:19], v[0:3] cbsz:4", "6- and 4-bit"),
    ("gfx942", "v_wmma_f32_16x16x16_f16 v[0:7], v[8:15], v[16:23], v[0:7]", "no such matrix"),
    ("gfx1100", "v_wmma_f32_16x16x16_fp8_fp8 v[0:7], v[8:9], v[10:11], v[0:7]", "no such matrix"),
])  # fmt: skip
def test_what_is_refused(target: str, text: str, why: str) -> None:
    with pytest.raises(amdgpu_sim.UnsupportedInstructionError, match=why):
        assemble(target, text)


def test_accumulator_constants_and_saturation() -> None:
    body = "\n".join(f"v_mov_b32_e32 v{n}, 0x3c003c00" for n in range(8, 16))
    body = f"{prologue('gfx942')}\n{body}\nv_mfma_f32_16x16x16_f16 v[20:23], v[8:9], v[10:11], 2.0\n"
    result = np.zeros(64, np.float32)
    run("gfx942", body + "global_store_dword v1, v21, s[6:7]", np.zeros(1, np.uint32), result)
    assert (result == 18).all()
    body = "\n".join(f"v_mov_b32_e32 v{n}, 0x7f7f7f7f" for n in range(8, 16))
    body += "\n" + "\n".join(f"v_mov_b32_e32 v{n}, 0x7fffff00" for n in range(16, 24))
    body = f"{prologue('gfx1201')}\n{body}\nv_wmma_i32_16x16x16_iu8 v[16:23], v[8:9], v[10:11], v[16:23] clamp\n"
    clamped = np.zeros(32, np.int32)
    run("gfx1201", body + "global_store_b32 v1, v19, s[6:7]", np.zeros(1, np.uint32), clamped)
    assert (clamped == 2**31 - 1).all()
