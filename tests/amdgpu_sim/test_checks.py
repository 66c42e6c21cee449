"""Every checker fires on the bug it exists for and stays silent without it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from assembler import assemble, compute, prologue, run, wait_lds, wait_loads

import amdgpu_sim

TARGETS = list(amdgpu_sim.TARGETS)
BOTH = ["gfx942", "gfx1100", "gfx1201"]


def dword(target: str) -> str:
    return "dword" if target.startswith("gfx9") else "b32"


def data(target: str, count: int = 4) -> np.ndarray[Any, Any]:
    return np.arange(amdgpu_sim.TARGETS[target].wave_size * count, dtype=np.uint32)


def lds(target: str, op: str) -> str:
    old = {"load": "ds_read_b32", "store": "ds_write_b32"}
    return old[op] if target.startswith("gfx9") else f"ds_{op}_b32"


def barrier(target: str) -> str:
    return "s_barrier_signal -1\ns_barrier_wait -1" if target == "gfx1201" else "s_barrier"


@pytest.mark.parametrize("target", TARGETS)
def test_copy_is_silent(target: str) -> None:
    source, result = data(target), np.zeros_like(data(target))
    body = f"{prologue(target)}\nglobal_load_{dword(target)} v2, v1, s[4:5]\n{wait_loads(target)}\n"
    run(target, body + f"global_store_{dword(target)} v1, v2, s[6:7]", source, result, items=len(source))
    assert np.array_equal(source, result)


@pytest.mark.parametrize("target", TARGETS)
def test_missing_load_wait_is_reported(target: str) -> None:
    body = f"{prologue(target)}\nglobal_load_{dword(target)} v2, v1, s[4:5]\n"
    with pytest.raises(amdgpu_sim.MissingWaitError, match="before a wait covers it"):
        run(target, body + "v_add_f32_e32 v3, v2, v2", data(target), data(target))


@pytest.mark.parametrize("target", TARGETS)
def test_too_weak_load_wait_is_reported(target: str) -> None:
    weak = "s_wait_loadcnt 0x1" if target == "gfx1201" else "s_waitcnt vmcnt(1)"
    load = f"global_load_{dword(target)}"
    body = f"{prologue(target)}\n{load} v2, v1, s[4:5]\n{load} v3, v1, s[4:5]\n{weak}\n"
    run(target, body + "v_mov_b32_e32 v4, v2", data(target), data(target))
    with pytest.raises(amdgpu_sim.MissingWaitError):
        run(target, body + "v_mov_b32_e32 v4, v3", data(target), data(target))


@pytest.mark.parametrize("target", TARGETS)
def test_missing_scalar_wait_is_reported(target: str) -> None:
    load = "s_load_dwordx2" if target.startswith("gfx9") else "s_load_b64"
    with pytest.raises(amdgpu_sim.MissingWaitError):
        run(target, f"{load} s[4:5], s[0:1], 0x0\ns_add_i32 s6, s4, 1", data(target))


@pytest.mark.parametrize("target", TARGETS)
def test_missing_lds_wait_is_reported(target: str) -> None:
    body = f"v_lshlrev_b32_e32 v1, 2, v0\nv_mov_b32_e32 v2, 1.0\n{lds(target, 'store')} v1, v2\n"
    body += f"{lds(target, 'load')} v3, v1\n"
    run(target, body + f"{wait_lds(target)}\nv_mov_b32_e32 v4, v3", lds=256)
    with pytest.raises(amdgpu_sim.MissingWaitError):
        run(target, body + "v_mov_b32_e32 v4, v3", lds=256)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", ["load", "store"])
def test_global_access_out_of_bounds_names_the_place(target: str, kind: str) -> None:
    source = data(target, 1)[:-1].copy()
    access = f"global_load_{dword(target)} v2, v1, s[4:5]"
    if kind == "store":
        access = f"global_store_{dword(target)} v1, v0, s[4:5]"
    last = amdgpu_sim.TARGETS[target].wave_size - 1
    with pytest.raises(amdgpu_sim.OutOfBoundsError, match=rf"past the end of argument 0.*\n.*work-group.*lane {last}"):
        run(target, f"{prologue(target, 1)}\n{access}", source)


def test_an_access_over_the_end_of_all_addresses_is_reported() -> None:
    memory = amdgpu_sim.GlobalMemory()
    memory.add(4096, np.zeros(64, np.uint8), "array")
    addresses, where = np.array([4096, 2**64 - 2], np.uint64), np.ones((1, 2), bool)
    with pytest.raises(amdgpu_sim.OutOfBoundsError, match=r"load of 4 bytes at 0xfffffffffffffffe: .* past the end"):
        memory.load(None, where, addresses, 4)  # type: ignore[arg-type]


def test_store_to_kernel_arguments_is_reported() -> None:
    with pytest.raises(amdgpu_sim.OutOfBoundsError, match="read-only"):
        run("gfx942", "v_mov_b32_e32 v1, 0\nglobal_store_dword v1, v0, s[0:1]", data("gfx942"))


@pytest.mark.parametrize("target", TARGETS)
def test_lds_out_of_bounds_is_reported(target: str) -> None:
    body = f"v_lshlrev_b32_e32 v1, 2, v0\n{lds(target, 'store')} v1, v0"
    run(target, body, lds=256)
    with pytest.raises(amdgpu_sim.OutOfBoundsError, match="LDS store"):
        run(target, body + " offset:132", lds=256)


@pytest.mark.parametrize("target", ["gfx942", "gfx1100", "gfx1201"])
def test_scratch_out_of_bounds_is_reported(target: str) -> None:
    store = f"scratch_store_{dword(target)} off, v0, off"
    run(target, f"{store} offset:4", scratch=8)
    with pytest.raises(amdgpu_sim.OutOfBoundsError, match="scratch store"):
        run(target, f"{store} offset:8", scratch=8)


@pytest.mark.parametrize("target", TARGETS)
def test_uninitialised_value_reaching_memory_is_reported(target: str) -> None:
    body = f"{prologue(target)}\nv_add_f32_e32 v3, v9, v0\n"
    run(target, body, data(target), data(target))
    with pytest.raises(amdgpu_sim.UninitialisedReadError, match="stored value"):
        run(target, body + f"global_store_{dword(target)} v1, v3, s[6:7]", data(target), data(target))
    with pytest.raises(amdgpu_sim.UninitialisedReadError, match="address"):
        run(target, body + f"global_load_{dword(target)} v4, v3, s[4:5]", data(target), data(target))


@pytest.mark.parametrize("target", TARGETS)
def test_uninitialised_branch_is_reported(target: str) -> None:
    with pytest.raises(amdgpu_sim.UninitialisedReadError, match="branch condition"):
        run(target, "s_cmp_eq_u32 s20, 0\ns_cbranch_scc1 .L\n.L:\ns_nop 0")


@pytest.mark.parametrize("target", TARGETS)
def test_uninitialised_lds_is_followed(target: str) -> None:
    body = f"{prologue(target)}\n{lds(target, 'load')} v2, v1\n{wait_lds(target)}\n"
    run(target, body, data(target), data(target), lds=256)
    with pytest.raises(amdgpu_sim.UninitialisedReadError):
        run(
            target,
            body + f"global_store_{dword(target)} v1, v2, s[6:7]",
            data(target),
            data(target),
            lds=256,
        )


@pytest.mark.parametrize("lockstep", [True, False])
@pytest.mark.parametrize("target", TARGETS)
def test_lds_races_are_reported(target: str, lockstep: bool) -> None:
    size = amdgpu_sim.TARGETS[target].wave_size
    write = f"v_lshlrev_b32_e32 v1, 2, v0\n{lds(target, 'store')} v1, v0\n{wait_lds(target)}\n"
    other = f"v_xor_b32_e32 v2, {hex(4 * size)}, v1\n{lds(target, 'load')} v3, v2\n{wait_lds(target)}\n"
    options = {"lds": 8 * size, "items": 2 * size, "lockstep": lockstep, "seed": 1}
    run(target, write + barrier(target) + "\n" + other, **options)
    with pytest.raises(amdgpu_sim.LdsRaceError, match="after a"):
        run(target, write + other, **options)
    rewrite = f"{lds(target, 'store')} v1, v2\n{wait_lds(target)}\n"
    run(target, write + barrier(target) + "\n" + other + barrier(target) + "\n" + rewrite, **options)
    with pytest.raises(amdgpu_sim.LdsRaceError, match="after a"):
        run(target, write + barrier(target) + "\n" + other + rewrite, **options)
    run(target, write + other, **options, check_races=False)


@pytest.mark.parametrize("target", TARGETS)
def test_two_waves_writing_one_place_is_a_race_unless_equal(target: str) -> None:
    size = amdgpu_sim.TARGETS[target].wave_size
    body = f"v_and_b32_e32 v1, {size - 1}, v0\nv_lshlrev_b32_e32 v1, 2, v1\n"
    run(target, body + f"{lds(target, 'store')} v1, v1", lds=4 * size, items=2 * size)
    with pytest.raises(amdgpu_sim.LdsRaceError, match="write"):
        run(target, body + f"{lds(target, 'store')} v1, v0", lds=4 * size, items=2 * size)


def test_endless_loop_is_stopped() -> None:
    with pytest.raises(amdgpu_sim.DeadlockError):
        run("gfx942", ".L:\ns_nop 0\ns_branch .L", max_instructions=1000)


@pytest.mark.parametrize(
    "line",
    ["v_frobnicate_b32 v0, v1", "v_add_f32_e32 v0, v1", "v_add_f32_e32 v0, v1, q3",
     "v_add_f32_e64 v0, v1, v2 wobble:1", "ds_read_b32 v0, v1 offset:4 row_shr:1", "s_cbranch_scc0 .Lnowhere",
     "v_mfma_f32_16x16x16_f16 v[0:3], v[4:5], v[6:7], v[0:3] cbsz:1"],
)  # fmt: skip
def test_unknown_code_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(amdgpu_sim.UnsupportedInstructionError, match="line 4"):
        assemble("gfx942", line)


def test_matrix_instruction_of_another_target_is_refused() -> None:
    with pytest.raises(amdgpu_sim.UnsupportedInstructionError, match="has no MFMA"):
        assemble("gfx1100", "v_mfma_f32_16x16x16_f16 v[0:3], v[4:5], v[6:7], v[0:3]")


def test_lanes_that_branch_apart_meet_again() -> None:
    code = """
    v_cmp_gt_u32_e32 vcc, 3, v10
    s_and_saveexec_b64 s[10:11], vcc
    v_mov_b32_e32 v20, 7
    s_xor_b64 exec, exec, s[10:11]
    v_mov_b32_e32 v20, 9
    s_mov_b64 exec, s[10:11]"""
    result = compute("gfx942", code, np.arange(64, dtype=np.uint32))
    assert np.array_equal(result[0], np.where(np.arange(64) < 3, 7, 9))


def published(target: str, before: str, after: str = "", count: int = 1) -> str:
    """Every wave stores, passes a barrier and reads what another wave stored."""
    size = amdgpu_sim.TARGETS[target].wave_size
    body = f"v_lshlrev_b32_e32 v1, 2, v0\nv_xor_b32_e32 v2, {hex(4 * size)}, v1\n"
    body += f"{lds(target, 'store')} v1, v0\n" * count
    return f"{body}{before}\n{barrier(target)}\n{after}\n{lds(target, 'load')} v3, v2\n{wait_lds(target)}\n"


@pytest.mark.parametrize("lockstep", [True, False])
@pytest.mark.parametrize("target", TARGETS)
def test_store_not_waited_for_before_the_barrier_is_a_race(target: str, lockstep: bool) -> None:
    size = amdgpu_sim.TARGETS[target].wave_size
    options: dict[str, Any] = {"lds": 8 * size, "items": 2 * size, "lockstep": lockstep, "seed": 1}
    run(target, published(target, wait_lds(target)), **options)
    with pytest.raises(amdgpu_sim.LdsRaceError, match="did not wait for it before the barrier"):
        run(target, published(target, ""), **options)
    # a wait that comes after the barrier does not publish, one before the next barrier does
    with pytest.raises(amdgpu_sim.LdsRaceError, match="did not wait for it"):
        run(target, published(target, "", wait_lds(target)), **options)
    run(target, published(target, "", wait_lds(target) + "\n" + barrier(target)), **options)
    run(target, published(target, ""), **options, check_waits=False)


@pytest.mark.parametrize("target", TARGETS)
def test_store_in_flight_that_nobody_reads_is_no_race(target: str) -> None:
    """The second store of a wave is still in flight at the barrier; other waves read only the first."""
    size = amdgpu_sim.TARGETS[target].wave_size
    one = "s_wait_dscnt 0x1" if target == "gfx1201" else "s_waitcnt lgkmcnt(1)"
    body = f"{lds(target, 'store')} v1, v0 offset:{8 * size}\n{one}"
    run(target, published(target, body), lds=16 * size, items=2 * size)
    late = published(target, body).replace(
        f"{lds(target, 'load')} v3, v2", f"{lds(target, 'load')} v3, v2 offset:{8 * size}"
    )
    with pytest.raises(amdgpu_sim.LdsRaceError, match="did not wait for it"):
        run(target, late, lds=16 * size, items=2 * size)


@pytest.mark.parametrize("lockstep", [True, False])
def test_stores_of_a_wave_that_ended_are_complete(lockstep: bool) -> None:
    """Wave 0 stores and ends; wave 1 passes a barrier with a store of its own in flight and reads wave 0's."""
    body = """v_lshlrev_b32_e32 v1, 2, v0
    v_xor_b32_e32 v2, 0x100, v1
    v_readfirstlane_b32 s10, v0
    ds_write_b32 v1, v0
    s_cmp_eq_u32 s10, 0
    s_cbranch_scc1 .Lend
    s_barrier
    ds_read_b32 v3, v2
    s_waitcnt lgkmcnt(0)
    .Lend:
    s_nop 0"""
    run("gfx942", body, lds=512, items=128, lockstep=lockstep, seed=1)


