"""Scalar instructions, branches and instructions that move values between lanes."""

# mypy: disable-error-code="arg-type,call-arg,no-any-return"

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from assembler import compute, wait_lds

LANES64, LANES32 = np.arange(64, dtype=np.uint32), np.arange(32, dtype=np.uint32)
MASK = 2**32 - 1


def s32(x: int) -> int:
    return x - 2**32 if x & 2**31 else x


# (mnemonic, result of two integers, flag of them or None)
SCALAR: list[tuple[str, Callable[[int, int], int], Callable[[int, int], bool] | None]] = [
    ("s_add_u32", lambda a, b: a + b, lambda a, b: a + b > MASK),
    ("s_sub_u32", lambda a, b: a - b, lambda a, b: b > a),
    ("s_add_i32", lambda a, b: a + b, lambda a, b: not -(2**31) <= s32(a) + s32(b) < 2**31),
    ("s_sub_i32", lambda a, b: a - b, lambda a, b: not -(2**31) <= s32(a) - s32(b) < 2**31),
    ("s_and_b32", lambda a, b: a & b, lambda a, b: a & b != 0),
    ("s_or_b32", lambda a, b: a | b, lambda a, b: a | b != 0),
    ("s_xor_b32", lambda a, b: a ^ b, lambda a, b: a ^ b != 0),
    ("s_andn2_b32", lambda a, b: a & ~b, lambda a, b: a & ~b & MASK != 0),
    ("s_lshl_b32", lambda a, b: a << (b & 31), lambda a, b: a << (b & 31) & MASK != 0),
    ("s_lshr_b32", lambda a, b: a >> (b & 31), lambda a, b: a >> (b & 31) != 0),
    ("s_ashr_i32", lambda a, b: s32(a) >> (b & 31), lambda a, b: s32(a) >> (b & 31) != 0),
    ("s_mul_i32", lambda a, b: a * b, None),
    ("s_mul_hi_u32", lambda a, b: a * b >> 32, None),
    ("s_mul_hi_i32", lambda a, b: s32(a) * s32(b) >> 32, None),
    ("s_min_i32", lambda a, b: min(s32(a), s32(b)), lambda a, b: s32(a) < s32(b)),
    ("s_max_u32", max, lambda a, b: a >= b),
    ("s_bfe_u32", lambda a, b: a >> (b & 31) & ((1 << (b >> 16 & 127)) - 1), None),
    ("s_lshl2_add_u32", lambda a, b: (a << 2) + b, lambda a, b: (a << 2) + b > MASK),
]
PAIRS = [(5, 3), (0x80000000, 0x80000000), (MASK, 1), (0x12345678, 0x00080004), (0, 31), (0x7FFFFFFF, 1)]


@pytest.mark.parametrize(("name", "value", "flag"), SCALAR, ids=[case[0] for case in SCALAR])
def test_scalar(name: str, value: Callable[[int, int], int], flag: Callable[[int, int], bool] | None) -> None:
    for a, b in PAIRS:
        if name == "s_bfe_u32" and (b >> 16 & 127) > 32:
            continue
        code = f"""
        s_mov_b32 s10, {hex(a)}
        s_mov_b32 s11, {hex(b)}
        {name} s12, s10, s11
        s_cselect_b32 s13, 1, 0
        v_mov_b32_e32 v20, s12
        v_mov_b32_e32 v21, s13"""
        if flag is None:
            code = code.replace(name, f"s_cmp_eq_u32 s10, s10\n{name}", 1)
        result = compute("gfx942", code, LANES64, outputs=2)
        assert result[0][0] == value(a, b) & MASK, (a, b)
        if flag and name != "s_bfe_u32":
            assert result[1][0] == flag(a, b), (a, b)


def test_short_immediates_are_signed() -> None:
    code = "s_movk_i32 s10, 0xfefc\ns_addk_i32 s10, 0xffff\nv_mov_b32_e32 v20, s10"
    assert (compute("gfx942", code, LANES64)[0].view(np.int32) == -261).all()


def test_scalar_64_bit_and_exec() -> None:
    code = """
    s_mov_b32 s10, 0
    s_mov_b32 s11, 1
    s_lshr_b64 s[12:13], s[10:11], 4
    s_or_b64 s[12:13], s[12:13], 5
    v_mov_b32_e32 v20, 0
    s_and_saveexec_b64 s[14:15], s[12:13]
    v_mov_b32_e32 v20, 1
    s_mov_b64 exec, s[14:15]"""
    result = compute("gfx942", code, LANES64)[0]
    assert np.flatnonzero(result).tolist() == [0, 2, 28]


def test_loop_counts() -> None:
    code = """
    s_mov_b32 s10, 0
    v_mov_b32_e32 v20, 0
    .Lloop:
    v_add_u32_e32 v20, v20, v10
    s_add_i32 s10, s10, 1
    s_cmp_lt_i32 s10, 7
    s_cbranch_scc1 .Lloop"""
    assert np.array_equal(compute("gfx942", code, LANES64)[0], 7 * LANES64)


def dpp(control: str, target: str = "gfx942") -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    lanes = LANES64 if target == "gfx942" else LANES32
    code = f"v_mov_b32_e32 v20, 0x63\ns_nop 1\nv_mov_b32_dpp v20, v10 {control}"
    return compute(target, code, lanes)[0]


