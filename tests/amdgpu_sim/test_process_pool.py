"""Several processes give what one gives: memory, counts and errors."""

from __future__ import annotations

from typing import Any

import attention_kernels as kernels
import numpy as np
import pytest
import torch
from assembler import prologue, run

import amdgpu_sim


def test_attention_on_two_processes_equals_one() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 150, 2, 32).half() for _ in range(3))
    results: list[Any] = []
    for processes in (1, 2, 4):
        out, lse = torch.full_like(q, float("nan")), torch.full((1, 2, 150), float("nan"))
        with amdgpu_sim.triton_device("gfx942", processes=processes) as device:
            kernels.attention_forward[(3, 2)](
                q, k, v, out, lse, *q.stride()[:3], 0.2, 150, 2, HEAD_DIM=32, BLOCK_D=32, CAUSAL=True,
                BLOCK_M=64, BLOCK_N=32,
            )  # fmt: skip
        results.append((out, lse, device.last_report))
    for out, lse, report in results[1:]:
        assert torch.equal(out, results[0][0])
        assert torch.equal(lse, results[0][1])
        for wave in (None, 0, 13, report.waves - 1):
            assert report.by_category(wave) == results[0][2].by_category(wave)
            assert report.bytes("global_load", wave) == results[0][2].bytes("global_load", wave)
            assert report.lds_cycles("lds_read", wave) == results[0][2].lds_cycles("lds_read", wave)


@pytest.mark.parametrize("name", ["global_atomic_add v1, v3, s[4:5]", "buffer_atomic_add v3, v1, s[8:11], 0 offen"])
def test_atomics_of_all_processes_add_up(name: str) -> None:
    counter, unused = np.zeros(64, np.uint32), np.zeros(1, np.uint32)
    body = f"""{prologue("gfx942")}
    v_mov_b32_e32 v3, 1
    s_mov_b64 s[8:9], s[4:5]
    s_mov_b32 s10, 256
    s_mov_b32 s11, 0x27000
    s_mov_b32 s12, 0
    .Lloop:
    {name}
    s_add_i32 s12, s12, 1
    s_cmp_lt_i32 s12, 100
    s_cbranch_scc1 .Lloop"""
    run("gfx942", body, counter, unused, groups=8, waves_per_batch=1, processes=4)
    assert (counter == 800).all()


def test_overlapping_allocations_stay_one_memory() -> None:
    """Both arguments are views of one array: what work-group 0 stores through the second, the first one shows."""
    whole = np.arange(128 + 32, dtype=np.uint32)
    body = f"""{prologue("gfx942")}
    s_lshl_b32 s3, s2, 8
    v_add_u32_e32 v1, s3, v1
    v_mov_b32_e32 v2, 7
    global_store_dword v1, v2, s[6:7]"""
    run("gfx942", body, whole[:96], whole[32:], groups=2, processes=2)
    assert np.array_equal(whole, np.where(np.arange(160) < 32, np.arange(160), 7))


def test_errors_of_a_worker_name_the_place() -> None:
    body = f"{prologue('gfx942')}\ns_lshl_b32 s3, s2, 8\nv_add_u32_e32 v1, s3, v1\nglobal_store_dword v1, v0, s[4:5]"
    result = np.zeros(64 * 3, np.uint32)
    with pytest.raises(amdgpu_sim.OutOfBoundsError, match=r"past the end of argument 0.*\n.*work-group \(3, 0, 0\)"):
        run("gfx942", body, result, np.zeros(1, np.uint32), groups=4, waves_per_batch=1, processes=2)
    assert np.array_equal(result, np.tile(np.arange(64), 3))


def test_number_of_processes_is_checked() -> None:
    with pytest.raises(ValueError, match="processes"):
        run("gfx942", "s_nop 0", processes=0)