def direct_load(wait: str, exchange: str) -> str:
    return f"""{prologue("gfx942")}
    v_readfirstlane_b32 s10, v1
    s_mov_b32 m0, s10
    s_nop 0
    global_load_lds_dword v1, s[4:5]
    {wait}
    v_xor_b32_e32 v2, {exchange}, v1
    ds_read_b32 v3, v2
    s_waitcnt lgkmcnt(0)
    global_store_dword v1, v3, s[6:7]"""


@pytest.mark.parametrize("items", [64, 128])
def test_load_straight_to_lds_is_read_after_its_wait(items: int) -> None:
    source, result = np.arange(items, dtype=np.uint32), np.zeros(items, np.uint32)
    run("gfx942", direct_load("s_waitcnt vmcnt(0)", "0"), source, result, items=items, lds=4 * items)
    assert np.array_equal(source, result)
    with pytest.raises(amdgpu_sim.MissingWaitError, match="straight to LDS"):
        run("gfx942", direct_load("s_nop 0", "0"), source, result, items=items, lds=4 * items)


def test_load_straight_to_lds_is_published_by_its_wait() -> None:
    source, result = np.arange(128, dtype=np.uint32), np.zeros(128, np.uint32)
    options: dict[str, Any] = {"items": 128, "lds": 512}
    run("gfx942", direct_load("s_waitcnt vmcnt(0)\ns_barrier", "0x100"), source, result, **options)
    assert np.array_equal(result, source ^ 64)
    with pytest.raises(amdgpu_sim.LdsRaceError, match="did not wait for it"):
        run("gfx942", direct_load("s_barrier\ns_waitcnt vmcnt(0)", "0x100"), source, result, **options)


