"""The project's Triton kernels compiled for NVIDIA and executed as PTX, against the oracle."""

from __future__ import annotations

import pytest
import torch
from flash_attn.triton_amd.tuning import BackwardConfig, BackwardTile, ForwardConfig
from problems import compare_backward, compare_forward, failures

import ptx_sim
from flash_attn.testing import AttentionCase

FORWARD = ForwardConfig(block_m=32, block_n=32, num_warps=2)
# loads that run ahead of their use, by asynchronous copies
PIPELINED = ForwardConfig(block_m=64, block_n=32, num_warps=4, num_stages=3)
BACKWARD = BackwardConfig(BackwardTile(32, 32, num_warps=2), BackwardTile(32, 32, num_warps=2))
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16

CASES = {
    "causal_gqa": AttentionCase((70,), (90,), 4, 2, 64, 64, BF16, causal=True, backward=False),
    "full": AttentionCase((70,), (90,), 2, 2, 64, 64, F16, backward=False),
    "window": AttentionCase((70,), (120,), 2, 1, 32, 32, F32, window_size=(37, 11), backward=False),
    "dropout_alibi": AttentionCase((40,), (70,), 2, 1, 32, 32, BF16, dropout_p=0.3, alibi_dims=1, backward=False),
    "varlen": AttentionCase((5, 40, 0), (17, 80, 3), 4, 2, 32, 32, F16, varlen=True, causal=True, backward=False),
    "paged": AttentionCase((5, 40, 0), (17, 80, 3), 2, 2, 32, 32, BF16, varlen=True, page_size=16, backward=False),
}
BACKWARD_CASES = {
    "causal_gqa": AttentionCase((40,), (70,), 4, 2, 64, 64, BF16, causal=True),
    "varlen": AttentionCase((5, 40, 0), (17, 50, 3), 2, 1, 32, 32, F16, varlen=True, causal=True),
}


@pytest.mark.parametrize("name", CASES)
def test_forward_on_sm_80(name: str) -> None:
    with ptx_sim.triton_device("sm_80"):
        assert not failures(compare_forward(CASES[name], FORWARD))


def test_pipelined_forward_on_sm_80() -> None:
    case = AttentionCase((130,), (190,), 2, 1, 64, 64, BF16, causal=True, backward=False)
    with ptx_sim.triton_device("sm_80") as device:
        assert not failures(compare_forward(case, PIPELINED))
    assert device.last_report is not None
    counts = device.last_report.by_category()
    assert counts["matrix"] > 0
    assert counts["async_copy"] > 0


def test_forward_on_sm_90() -> None:
    case = AttentionCase((130,), (190,), 2, 1, 64, 64, BF16, causal=True, backward=False)
    with ptx_sim.triton_device("sm_90"):
        assert not failures(compare_forward(case, ForwardConfig(block_m=64, block_n=64, num_warps=4)))


@pytest.mark.parametrize("name", BACKWARD_CASES)
def test_backward_on_sm_80(name: str) -> None:
    with ptx_sim.triton_device("sm_80"):
        assert not failures(compare_backward(BACKWARD_CASES[name], BACKWARD))
