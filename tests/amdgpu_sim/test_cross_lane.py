"""EXEC, loops and instructions that move values between lanes."""

# mypy: disable-error-code="arg-type,call-arg,no-any-return"

from __future__ import annotations

import numpy as np
import pytest
from assembler import assemble, compute, wait_lds

import amdgpu_sim

LANES64, LANES32 = np.arange(64, dtype=np.uint32), np.arange(32, dtype=np.uint32)


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


def test_permlane16_picks_lanes_of_the_own_row() -> None:
    code = "s_mov_b32 s10, 0x33221100\nv_permlane16_b32 v20, v10, s10, 0x76543210"
    picked = np.array([0, 0, 1, 1, 2, 2, 3, 3, 0, 1, 2, 3, 4, 5, 6, 7])
    assert np.array_equal(compute("gfx1100", code, LANES32)[0], np.concatenate([picked, picked + 16]))


def test_permlane16_with_inactive_lanes() -> None:
    """Inactive sources keep the destination, give zero with bound control, or are read anyway with fetch-inactive."""
    setup = "v_mov_b32_e32 v20, 0x63\ns_mov_b32 s10, 0x10325476\ns_mov_b32 exec_lo, 0x0000fff1\n"
    swap = "v_permlane16_b32 v20, v10, s10, 0x98badcfe{}\ns_mov_b32 exec_lo, -1"
    source = np.array([6, 7, 4, 5, 2, 3, 0, 1, 14, 15, 12, 13, 10, 11, 8, 9])
    active = np.array([lane in (0, *range(4, 16)) for lane in range(16)])
    for modifier, missing in (("", 0x63), (" op_sel:[0,1]", 0), (" op_sel:[1,0]", None)):
        result = compute("gfx1100", setup + swap.format(modifier), LANES32)[0][:16]
        moved = source if missing is None else np.where(active[source], source, missing)
        assert np.array_equal(result, np.where(active, moved, 0x63))


def test_permlane16_swap() -> None:
    code = "v_mov_b32_e32 v20, v10\nv_mov_b32_e32 v21, v11\nv_permlane16_swap_b32_e32 v20, v21"
    low, high = compute("gfx950", code, LANES64, LANES64 + 100, outputs=2)
    odd = LANES64 // 16 % 2 == 1
    assert np.array_equal(low, np.where(odd, LANES64 - 16 + 100, LANES64))
    assert np.array_equal(high, np.where(odd, LANES64 + 100, LANES64 + 16))
    with pytest.raises(amdgpu_sim.UnsupportedStateError, match="inactive lanes"):
        compute("gfx950", "s_mov_b64 exec, 1\n" + code, LANES64, LANES64)


UNDEFINED = "s_mov_b32 exec_lo, 0xffff00ff\nv_mov_b32_e32 v2, v10\nv_mov_b32_e32 v3, v10\ns_mov_b32 exec_lo, -1\n"


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("v_readlane_b32 s10, v2, 3\nv_mov_b32_e32 v20, s10", "v_readlane_b32 s10, v2, 9\nv_mov_b32_e32 v20, s10"),
        (
            "v_readfirstlane_b32 s10, v2\nv_mov_b32_e32 v20, s10",
            "s_mov_b32 exec_lo, 0x100\nv_readfirstlane_b32 s10, v2\ns_mov_b32 exec_lo, -1\nv_mov_b32_e32 v20, s10",
        ),
        (
            "v_mov_b32_e32 v20, 0\nv_mov_b32_dpp v20, v2 quad_perm:[0,0,0,0] row_mask:0xf bank_mask:0x3",
            "v_mov_b32_e32 v20, 0\nv_mov_b32_dpp v20, v2 quad_perm:[0,0,0,0] row_mask:0xf bank_mask:0xf",
        ),
        (
            "v_mov_b32_e32 v20, 0\nv_add_nc_u32_dpp v20, v2, v10 row_share:0 row_mask:0xf bank_mask:0xf",
            "v_mov_b32_e32 v20, 0\nv_add_nc_u32_dpp v20, v2, v10 row_share:8 row_mask:0xf bank_mask:0xf",
        ),
        ("v_permlanex16_b32 v20, v2, 0, 0", "s_mov_b32 s10, 8\nv_permlanex16_b32 v20, v2, s10, 0"),
        (
            "v_mov_b32_e32 v4, 0\nds_bpermute_b32 v20, v4, v2\ns_waitcnt lgkmcnt(0)",
            "v_mov_b32_e32 v4, 36\nds_bpermute_b32 v20, v4, v2\ns_waitcnt lgkmcnt(0)",
        ),
        (
            "s_mov_b32 s10, 0xff\nv_cndmask_b32_e64 v20, v10, v2, s10",
            "s_mov_b32 s10, 0x1ff\nv_cndmask_b32_e64 v20, v10, v2, s10",
        ),
        (
            "v_mov_b32_e32 v20, v10\ns_mov_b32 s10, 1\nv_writelane_b32 v20, s10, 3",
            "v_mov_b32_e32 v20, v10\nv_writelane_b32 v20, s11, 3",
        ),
    ],
)
def test_undefined_lanes_are_followed(good: str, bad: str) -> None:
    """Lanes 8 to 15 of v2 are undefined: taking other lanes is fine, taking one of them is reported."""
    compute("gfx1100", UNDEFINED + good, LANES32)
    with pytest.raises(amdgpu_sim.UninitialisedReadError):
        compute("gfx1100", UNDEFINED + bad, LANES32)


@pytest.mark.parametrize(("target", "line", "why"), [
    ("gfx942", "v_readlane_b32 s4, s5, 0", "vector register expected"),
    ("gfx942", "ds_swizzle_b32 v1, v0 offset:swizzle(BITMASK_PERM,7)", "swizzle pattern"),
    ("gfx942", "ds_swizzle_b32 v1, v0 offset:swizzle", "swizzle pattern"),
    ("gfx1100", "v_mov_b32_dpp v1, v0 row_mask:0xf bank_mask:0xf", "DPP control expected"),
    ("gfx1100", "v_mov_b32_dpp v1, v0 row_shl:1 row_mask:0xf bank_mask:0xf fi:1", "fi:1"),
])  # fmt: skip
def test_what_is_refused(target: str, line: str, why: str) -> None:
    with pytest.raises(amdgpu_sim.UnsupportedInstructionError, match=why):
        assemble(target, line)