@pytest.mark.parametrize("target", ["gfx942", "gfx1100", "gfx1201"])
def test_uninitialised_scratch_is_followed(target: str) -> None:
    load = f"scratch_load_{dword(target)} v2, off, off\n{wait_loads(target)}\n"
    body, store = prologue(target), f"global_store_{dword(target)} v1, v2, s[6:7]"
    run(target, f"{body}\n{load}", data(target), data(target), scratch=8)
    written = f"scratch_store_{dword(target)} off, v0, off\n{load}{store}"
    run(target, f"{body}\n{written}", data(target), data(target), scratch=8)
    with pytest.raises(amdgpu_sim.UninitialisedReadError, match="stored value"):
        run(target, f"{body}\n{load}{store}", data(target), data(target), scratch=8)


@pytest.mark.parametrize("code", ["s_mov_b64 exec, s[20:21]", "s_and_saveexec_b64 s[10:11], s[20:21]",
                                  "v_cmpx_eq_u32_e64 s[10:11], v0, v9"])  # fmt: skip
def test_exec_from_nothing_is_reported(code: str) -> None:
    with pytest.raises(amdgpu_sim.UninitialisedReadError, match="EXEC"):
        run("gfx942", code)


@pytest.mark.parametrize("branch", ["s_cbranch_vccz", "s_cbranch_vccnz"])
def test_branch_on_vcc_from_nothing_is_reported(branch: str) -> None:
    run("gfx942", f"v_cmp_eq_u32_e32 0, v0\n{branch} .L\n.L:\ns_nop 0")
    with pytest.raises(amdgpu_sim.UninitialisedReadError, match="branch condition"):
        run("gfx942", f"{branch} .L\n.L:\ns_nop 0")


