"""Sparse matrix instructions against dense products, with the index laid out as AMD's documentation shows it."""

# mypy: disable-error-code="arg-type,call-arg,no-any-return"

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from assembler import assemble, prologue, run, wait_loads
from test_matrix_instructions import dtype_of, random_matrix

import amdgpu_sim

Array = np.ndarray[Any, Any]

# (target, mnemonic, size, depth, element of A, element of B)
SMFMAC = [
    ("gfx942", "v_smfmac_f32_16x16x32_f16", 16, 32, "f16", "f16"),
    ("gfx942", "v_smfmac_f32_32x32x16_bf16", 32, 16, "bf16", "bf16"),
    ("gfx942", "v_smfmac_i32_16x16x64_i8", 16, 64, "i8", "i8"),
    ("gfx942", "v_smfmac_i32_32x32x32_i8", 32, 32, "i8", "i8"),
    ("gfx942", "v_smfmac_f32_16x16x64_fp8_bf8", 16, 64, "fp8", "bf8"),
    ("gfx942", "v_smfmac_f32_32x32x32_bf8_bf8", 32, 32, "bf8", "bf8"),
    ("gfx950", "v_smfmac_f32_16x16x64_f16", 16, 64, "f16", "f16"),
    ("gfx950", "v_smfmac_f32_32x32x32_bf16", 32, 32, "bf16", "bf16"),
    ("gfx950", "v_smfmac_f32_16x16x128_bf8_fp8", 16, 128, "bf8", "fp8"),
    ("gfx950", "v_smfmac_i32_32x32x64_i8", 32, 64, "i8", "i8"),
]


def kept_places(size: int, depth: int, seed: int) -> Array:
    """(size, depth / 4, 2): which two of every four elements of a row are stored, in rising order."""
    random = np.random.default_rng(seed)
    return np.sort(random.permuted(np.tile(np.arange(4), (size, depth // 4, 1)), axis=2)[..., :2], axis=2)


def matrix_rows(size: int) -> Array:
    """Row of every (lane, register) of a 16x16 or 32x32 result."""
    lane, register = np.arange(64)[:, None], np.arange(size * size // 64)
    return register % 4 + 4 * (lane // size) + 256 // size * (register // 4)


@pytest.mark.parametrize("chosen", ["first", "last", "single"])
@pytest.mark.parametrize(("target", "name", "size", "depth", "left", "right"), SMFMAC)
def test_smfmac(target: str, name: str, size: int, depth: int, left: str, right: str, chosen: str) -> None:
    result_type: Any = np.int32 if left == "i8" else np.float32
    stored = random_matrix(size, depth // 2, dtype_of(left, target), 0)
    b = random_matrix(depth, size, dtype_of(right, target), 1)
    c = (random_matrix(size, size, np.float32, 2) * 9).astype(result_type)
    places = kept_places(size, depth, 3)
    dense = np.zeros((size, depth))
    for row in range(size):
        for four in range(depth // 4):
            for half in (0, 1):
                dense[row, 4 * four + places[row, four, half]] = stored[row, 2 * four + half]
    groups = 64 // size
    per_lane = depth // groups
    sets = 32 // per_lane
    number = {"first": 0, "last": sets - 1, "single": 0}[chosen]
    modifiers = {"first": "", "last": f" abid:{number}", "single": " cbsz:1"}[chosen]
    lanes_a, lanes_b, index = [], [], np.random.default_rng(4).integers(0, 2**32, 64, dtype=np.uint32)
    for lane in range(64):
        line, group = lane % size, lane // size
        lanes_a.append(np.ascontiguousarray(stored[line, group * per_lane // 2 : (group + 1) * per_lane // 2]))
        lanes_b.append(np.ascontiguousarray(b[group * per_lane : (group + 1) * per_lane, line]))
        own = places[line, group * per_lane // 4 : (group + 1) * per_lane // 4].reshape(-1)
        code = sum(int(place) << 2 * n for n, place in enumerate(own)) << per_lane * number
        mask = (1 << per_lane) - 1 << per_lane * number
        index[lane] = (int(index[lane]) & ~mask) | code
    rows = matrix_rows(size)
    columns = np.arange(64)[:, None] % size
    words = [np.stack(lanes_a).view(np.uint32), np.stack(lanes_b).view(np.uint32), index[:, None],
             np.ascontiguousarray(c[rows, columns]).view(np.uint32)]  # fmt: skip
    result = execute(target, name, words, modifiers).view(result_type)
    expected = (dense @ b.astype(float) + c)[rows, columns]
    if left == "i8":
        assert np.array_equal(result, expected)
        return
    # every product and sum is rounded to float32 at most once per term
    bound = (np.abs(dense) @ np.abs(b.astype(float)) + np.abs(c))[rows, columns] * (depth + 1) * 2.0**-24
    assert (np.abs(result - expected) <= bound).all()


def execute(target: str, name: str, operands: list[Array], modifiers: str) -> Array:
    """Load A, B, index and accumulator, (lanes, registers) each, into registers; return the result alike."""
    table = np.ascontiguousarray(np.concatenate(operands, axis=1).T)
    first = [10]
    for operand in operands:
        first.append(first[-1] + operand.shape[1] + operand.shape[1] % 2)
    names = [f"v[{n}:{n + x.shape[1] - 1}]" for n, x in zip(first, operands, strict=False)]
    names[2] = f"v{first[2]}"
    body = [prologue(target)]
    for n, operand in zip(first, operands, strict=False):
        for register in range(operand.shape[1]):
            body.append(f"global_load_dword v{n + register}, v1, s[4:5]\nv_add_u32_e32 v1, 0x100, v1")
    body += [wait_loads(target), f"{name} {names[3]}, {names[0]}, {names[1]}, {names[2]}{modifiers}"]
    body.append("v_lshlrev_b32_e32 v1, 2, v0")
    count = operands[3].shape[1]
    for register in range(count):
        body.append(f"global_store_dword v1, v{first[3] + register}, s[6:7]\nv_add_u32_e32 v1, 0x100, v1")
    result = np.zeros((count, 64), np.uint32)
    report = run(target, "\n".join(body), table, result)
    assert report.by_category()["matrix"] == 1
    return result.T.copy()


@pytest.mark.parametrize(
    ("target", "text", "why"),
    [
        ("gfx90a", "v_smfmac_f32_16x16x32_f16 v[0:3], v[4:5], v[6:9], v10", "no such sparse"),
        ("gfx942", "v_smfmac_f32_16x16x64_f16 v[0:3], v[4:7], v[8:15], v16", "no such sparse"),
        ("gfx942", "v_smfmac_f32_16x16x32_f16 v[0:3], v[4:5], v[6:9], v10 abid:4", "abid:4"),
        ("gfx942", "v_smfmac_f32_16x16x32_f16 v[0:3], v[4:7], v[6:9], v10", "2 vector registers"),
    ],
)
def test_what_is_refused(target: str, text: str, why: str) -> None:
    with pytest.raises(amdgpu_sim.UnsupportedInstructionError, match=why):
        assemble(target, text)
