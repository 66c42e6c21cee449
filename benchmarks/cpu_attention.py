"""The cpu backend through the public functions, against PyTorch's scaled_dot_product_attention.

``python -m benchmarks.cpu_attention [--quick] [--json PATH]``

Both read the same tensors, laid out ``(batch, seqlen, nheads, head_dim)``; PyTorch gets them transposed, as views.
Runs alternate; the table gives the ratio of median times and the quartiles of the ratio over rounds. Memory is
the growth of the peak resident size of a fresh process over its size before the call, less the results.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

import flash_attn
from benchmarks.timing import Progress, compare

MEMORY_GOAL_MIB = 64.0


class Case(NamedTuple):
    """One row of the table; ``goal`` belongs to the group, whose geometric mean is held against it."""

    group: str
    goal: float
    dtype: torch.dtype
    seqlen: int
    head_dim: int
    causal: bool

    @property
    def label(self) -> str:
        """What is measured, within its group."""
        return f"s{self.seqlen} d{self.head_dim}{' causal' if self.causal else ''}"


def cases(quick: bool) -> Iterator[Case]:
    """Every measured case."""
    seqlens = (512,) if quick else (512, 2048, 4096)
    shapes = list(itertools.product(seqlens, (64, 128), (False, True)))
    for seqlen, head_dim, causal in shapes:
        yield Case("forward bf16", 3.0, torch.bfloat16, seqlen, head_dim, causal)
    for seqlen, head_dim, causal in shapes:
        yield Case("backward bf16", 1.5, torch.bfloat16, seqlen, head_dim, causal)
    for seqlen, head_dim, causal in sorted(shapes, key=lambda shape: shape[2]):
        group, goal = ("forward fp32 causal", 1.25) if causal else ("forward fp32", 0.95)
        yield Case(group, goal, torch.float32, seqlen, head_dim, causal)
    for seqlen, head_dim, causal in shapes:
        yield Case("forward fp16", 2.5, torch.float16, seqlen, head_dim, causal)
    for dtype, goal in ((torch.bfloat16, 15.0), (torch.float32, 2.0)):
        for seqlen in (4096,) if quick else (4096, 16384):
            yield Case(f"decode {'bf16' if goal == 15.0 else 'fp32'}", goal, dtype, seqlen, 128, False)


def contenders(case: Case) -> tuple[Callable[[], object], Callable[[], object]]:
    """Our call and PyTorch's for a case."""
    if case.group.startswith("decode"):
        return _decode_contenders(case)
    q, k, v, dout = (torch.randn(1, case.seqlen, 8, case.head_dim).to(case.dtype) for _ in range(4))
    if case.group.startswith("forward"):
        return (
            lambda: flash_attn.flash_attn_func(q, k, v, causal=case.causal),
            lambda: _peer(q, k, v, is_causal=case.causal),
        )
    leaves = [x.requires_grad_() for x in (q, k, v)]
    ours = flash_attn.flash_attn_func(q, k, v, causal=case.causal)
    peer = _peer(q, k, v, is_causal=case.causal)
    assert isinstance(ours, Tensor)
    return (
        lambda: torch.autograd.grad(ours, leaves, dout, retain_graph=True),
        lambda: torch.autograd.grad(peer, leaves, dout.transpose(1, 2), retain_graph=True),
    )


