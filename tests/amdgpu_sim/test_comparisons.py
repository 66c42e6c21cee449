"""Comparisons, conditional moves and sub-dword addressing, and what their decoders refuse."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from assembler import assemble, compute
from test_integer_instructions import registers64
from test_vector_instructions import floats, words

import amdgpu_sim

Array = np.ndarray[Any, Any]
M16 = 0xFFFF


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


INTEGER_COMPARE = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}


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
    code = "v_mov_b32_e32 v2, 0x204\nv_cmp_class_f32_e32 v10, v2\nv_cndmask_b32_e32 v20, 0, v11, vcc"
    assert np.array_equal(compute("gfx942", code, values, a)[0], np.where(np.isinf(values), a, 0))


def test_conditional_moves_of_halves_and_bytes() -> None:
    a, b = (words(n)[:32].copy() for n in (0, 1))
    code = "v_mov_b32_e32 v20, 0\nv_cmp_lt_u32_e32 v10, v11\nv_cndmask_b16 v20, v10, v11, vcc_lo op_sel:[1,0,0]"
    result = compute("gfx1100", code, a, b)[0]
    assert np.array_equal(result, np.where(a < b, b & M16, a >> 16))
    a, b = words(0), words(1)
    code = """v_cmp_lt_u32_e32 v10, v11
    v_cndmask_b32_sdwa v20, v10, v11, vcc dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:BYTE_3 src1_sel:WORD_1"""
    result = compute("gfx942", code, a, b)[0]
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
    code = (
        "v_max_i32_sdwa v20, sext(v10), sext(v11) dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:BYTE_2 src1_sel:WORD_1"
    )
    other = (b >> 16).astype(np.uint16).view(np.int16).astype(np.int64)
    assert np.array_equal(compute("gfx942", code, a, b)[0].view(np.int32), np.maximum(signed_byte, other))


@pytest.mark.parametrize(
    ("target", "line", "why"),
    [
        ("gfx90a", "v_cvt_pk_fp8_f32 v1, v0, v0", "no 8-bit float"),
        ("gfx950", "v_cvt_scalef32_pk_fp8_f32 v1, v0, v0, v0", "scale of 1.0"),
        ("gfx942", "v_cvt_f32_fp8_sdwa v1, v0 src0_sel:WORD_1", "WORD_1"),
        ("gfx942", "v_pk_mov_b32 v[0:1], v[2:3], v[4:5] op_sel_hi:[0,0]", "op_sel_hi"),
        (
            "gfx942",
            "v_and_b32_sdwa v1, v0, v0 dst_sel:BYTE_0 dst_unused:UNUSED_SEXT src0_sel:DWORD src1_sel:DWORD",
            "UNUSED_SEXT",
        ),
        (
            "gfx942",
            "v_add_f32_sdwa v1, -v0, v0 dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:WORD_0 src1_sel:DWORD",
            "SDWA selection",
        ),
        ("gfx942", "v_cndmask_b32_dpp v1, v0, v2, vcc row_shl:1 row_mask:0xf bank_mask:0xf", "DPP conditional"),
        ("gfx942", "v_cmp_eq_u32_e64 s[0:1], v0, v1, v2", "two sources"),
    ],
)
def test_what_is_refused(target: str, line: str, why: str) -> None:
    with pytest.raises(amdgpu_sim.UnsupportedInstructionError, match=why):
        assemble(target, line)
