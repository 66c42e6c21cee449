"""What a call costs before any arithmetic, and what importing the package adds to importing PyTorch.

``python -m benchmarks.overhead [--json PATH]`` times ``flash_attn_func`` with the arithmetic of its backend replaced
by tensors made beforehand, so that what remains is the way of one call: checks, operator, dispatch, autograd. Import
time is measured in fresh interpreters. Other work on the machine only ever adds time: the minimum over rounds is what
the goals are held against, the median is printed beside it. A missed goal is printed; it is no error.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest import mock

import torch

from flash_attn import dispatch, flash_attn_func
from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends.base import AttentionInputs, ForwardResult
from flash_attn.diagnostics.text_table import terminal_table

_ROOT = Path(__file__).resolve().parents[1]
_ROUNDS, _CALLS, _IMPORTS = 30, 500, 9
_IMPORT = "import time, torch; t = time.perf_counter(); import flash_attn; print(time.perf_counter() - t)"


@dataclass(frozen=True)
class Overhead:
    """Minimum and median seconds of something, and the goal for its minimum, where it has one."""

    name: str
    minimum: float
    median: float
    goal: float | None

    @property
    def verdict(self) -> str:
        """Whether the goal is met."""
        if self.goal is None:
            return "no goal"
        return "met" if self.minimum <= self.goal else "MISSED"


def call_overhead(requires_grad: bool) -> tuple[list[float], list[float]]:
    """Seconds from a call to the entry of its backend, and of the whole forward call without its arithmetic.

    Both are means of every round.
    """
    q, k, v = (torch.zeros(1, 16, 4, 64, requires_grad=requires_grad) for _ in range(3))
    made = ForwardResult(torch.zeros(1, 16, 4, 64), torch.zeros(1, 4, 16))
    entered = 0.0

    def entry(spec: AttentionSpec, inputs: AttentionInputs) -> ForwardResult:
        nonlocal entered
        entered = time.perf_counter()
        return made

    to_backend, whole = [], []
    with (
        mock.patch.object(dispatch.backend("cpu"), "forward", entry),
        torch.set_grad_enabled(requires_grad),
    ):
        flash_attn_func(q, k, v, causal=True)
        for _ in range(_ROUNDS):
            reached = 0.0
            began = time.perf_counter()
            for _ in range(_CALLS):
                called = time.perf_counter()
                flash_attn_func(q, k, v, causal=True)
                reached += entered - called
            whole.append((time.perf_counter() - began) / _CALLS)
            to_backend.append(reached / _CALLS)
    return to_backend, whole


def import_overhead() -> list[float]:
    """Seconds that ``import flash_attn`` takes after ``import torch``, in fresh interpreters."""
    command = [sys.executable, "-c", _IMPORT]
    return [
        float(subprocess.run(command, cwd=_ROOT, check=True, capture_output=True, text=True).stdout)
        for _ in range(_IMPORTS)
    ]


def _overhead(name: str, samples: list[float], goal: float | None) -> Overhead:
    return Overhead(name, min(samples), statistics.median(samples), goal)


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1e6:.1f} us" if value < 1e-3 else f"{value * 1e3:.1f} ms"


def main() -> None:
    """Print the table and write the JSON lines that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write one JSON line a figure")
    options = parser.parse_args()
    figures = []
    for requires_grad, mode in ((False, "no grad"), (True, "recording grad")):
        print(f"\r\033[K{mode}", end="", file=sys.stderr, flush=True)
        to_backend, whole = call_overhead(requires_grad)
        figures.append(_overhead(f"call to backend, {mode}", to_backend, None if requires_grad else 15e-6))
        figures.append(_overhead(f"call and return, {mode}", whole, None))
    print("\r\033[Kimport", end="", file=sys.stderr, flush=True)
    figures.append(_overhead("import flash_attn, beyond torch", import_overhead(), 50e-3))
    print("\r\033[K", end="", file=sys.stderr, flush=True)
    rows = [[f.name, _seconds(f.minimum), _seconds(f.median), _seconds(f.goal), f.verdict] for f in figures]
    print(terminal_table(["overhead", "minimum", "median", "goal", "verdict"], rows))
    if options.json is not None:
        lines = [json.dumps({**asdict(f), "torch": torch.__version__, "verdict": f.verdict}) for f in figures]
        options.json.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