def last_writer(seed: int | None, **options: Any) -> tuple[int, int]:
    """Every wave of every work-group stores its number to one place: the last work-group and wave win."""
    size = 64
    result = np.zeros(2, np.uint32)
    body = """s_load_dwordx2 s[4:5], s[0:1], 0x0
    s_waitcnt lgkmcnt(0)
    v_mov_b32_e32 v1, 0
    v_mov_b32_e32 v2, s2
    v_lshrrev_b32_e32 v3, 6, v0
    global_store_dword v1, v2, s[4:5]
    global_store_dword v1, v3, s[4:5] offset:4"""
    run("gfx942", body, result, groups=16, items=4 * size, seed=seed, **options)
    return int(result[0]), int(result[1])


def test_seeds_shuffle_work_groups_and_waves() -> None:
    """A kernel that depends on their order gives different results for different seeds, the same for the same."""
    assert last_writer(None) == (15, 3)
    for options in ({}, {"lockstep": False}, {"lockstep": False, "waves_per_batch": 4}):
        results = [last_writer(seed, **options) for seed in range(8)]
        assert results == [last_writer(seed, **options) for seed in range(8)]
        assert len({group for group, _ in results}) > 1
        assert len({wave for _, wave in results}) > 1


def test_faults_name_the_source_line() -> None:
    program = assemble("gfx942", '.file 1 "kernels" "attention.py"\n.loc 1 42 7\nds_write_b32 v0, v0\n', lds=60)
    with pytest.raises(amdgpu_sim.OutOfBoundsError, match=r"attention\.py:42.*work-group \(1, 0, 0\), wave 0, lane 57"):
        program.launch((2,), (64,), [None, None], seed=1)
    program.launch((2,), (57,), [None, None])
