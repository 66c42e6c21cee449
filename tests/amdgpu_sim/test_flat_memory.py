"""Flat addressing: global memory and LDS through one 64-bit address."""

from __future__ import annotations

import numpy as np
import pytest
from assembler import prologue, run

import amdgpu_sim

BOTH = [("gfx942", "dword", 64), ("gfx1100", "b32", 32), ("gfx1201", "b32", 32)]


def waits(target: str) -> str:
    return "s_wait_loadcnt_dscnt 0x0" if target == "gfx1201" else "s_waitcnt vmcnt(0) lgkmcnt(0)"


def address(target: str, register: str, base: str) -> str:
    """v[2:3] = base + v1."""
    vcc, carry = ("vcc", "v_addc_co_u32_e32") if target == "gfx942" else ("vcc_lo", "v_add_co_ci_u32_e32")
    low, high = (f"s{int(base) + n}" for n in (0, 1))
    first = int(register)
    return f"""v_mov_b32_e32 v{first + 1}, {high}
    v_mov_b32_e32 v9, 0
    v_add_co_u32 v{first}, {vcc}, {low}, v1
    {carry} v{first + 1}, {vcc}, v9, v{first + 1}, {vcc}"""


@pytest.mark.parametrize(("target", "dword", "lanes"), BOTH)
def test_global_copy_through_flat_addresses(target: str, dword: str, lanes: int) -> None:
    source, result = np.arange(lanes + 1, dtype=np.uint32) * 3, np.zeros(lanes, np.uint32)
    body = f"""{prologue(target)}
    {address(target, "2", "4")}
    {address(target, "4", "6")}
    flat_load_{dword} v6, v[2:3] offset:4
    {waits(target)}
    flat_store_{dword} v[4:5], v6"""
    report = run(target, body, source, result)
    assert np.array_equal(result, source[1:])
    assert report.bytes("global_load") == report.bytes("global_store") == 4 * lanes


@pytest.mark.parametrize(("target", "dword", "lanes"), BOTH)
def test_even_lanes_reach_lds_and_odd_lanes_memory(target: str, dword: str, lanes: int) -> None:
    source, result = np.arange(lanes, dtype=np.uint32), np.zeros(lanes, np.uint32)
    select = ("vcc", "v_cndmask_b32_e32 v{0}, v{0}, v{1}, vcc") if lanes == 64 else (
        "vcc_lo", "v_cndmask_b32_e32 v{0}, v{0}, v{1}, vcc_lo")  # fmt: skip
    body = f"""{prologue(target)}
    s_mov_b64 s[10:11], src_shared_base
    {address(target, "2", "4")}
    v_and_b32_e32 v6, 1, v0
    v_cmp_eq_u32_e32 {select[0]}, 0, v6
    v_mov_b32_e32 v7, s11
    {select[1].format(2, 1)}
    {select[1].format(3, 7)}
    v_sub_nc_u32_e32 v8, 0x3e8, v0
    flat_store_{dword} v[2:3], v8
    {waits(target)}
    flat_load_{dword} v10, v[2:3]
    {waits(target)}
    global_store_{dword} v1, v10, s[6:7]"""
    if lanes == 64:
        body = body.replace("v_sub_nc_u32", "v_sub_u32")
    report = run(target, body, source, result, lds=4 * lanes)
    lane = np.arange(lanes)
    assert np.array_equal(result, 1000 - lane)
    assert np.array_equal(source, np.where(lane % 2, 1000 - lane, lane))
    assert report.bytes("lds_read") == report.bytes("lds_write") == 2 * lanes


def test_flat_atomics() -> None:
    counter, result = np.full(64, 5, np.uint32), np.zeros(64, np.uint32)
    body = f"""{prologue("gfx942")}
    {address("gfx942", "2", "4")}
    flat_atomic_add v10, v[2:3], v0 sc0
    flat_atomic_add v[2:3], v0
    s_waitcnt vmcnt(0) lgkmcnt(0)
    global_store_dword v1, v10, s[6:7]"""
    run("gfx942", body, counter, result)
    assert (result == 5).all()
    assert np.array_equal(counter, 5 + 2 * np.arange(64))


def test_flat_loads_need_both_counters() -> None:
    body = f"{prologue('gfx942')}\n{address('gfx942', '2', '4')}\nflat_load_dword v6, v[2:3]\n"
    arrays = np.zeros(64, np.uint32), np.zeros(64, np.uint32)
    for wait in ("s_waitcnt vmcnt(0)", "s_waitcnt lgkmcnt(0)"):
        with pytest.raises(amdgpu_sim.MissingWaitError):
            run("gfx942", f"{body}{wait}\nv_mov_b32_e32 v7, v6", *arrays)


def test_what_flat_addresses_may_not_do() -> None:
    arrays = np.zeros(64, np.uint32), np.zeros(64, np.uint32)
    scratch = (
        f"{prologue('gfx942')}\ns_mov_b64 s[10:11], src_private_base\nv_mov_b32_e32 v2, v1\nv_mov_b32_e32 v3, s11\n"
    )
    with pytest.raises(amdgpu_sim.UnsupportedStateError, match="scratch aperture"):
        run("gfx942", scratch + "flat_load_dword v4, v[2:3]", *arrays)
    shared = scratch.replace("private", "shared")
    with pytest.raises(amdgpu_sim.UnsupportedStateError, match="atomics on LDS"):
        run("gfx942", shared + "flat_atomic_add v[2:3], v0", *arrays, lds=256)
    with pytest.raises(amdgpu_sim.OutOfBoundsError, match="LDS flat load"):
        run("gfx942", shared + "flat_load_dword v4, v[2:3]", *arrays, lds=252)
    with pytest.raises(amdgpu_sim.UninitialisedReadError, match="stored value"):
        run("gfx942", shared + "flat_store_dword v[2:3], v9", *arrays, lds=256)
    with pytest.raises(amdgpu_sim.UnsupportedInstructionError, match="vector registers"):
        run("gfx942", shared + "flat_store_dword v[2:3], s4", *arrays, lds=256)
