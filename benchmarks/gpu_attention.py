"""Training attention on a GPU against PyTorch's own flash and cuDNN kernels, in one run.

``python -m benchmarks.gpu_attention [--backend NAME] [--json PATH] [--dry]``

All contenders read the same tensors, laid out ``(batch, seqlen, nheads, head_dim)`` (PyTorch gets them transposed,
as views) and take turns, a round each; the table gives medians over rounds. FLOPs are 4 b s^2 h d for a forward,
half of it under a causal mask, 2.5 times that for a backward. A contender whose result differs from ours by more
than the dtype's rounding explains stops the run: a wrong kernel has no speed. Beside a row stands the closest public
figure of its class from :mod:`benchmarks.anchors`, and ours over it. ``--dry`` runs the whole script on CPU tensors
with tiny shapes, where PyTorch has but one kernel; its times mean nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

import flash_attn
from benchmarks.anchors import nearest
from benchmarks.timing import Progress
from flash_attn import architectures
from flash_attn.backends.gpu import architecture_name
from flash_attn.diagnostics.text_table import terminal_table
from flash_attn.diagnostics.timing import seconds_a_call, take_turns

# Ratio of a peer's time to ours that each backend aims at, by phase, head_dim and peer.
_GOALS: dict[str, dict[tuple[str, int, str], float]] = {
    "triton": {("forward", 128, "cudnn"): 0.75, ("forward", 128, "flash"): 1.2, ("backward", 128, "flash"): 1.0},
    "cuda": {
        ("forward", 64, "cudnn"): 1.0,
        ("forward", 128, "cudnn"): 0.9,
        ("forward", 128, "flash"): 1.6,
        ("backward", 128, "flash"): 1.5,
    },
}
_PEERS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
_DRY_PEERS = {"math": SDPBackend.MATH}
_TOKENS = 16384
_HIDDEN = 2048


class Shape(NamedTuple):
    """What one row measures."""

    phase: str
    head_dim: int
    seqlen: int
    causal: bool
    batch: int
    nheads: int

    @property
    def flops(self) -> float:
        """Floating-point operations of the two (forward) or five (backward) matrix products."""
        forward = 4.0 * self.batch * self.seqlen**2 * self.nheads * self.head_dim / (2 if self.causal else 1)
        return forward * (2.5 if self.phase == "backward" else 1.0)


Contender = Callable[[], tuple[Tensor, ...]]


def shapes(dry: bool) -> Iterator[Shape]:
    """Every measured shape: a constant number of tokens and a hidden size of 2048."""
    lengths, head_dims = ((64,), (64,)) if dry else ((1024, 4096, 8192, 16384), (64, 128))
    for phase, head_dim, seqlen, causal in itertools.product(
        ("forward", "backward"), head_dims, lengths, (False, True)
    ):
        batch, nheads = (1, 2) if dry else (_TOKENS // seqlen, _HIDDEN // head_dim)
        yield Shape(phase, head_dim, seqlen, causal, batch, nheads)


def contenders(shape: Shape, device: torch.device, peers: dict[str, SDPBackend]) -> dict[str, Contender]:
    """Ours first, then the peers that can answer the shape."""
    generator = torch.Generator(device).manual_seed(0)
    size = (shape.batch, shape.seqlen, shape.nheads, shape.head_dim)
    q, k, v, dout = (torch.randn(size, generator=generator, device=device, dtype=torch.bfloat16) for _ in range(4))
    if shape.phase == "backward":
        q, k, v = (x.requires_grad_() for x in (q, k, v))

    def ours() -> Tensor:
        out = flash_attn.flash_attn_func(q, k, v, causal=shape.causal)
        assert isinstance(out, Tensor)
        return out

    def peer(backend: SDPBackend) -> Tensor:
        query, key, value = (x.transpose(1, 2) for x in (q, k, v))
        with sdpa_kernel(backend):
            return scaled_dot_product_attention(query, key, value, is_causal=shape.causal).transpose(1, 2)

    def phase(call: Callable[[], Tensor]) -> Contender:
        if shape.phase == "forward":
            return lambda: (call(),)
        out = call()
        return lambda: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True)

    found = {"ours": phase(ours)}
    for name, backend in peers.items():
        try:
            found[name] = phase(partial(peer, backend))
            found[name]()
        except RuntimeError as error:
            print(f"{name} cannot run {shape}: {str(error).splitlines()[0]}", file=sys.stderr)
            found.pop(name, None)
    return found


def require_agreement(calls: dict[str, Contender], beyond: float = 0.0) -> None:
    """Stop where a peer's result differs from ours by more than roundings of the largest value, and ``beyond``."""
    mine = calls["ours"]()
    for name, call in calls.items():
        for ours, theirs in zip(mine, call(), strict=True):
            allowed = 8 * torch.finfo(ours.dtype).eps * max(1.0, theirs.abs().max().item()) + beyond
            worst = (ours.float() - theirs.float()).abs().max().item()
            if not worst <= allowed:
                raise SystemExit(f"ours and {name} differ by {worst:.3g}, more than {allowed:.3g}: nothing is timed")


