"""Prints how many wave-instructions a second the simulator runs for a flash-attention forward.

Run from the repository root: ``python -m benchmarks.simulator_speed [target ...]``. Compilation and
loading are left out (a first launch does both); all checks are on.
"""

from __future__ import annotations

import argparse
import time

import torch
import triton

import amdgpu_sim
from tests.amdgpu_sim.attention_kernels import attention_forward


def measure(target: str, seqlen: int, nheads: int, head_dim: int) -> tuple[int, float]:
    """Wave-instructions and seconds of the second of two equal launches."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, seqlen, nheads, head_dim, dtype=torch.bfloat16) for _ in range(3))
    out, lse = torch.empty_like(q), torch.empty(1, nheads, seqlen)
    seconds = 0.0
    with amdgpu_sim.triton_device(target) as device:
        for _ in range(2):
            begin = time.perf_counter()
            attention_forward[(triton.cdiv(seqlen, 64), nheads)](
                q, k, v, out, lse, *q.stride()[:3], head_dim**-0.5, seqlen, nheads, HEAD_DIM=head_dim,
                BLOCK_D=head_dim, CAUSAL=True, BLOCK_M=64, BLOCK_N=32, num_stages=2,
            )  # fmt: skip
            seconds = time.perf_counter() - begin
        report = device.last_report
    assert report is not None
    return report.instructions, seconds


def main() -> None:
    """Measure the targets named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", default=list(amdgpu_sim.TARGETS))
    arguments = parser.parse_args()
    for target in arguments.targets:
        instructions, seconds = measure(target, seqlen=512, nheads=4, head_dim=64)
        rate = instructions / seconds / 1e3
        print(f"{target:8s} {instructions:8d} wave-instructions {seconds:6.2f} s {rate:6.0f} thousand/s")


if __name__ == "__main__":
    main()
