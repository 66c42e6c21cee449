"""Dynamic counts: classes, bytes, widths and LDS bank conflicts of every wave, against counts made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from assembler import prologue, run, wait_lds, wait_loads

from amdgpu_sim.bank_conflicts import service_cycles
from amdgpu_sim.targets import TARGETS


def conflicts(target: str, size: int, write: bool, addresses: np.ndarray[tuple[int], np.dtype[np.int64]]) -> int:
    active = np.ones((1, len(addresses)), bool)
    return int(service_cycles(TARGETS[target], addresses[None], active, size, write)[1][0])


LANES = np.arange(64)


@pytest.mark.parametrize(("target", "size", "write", "cycles"), [
    ("gfx942", 4, False, 2), ("gfx942", 8, False, 4), ("gfx942", 16, False, 8), ("gfx942", 16, True, 8),
    ("gfx942", 1, False, 2), ("gfx950", 4, False, 1), ("gfx950", 8, False, 2), ("gfx950", 16, False, 4),
    ("gfx950", 16, True, 8), ("gfx1100", 4, False, 1), ("gfx1201", 16, False, 4), ("gfx90a", 8, True, 4),
])  # fmt: skip
def test_consecutive_accesses_have_no_conflict(target: str, size: int, write: bool, cycles: int) -> None:
    lanes = np.arange(TARGETS[target].wave_size)[None]
    taken, lost = service_cycles(TARGETS[target], lanes * size, lanes >= 0, size, write)
    assert (taken[0], lost[0]) == (cycles, 0)


def test_bank_conflicts_of_known_patterns() -> None:
    assert conflicts("gfx942", 4, False, LANES * 128) == 2 * 31  # one bank: 32 rows in each half-wave
    assert conflicts("gfx942", 4, False, LANES * 8) == 2  # every second bank: two rows each
    assert conflicts("gfx942", 4, False, LANES * 0) == 0  # one word for all
    assert conflicts("gfx950", 4, False, LANES * 8) == 1  # 64 banks, all lanes at once
    assert conflicts("gfx942", 4, False, LANES // 2 * 4) == 0  # two lanes share a word
    # eight lanes write 16 bytes each, 128 bytes apart: four banks of eight rows
    assert conflicts("gfx942", 16, True, LANES * 128) == 8 * 7
    # rows of 64 bytes: lanes 0-3 and 20-23 of a read lie in two pairs of equal bank groups
    assert conflicts("gfx942", 16, False, LANES * 64) == 8 * 3


def test_wide_reads_are_served_in_their_own_phases() -> None:
    """Lanes 0 to 3 read together with 20 to 23 and write together with 4 to 7: these addresses suit writes only."""
    slot = np.where(LANES // 16 % 2, LANES % 8 ^ 4, LANES % 8)
    addresses = 16 * slot + 128 * (LANES // 8)
    assert conflicts("gfx942", 16, True, addresses) == 0
    assert conflicts("gfx942", 16, False, addresses) == 8
    # 16 lanes at once, 32 bytes apart: lanes 0-3 and 20-23, as 12-15 and 24-27, meet in two rows of the same banks
    assert conflicts("gfx950", 16, False, 2 * addresses) == 4


def test_lanes_that_are_switched_off_do_not_conflict() -> None:
    active = (LANES % 32 < 2)[None]
    taken, lost = service_cycles(TARGETS["gfx942"], (LANES * 128)[None], active, 4, False)
    assert (taken[0], lost[0]) == (4, 2)
    taken, lost = service_cycles(TARGETS["gfx942"], (LANES * 128)[None], active & False, 4, False)
    assert (taken[0], lost[0]) == (0, 0)


def test_conflicts_and_bytes_of_a_run() -> None:
    body = f"""v_lshlrev_b32_e32 v1, 3, v0
    ds_write_b32 v1, v0
    {wait_lds("gfx942")}
    ds_read_b64 v[2:3], v1
    {wait_lds("gfx942")}"""
    report = run("gfx942", body, lds=1024, items=128)
    assert report.waves == 2
    assert report.lds_conflicts("lds_write") == 2 * 2
    assert report.lds_cycles("lds_write") == 2 * 4
    assert report.lds_conflicts("lds_read") == 0
    assert report.lds_cycles("lds_read", wave=1) == 4
    assert report.bytes("lds_write") == 128 * 4
    assert report.access_widths("lds_read") == {8: 2}
    assert "4 of 8 bank cycles are conflicts" in str(report)


def test_every_wave_is_counted_by_itself() -> None:
    """Wave 1 leaves early; wave 0 loops three times, in both work-groups."""
    body = f"""{prologue("gfx942")}
    v_readfirstlane_b32 s10, v0
    s_mov_b32 s11, 0
    s_cmp_lg_u32 s10, 0
    s_cbranch_scc1 .Lend
    .Lloop:
    v_mul_f32_e32 v2, 1.0, v0
    v_exp_f32_e32 v3, v2
    s_add_i32 s11, s11, 1
    s_cmp_lt_i32 s11, 3
    s_cbranch_scc1 .Lloop
    global_load_dwordx2 v[4:5], v1, s[4:5]
    {wait_loads("gfx942")}
    s_mov_b64 exec, 7
    global_store_dword v1, v4, s[6:7]
    .Lend:
    s_barrier"""
    source, result = np.zeros(65, np.uint32), np.zeros(64, np.uint32)
    for options in ({}, {"seed": 1}, {"seed": 2, "lockstep": False, "waves_per_batch": 2}):
        report = run("gfx942", body, source, result, items=128, groups=2, **options)
        for group in range(2):
            busy, idle = report.by_category(2 * group), report.by_category(2 * group + 1)
            assert (busy["valu"], busy["transcendental"], busy["branch"]) == (3 + 2, 3, 1 + 3 + 1)
            assert (idle["valu"], idle["branch"], idle["barrier"]) == (2, 2, 1)
            assert "transcendental" not in idle
            assert (report.bytes("global_load", 2 * group), report.bytes("global_store", 2 * group)) == (512, 12)
            assert report.bytes("global_load", 2 * group + 1) == 0
        assert report.access_widths("global_load") == {8: 2}
        assert report.bytes("scalar_load") == 4 * 16
        total = sum(sum(report.by_category(wave).values()) for wave in range(4))
        assert total == report.instructions == sum(report.by_category().values())


def test_bytes_are_those_of_the_lanes_inside_a_buffer() -> None:
    body = f"""{prologue("gfx942")}
    s_mov_b32 s10, 80
    s_mov_b32 s11, 0x27000
    s_mov_b64 s[8:9], s[4:5]
    buffer_load_dword v3, v1, s[8:11], 0 offen
    {wait_loads("gfx942")}"""
    report = run("gfx942", body, np.zeros(64, np.uint32), np.zeros(1, np.uint32))
    assert report.bytes("global_load") == 80