def measure(calls: dict[str, Contender], device: torch.device, rounds: int) -> dict[str, float]:
    """Median seconds of one call of each contender, taking turns."""
    taken = take_turns([partial(_seconds, call, device) for call in calls.values()], rounds)
    return {name: statistics.median(seconds) for name, seconds in zip(calls, zip(*taken, strict=True), strict=True)}


def _seconds(call: Contender, device: torch.device) -> float:
    if device.type != "cuda":
        return seconds_a_call(call, device)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    call()  # the clock starts behind a running kernel, so that launch latency is hidden
    begin.record()
    for _ in range(3):
        call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 3e3


def beside_anchor(shape: Shape, seconds: float, architecture: str | None) -> list[str]:
    """Cells of the closest public figure of a shape's class: ours over it, it, and what ran."""
    found = None
    if architecture is not None:
        found = nearest(architecture, shape.phase, "bfloat16", shape.head_dim, shape.causal, shape.seqlen)
    if found is None:
        return ["-", "-", "-"]
    return [f"{shape.flops / seconds / 1e12 / found.tflops:.2f}", f"{found.tflops:g}", str(found)]


def report(
    backend: str, results: list[tuple[Shape, dict[str, float]]], peers: list[str], architecture: str | None = None
) -> str:
    """Table of TFLOP/s, ratios and public figures, then the geometric means beside their goals."""
    rows = []
    for shape, seconds in results:
        rates = [f"{shape.flops / seconds[name] / 1e12:.1f}" if name in seconds else "-" for name in ("ours", *peers)]
        ratios = [f"{seconds[name] / seconds['ours']:.2f}" if name in seconds else "-" for name in peers]
        mask = "causal" if shape.causal else "full"
        public = beside_anchor(shape, seconds["ours"], architecture)
        rows.append([shape.phase, f"d{shape.head_dim}", f"s{shape.seqlen}", mask, *rates, *ratios, *public])
    header = ["phase", "dim", "length", "mask", *(f"{name} TFLOP/s" for name in ("ours", *peers))]
    header += [*(f"{name}/ours" for name in peers), "ours/public", "public TFLOP/s", "public figure"]
    lines = [terminal_table(header, rows)]
    for (phase, head_dim, peer), goal in _GOALS.get(backend, {}).items():
        ratios_of_group = [
            seconds[peer] / seconds["ours"]
            for shape, seconds in results
            if (shape.phase, shape.head_dim) == (phase, head_dim) and shape.seqlen >= 4096 and peer in seconds
        ]
        if ratios_of_group:
            mean = statistics.geometric_mean(ratios_of_group)
            lines.append(f"{phase} d{head_dim}, s >= 4096: {mean:.2f}x {peer} (goal {goal:.2f})")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="auto", help="backend to measure (default: what auto chooses)")
    parser.add_argument("--json", type=Path, help="file for one JSON line a shape")
    parser.add_argument("--dry", action="store_true", help="tiny shapes on CPU tensors: shows that the script works")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    if not options.dry and not torch.cuda.is_available():
        raise SystemExit("PyTorch sees no GPU; --dry runs the script on CPU tensors")
    device = torch.device("cpu" if options.dry else "cuda")
    peers = _DRY_PEERS if options.dry else _PEERS
    measured = list(shapes(options.dry))
    progress = Progress(len(measured))
    results = []
    with flash_attn.use_backend(options.backend):
        for shape in measured:
            progress.step(str(shape))
            calls = contenders(shape, device, peers)
            require_agreement(calls)
            results.append((shape, measure(calls, device, 2 if options.dry else options.rounds)))
    name = "the CPU (dry run)" if options.dry else torch.cuda.get_device_name(device)
    print(f"backend {options.backend} on {name}, torch {torch.__version__}, flash_attn {flash_attn.__version__}")
    known = None if options.dry else architectures.find(architecture_name(device))
    print(report(options.backend, results, list(peers), known.name if known else None))
    if options.json is not None:
        versions = {"backend": options.backend, "device": name, "torch": torch.__version__}
        lines = [json.dumps({**versions, **shape._asdict(), "seconds": seconds}) for shape, seconds in results]
        options.json.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
