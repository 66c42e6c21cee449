"""Shuffles, votes and their kin against loops over the lanes, and the refusal of absent members."""

from __future__ import annotations

import numpy as np
import pytest
from snippets import compute, kernel, launch

import ptx_sim

LANES = np.arange(64, dtype=np.uint32)
VALUES = LANES * 3 + 1


def _shuffled(mode: str, lane: int, by: int, control: int) -> tuple[int, bool]:
    """The manual's pseudo-code."""
    clamp, segment = control & 31, control >> 8 & 31
    top, bottom = (lane & segment) | (clamp & ~segment & 31), lane & segment
    source = {"up": lane - by, "down": lane + by, "bfly": lane ^ by, "idx": bottom | (by & ~segment & 31)}[mode]
    found = source >= top if mode == "up" else source <= top
    return (source if found else lane), found


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
@pytest.mark.parametrize("width", [32, 8])
@pytest.mark.parametrize("by", [0, 1, 5, 16])
def test_shuffle(mode: str, width: int, by: int) -> None:
    control = ((32 - width) << 8) | (0 if mode == "up" else 31)
    body = f"shfl.sync.{mode}.b32 %d0|%p1, %x0, {by}, {control}, 0xffffffff; selp.u32 %d1, 1, 0, %p1;"
    result, found = compute(body, ["u4", "u4"], VALUES)
    for lane in range(64):
        source, inside = _shuffled(mode, lane % 32, by, control)
        assert (result[lane], found[lane]) == (VALUES[lane // 32 * 32 + source], inside)


def test_votes() -> None:
    body = """setp.gt.u32 %p1, %x0, 70;
vote.sync.ballot.b32 %d0, %p1, -1;
vote.sync.any.pred %p2, %p1, -1; selp.u32 %d1, 1, 0, %p2;
vote.sync.all.pred %p3, %p1, -1; selp.u32 %d2, 1, 0, %p3;
vote.sync.uni.pred %p4, %p1, -1; selp.u32 %d3, 1, 0, %p4;"""
    values = np.where(LANES < 32, LANES * 3, 100).astype(np.uint32)
    ballot, some, every, uniform = compute(body, ["u4"] * 4, values)
    assert ballot[0] == sum(1 << lane for lane in range(32) if 3 * lane > 70)
    assert [ballot[40], *some[[0, 40]], *every[[0, 40]], *uniform[[0, 40]]] == [0xFFFFFFFF, 1, 1, 0, 1, 0, 1]


def test_match_redux_and_elect() -> None:
    body = """match.any.sync.b32 %d0, %x0, -1;
redux.sync.add.u32 %d1, %x0, -1;
redux.sync.max.s32 %d2, %x0, -1;
elect.sync %r9|%p1, -1; selp.u32 %d3, 1, 0, %p1;
activemask.b32 %d4;"""
    values = (LANES % 5).astype(np.uint32)
    match, total, largest, elected, active = compute(body, ["u4"] * 5, values)
    for lane in range(64):
        warp = values[lane // 32 * 32 :][:32]
        assert match[lane] == sum(1 << n for n in range(32) if warp[n] == values[lane])
        assert (total[lane], largest[lane], elected[lane]) == (warp.sum(), 4, lane % 32 == 0)
    assert set(active.tolist()) == {0xFFFFFFFF}


def test_lane_masks_and_indices() -> None:
    body = "mov.u32 %d0, %laneid; mov.u32 %d1, %warpid; mov.u32 %d2, %lanemask_lt; mov.u32 %d3, %lanemask_ge;"
    lane, warp, below, above = compute(body, ["u4"] * 4, VALUES)
    assert lane.tolist() == (LANES % 32).tolist()
    assert warp.tolist() == (LANES // 32).tolist()
    assert below.tolist() == [(1 << (n % 32)) - 1 for n in range(64)]
    assert above.tolist() == [2**32 - (1 << (n % 32)) for n in range(64)]


def test_absent_members_are_refused() -> None:
    body = """setp.lt.u32 %p1, %r0, 8;
@!%p1 bra SKIP;
shfl.sync.bfly.b32 %r2, %r0, 1, 31, 0xffffffff;
SKIP:"""
    with pytest.raises(ptx_sim.DivergenceError, match=r"shfl\.sync names threads 0xffffffff"):
        launch(kernel(body), None)


def test_a_shuffle_of_the_members_alone() -> None:
    body = """mov.u32 %d0, 99;
setp.lt.u32 %p1, %x0, 8;
@!%p1 bra SKIP;
shfl.sync.bfly.b32 %d0, %x0, 1, 31, 0xff;
SKIP:"""
    result = compute(body, "u4", np.arange(32, dtype=np.uint32))
    assert result.tolist() == [lane ^ 1 if lane < 8 else 99 for lane in range(32)]