def _peer(q: Tensor, k: Tensor, v: Tensor, is_causal: bool = False, enable_gqa: bool = False) -> Tensor:
    """PyTorch's attention on the same tensors, transposed as views."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, enable_gqa=enable_gqa)


def _decode_contenders(case: Case) -> tuple[Callable[[], object], Callable[[], object]]:
    q = torch.randn(1, 1, 32, case.head_dim).to(case.dtype)
    k, v = (torch.randn(1, case.seqlen, 8, case.head_dim).to(case.dtype) for _ in range(2))
    return (
        lambda: flash_attn.flash_attn_with_kvcache(q, k, v, cache_seqlens=case.seqlen),
        lambda: _peer(q, k, v, enable_gqa=True),
    )


def measure_memory(backward: bool, seqlen: int) -> float:
    """Peak resident growth in MiB of one bf16 call (b1 h8 d64) in this process, less its results."""
    shape = (1, seqlen, 8, 64)
    q, k, v, dout = (torch.randn(1, 64, 8, 64, dtype=torch.bfloat16).requires_grad_() for _ in range(4))
    torch.autograd.grad(flash_attn.flash_attn_func(q, k, v), (q, k, v), dout.detach())
    q, k, v, dout = (torch.ones(shape, dtype=torch.bfloat16).normal_() for _ in range(4))
    leaves = [x.requires_grad_(backward) for x in (q, k, v)]
    out = flash_attn.flash_attn_func(q, k, v) if backward else None
    assert out is None or isinstance(out, Tensor)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _status_kib("VmRSS")
    results = [flash_attn.flash_attn_func(q, k, v)] if out is None else torch.autograd.grad(out, leaves, dout)
    peak = _status_kib("VmHWM")
    size = sum(x.numel() * x.element_size() for x in results if isinstance(x, Tensor))
    return (peak - before) / 1024 - size / 2**20


def _status_kib(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def product_rate(dtype: torch.dtype) -> float:
    """GFLOP/s of a square matrix product on this machine: the ceiling of every figure above it."""
    size = 1024
    x = torch.randn(size, size).to(dtype)
    best = math.inf
    for _ in range(20):
        start = time.perf_counter()
        torch.mm(x, x)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e9


def attention_rate(case: Case, seconds: float) -> float:
    """GFLOP/s of a forward call over all of its scores, whether a mask hides them or not."""
    return 4 * 8 * case.seqlen**2 * case.head_dim / seconds / 1e9


def main() -> None:
    """Measure, print the table, write JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the smallest shapes only, few rounds")
    parser.add_argument("--json", type=Path, help="also write one JSON object a line to this file")
    parser.add_argument("--memory", choices=("forward", "backward"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    seqlen = 2048 if options.quick else 16384
    if options.memory:
        print(measure_memory(options.memory == "backward", seqlen))
        return
    torch.manual_seed(0)
    todo = list(cases(options.quick))
    progress = Progress(len(todo) + 2)
    records: list[dict[str, object]] = []
    ratios: dict[str, list[float]] = {}
    for case in todo:
        progress.step(f"{case.group} {case.label}")
        result = compare(*contenders(case), seconds=0.5 if options.quick else 3.0, rounds=30)
        ratios.setdefault(case.group, []).append(result.ratio)
        record = {"group": case.group, "case": case.label, **result._asdict()}
        rates = ""
        if case.group.startswith("forward"):
            record["ours_gflops"], record["peer_gflops"] = (
                attention_rate(case, seconds) for seconds in (result.ours, result.peer)
            )
            rates = f"  {record['ours_gflops']:.0f} / {record['peer_gflops']:.0f} GFLOP/s"
        records.append(record)
        print(
            f"{case.group:20} {case.label:18} {result.ours * 1e3:9.2f} ms {result.peer * 1e3:9.2f} ms"
            f"  x{result.ratio:.2f} ({result.low:.2f} - {result.high:.2f}){rates}",
            flush=True,
        )
    for dtype in (torch.bfloat16, torch.float32):
        rate = product_rate(dtype)
        records.append({"group": "matrix product", "case": str(dtype), "gflops": rate})
        print(f"matrix product       {dtype!s:18} {rate:.0f} GFLOP/s")
    for group, values in ratios.items():
        mean = math.exp(sum(map(math.log, values)) / len(values))
        goal = next(case.goal for case in todo if case.group == group)
        records.append({"group": group, "geometric_mean": mean, "goal": goal})
        print(f"{group:20} geometric mean x{mean:.2f}, goal x{goal:.2f}: {'met' if mean >= goal else 'MISSED'}")
    for direction in ("forward", "backward"):
        progress.step(f"memory {direction}")
        command = [sys.executable, "-m", "benchmarks.cpu_attention", "--memory", direction]
        command += ["--quick"] if options.quick else []
        mib = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        records.append({"group": f"memory {direction}", "seqlen": seqlen, "mib": mib, "goal": MEMORY_GOAL_MIB})
        verdict = "met" if mib <= MEMORY_GOAL_MIB else "MISSED"
        print(f"memory {direction:13} s{seqlen}: {mib:.1f} MiB, goal {MEMORY_GOAL_MIB:.0f} MiB: {verdict}")
    if options.json:
        context = {
            "flash_attn": flash_attn.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "machine": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "command": sys.orig_argv,
        }
        options.json.write_text("".join(json.dumps({**context, **record}) + "\n" for record in records))


if __name__ == "__main__":
    main()