def test_dpp_controls() -> None:
    lane, row, place = LANES64, LANES64 // 16 * 16, LANES64 % 16
    full = "row_mask:0xf bank_mask:0xf"
    assert np.array_equal(dpp(f"quad_perm:[1,0,3,2] {full}"), lane ^ 1)
    assert np.array_equal(dpp(f"row_shr:4 {full}"), np.where(place >= 4, lane - 4, 0x63))
    assert np.array_equal(dpp(f"row_shl:4 {full} bound_ctrl:0"), np.where(place < 12, lane + 4, 0))
    assert np.array_equal(dpp(f"row_ror:3 {full}"), row + (place - 3) % 16)
    assert np.array_equal(dpp(f"row_newbcast:5 {full}"), row + 5)
    even_bank = place // 4 % 2 == 0
    shifted = dpp("row_shl:4 row_mask:0xf bank_mask:0x5")
    assert np.array_equal(shifted, np.where(even_bank, np.where(place < 12, lane + 4, 0x63), 0x63))
    assert np.array_equal(dpp("quad_perm:[0,1,2,3] row_mask:0xa bank_mask:0xf"),
                          np.where(lane // 16 % 2 == 1, lane, 0x63))  # fmt: skip
    broadcast = dpp("row_bcast:15 row_mask:0xa bank_mask:0xf")
    assert np.array_equal(broadcast, np.where(lane // 16 % 2 == 1, row - 1, 0x63))
    assert np.array_equal(dpp("row_xmask:3 row_mask:0xf bank_mask:0xf", "gfx1100"), LANES32 ^ 3)


def test_more_dpp_controls() -> None:
    lane, full = LANES64, "row_mask:0xf bank_mask:0xf"
    place = lane % 16
    assert np.array_equal(dpp(f"wave_shr:1 {full}"), np.where(lane > 0, lane - 1, 0x63))
    assert np.array_equal(dpp(f"wave_rol:1 {full}"), (lane + 1) % 64)
    assert np.array_equal(dpp("row_bcast:31 row_mask:0xc bank_mask:0xf"), np.where(lane >= 32, 31, lane * 0 + 0x63))
    assert np.array_equal(dpp(f"row_mirror {full}"), lane - place + 15 - place)
    assert np.array_equal(dpp(f"row_half_mirror {full}"), lane // 8 * 8 + 7 - lane % 8)
    assert np.array_equal(dpp("dpp8:[7,6,5,4,3,2,1,0]", "gfx1100"), LANES32 // 8 * 8 + 7 - LANES32 % 8)


@pytest.mark.parametrize(
    ("pattern", "source"),
    [
        ("swizzle(REVERSE,8)", LANES64 // 8 * 8 + 7 - LANES64 % 8),
        ("swizzle(BROADCAST,4,2)", LANES64 // 4 * 4 + 2),
        ("swizzle(QUAD_PERM,3,0,0,1)", LANES64 // 4 * 4 + np.array([3, 0, 0, 1] * 16)),
        ('swizzle(BITMASK_PERM,"01pip")', LANES64 // 32 * 32 + 8 + (LANES64 & 7 ^ 2)),
        ("0x1f", LANES64),
        ("0x80b1", LANES64 // 4 * 4 + np.array([1, 0, 3, 2] * 16)),
    ],
)
def test_swizzle_patterns(pattern: str, source: np.ndarray[tuple[int], np.dtype[np.uint32]]) -> None:
    code = f"ds_swizzle_b32 v20, v10 offset:{pattern}\n{wait_lds('gfx942')}"
    assert np.array_equal(compute("gfx942", code, LANES64)[0], source)


def test_readlane_and_writelane() -> None:
    code = """
    v_readlane_b32 s10, v10, 7
    v_readfirstlane_b32 s11, v10
    v_mov_b32_e32 v20, s10
    v_writelane_b32 v20, s11, 3"""
    result = compute("gfx942", code, LANES64 + 100)[0]
    assert np.array_equal(result, np.where(LANES64 == 3, 100, 107))


def test_bpermute_and_swizzle() -> None:
    rotate = ((LANES64 + 5) % 64) * 4
    code = "ds_bpermute_b32 v20, v11, v10\nds_swizzle_b32 v21, v10 offset:swizzle(SWAP,16)\n"
    code += wait_lds("gfx942")
    result = compute("gfx942", code, LANES64, rotate, outputs=2)
    assert np.array_equal(result[0], (LANES64 + 5) % 64)
    assert np.array_equal(result[1], LANES64 ^ 16)


def test_permlane() -> None:
    result = compute("gfx1100", "s_mov_b32 s10, 0x76543210\nv_permlanex16_b32 v20, v10, s10, 0xfedcba98", LANES32)
    assert np.array_equal(result[0], LANES32 ^ 16)
    code = "v_mov_b32_e32 v20, v10\nv_mov_b32_e32 v21, v11\nv_permlane32_swap_b32_e32 v20, v21"
    low, high = compute("gfx950", code, LANES64, LANES64 + 100, outputs=2)
    assert np.array_equal(low, np.concatenate([LANES64[:32], LANES64[:32] + 100]))
    assert np.array_equal(high, np.concatenate([LANES64[32:], LANES64[32:] + 100]))


def test_bit_counting_of_lanes() -> None:
    code = "v_mbcnt_lo_u32_b32 v2, -1, 0\nv_mbcnt_hi_u32_b32 v20, -1, v2"
    assert np.array_equal(compute("gfx942", code, LANES64)[0], LANES64)
