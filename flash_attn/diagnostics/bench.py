"""``python -m flash_attn bench``: ours and PyTorch's scaled_dot_product_attention, interleaved in one run.

Every round times both, one after the other, so that a busy or throttling machine slows both alike. Reported are the
median over rounds and the spread, half of the distance between the quartiles in percent of the median.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from flash_attn import __version__, dispatch
from flash_attn.attention_spec import AttentionSpec
from flash_attn.diagnostics.progress import show_progress
from flash_attn.diagnostics.text_table import terminal_table
from flash_attn.diagnostics.timing import seconds_a_call, take_turns
from flash_attn.flash_attn_interface import flash_attn_func, flash_attn_with_kvcache

_NO_MATPLOTLIB = "--plot needs matplotlib, which is not installed: pip install 'flash-attn[plot]'"


@dataclass(frozen=True)
class Problem:
    """One thing to time; ``seqlen`` is that of queries and keys, in decoding that of the cache under one query."""

    phase: str
    seqlen: int
    head_dim: int
    causal: bool
    batch: int
    nheads: int
    nheads_k: int
    dtype: torch.dtype

    def __str__(self) -> str:
        """Short name."""
        heads = f"h{self.nheads}" if self.nheads == self.nheads_k else f"h{self.nheads}/{self.nheads_k}"
        mask = " causal" if self.causal else ""
        return f"{self.phase} b{self.batch} {heads} s{self.seqlen} d{self.head_dim}{mask}"


@dataclass(frozen=True)
class Timing:
    """Median seconds of a call, and the spread over rounds in percent of it."""

    median: float
    spread: float


@dataclass(frozen=True)
class Measurement:
    """Both timings of a problem."""

    problem: Problem
    ours: Timing
    sdpa: Timing

    @property
    def ratio(self) -> float:
        """How many times faster than PyTorch."""
        return self.sdpa.median / self.ours.median


def run_bench(json_path: Path | None = None, plot_path: Path | None = None, quick: bool = False) -> int:
    """Time the grid on a GPU where a backend can use one, else on the CPU; print a table.

    Args:
        json_path: file for one JSON line a measurement.
        plot_path: PNG of the ratios; needs matplotlib.
        quick: small problems and few rounds.

    Returns:
        0, or 2 where nothing was timed: no backend can run, a file would have no folder, or ``plot_path`` is asked
        for and matplotlib is missing.
    """
    for option, path in (("--json", json_path), ("--plot", plot_path)):
        if path is not None and not path.parent.is_dir():
            print(f"{option}: got {path}; accepted is a file in a folder that exists", file=sys.stderr)
            return 2
    if plot_path is not None and find_spec("matplotlib") is None:
        print(_NO_MATPLOTLIB, file=sys.stderr)
        return 2
    try:
        device, backend = _place()
    except dispatch.UnsupportedError as error:
        print(error, file=sys.stderr)
        return 2
    problems = list(_grid(device, quick))
    print(f"backend {backend} on {_device_name(device)}, torch {torch.__version__}, flash_attn {__version__}")
    measurements = []
    for done, problem in enumerate(problems, start=1):
        show_progress(f"[{done}/{len(problems)}] {problem}")
        measurements.append(_measure(problem, device, rounds=3 if quick else 9, seconds=0.005 if quick else 0.05))
    show_progress("")
    header = ["problem", "dtype", "ours", "spread", "SDPA", "spread", "SDPA/ours"]
    print(terminal_table(header, [_cells(m) for m in measurements]))
    print(f"geometric mean of SDPA/ours: {statistics.geometric_mean(m.ratio for m in measurements):.2f}")
    if json_path is not None:
        lines = [json.dumps(_record(m, device, backend)) for m in measurements]
        json_path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if plot_path is not None:
        _plot(measurements, f"backend {backend} on {_device_name(device)}", plot_path)
    return 0


def _place() -> tuple[torch.device, str]:
    """A device and the name of the backend that answers there."""
    spec = AttentionSpec(torch.bfloat16, 8, 8, 128, 128, 128**-0.5, needs_backward=True)
    request = dispatch.requested()
    if torch.cuda.is_available():
        gpu = torch.device("cuda", torch.cuda.current_device())
        try:
            return gpu, dispatch.select(spec, gpu, request).name
        except dispatch.UnsupportedError as error:
            print(f"{error}\ntiming on the CPU instead", file=sys.stderr)
    cpu = torch.device("cpu")
    return cpu, dispatch.select(spec, cpu, request).name


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"the CPU with {torch.get_num_threads()} threads"


def _grid(device: torch.device, quick: bool) -> Iterator[Problem]:
    gpu = device.type == "cuda"
    seqlens: tuple[int, ...] = (1024, 4096, 16384) if gpu else (512, 2048)
    caches: tuple[int, ...] = (4096, 65536) if gpu else (4096,)
    head_dims: tuple[int, ...] = (64, 128)
    if quick:
        seqlens, caches, head_dims = (128,), (512,), (64,)
    for phase in ("forward", "backward"):
        for head_dim in head_dims:
            for seqlen in seqlens:
                for causal in (False, True):
                    batch = max(1, 16384 // seqlen) if gpu else 1
                    yield Problem(
                        phase, seqlen, head_dim, causal, batch, 16 if gpu else 4, 16 if gpu else 4, torch.bfloat16
                    )
    for cache in caches:
        yield Problem("decode", cache, 128, False, 16 if gpu else 1, 32, 8, torch.bfloat16)


def _calls(problem: Problem, device: torch.device) -> tuple[Callable[[], object], Callable[[], object]]:
    """Ours and PyTorch's, on the same tensors."""
    generator = torch.Generator().manual_seed(0)

    def normal(seqlen: int, nheads: int) -> Tensor:
        shape = (problem.batch, seqlen, nheads, problem.head_dim)
        return torch.randn(shape, generator=generator).to(device, problem.dtype)

    decoding = problem.phase == "decode"
    q = normal(1 if decoding else problem.seqlen, problem.nheads)
    k, v = normal(problem.seqlen, problem.nheads_k), normal(problem.seqlen, problem.nheads_k)
    grouped = problem.nheads != problem.nheads_k

    def sdpa() -> Tensor:
        query, key, value = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        return scaled_dot_product_attention(query, key, value, is_causal=problem.causal, enable_gqa=grouped)

    def forward() -> Tensor:
        out = flash_attn_func(q, k, v, causal=problem.causal)
        assert isinstance(out, Tensor)
        return out

    if decoding:
        return lambda: flash_attn_with_kvcache(q, k, v), sdpa
    if problem.phase == "forward":
        return forward, sdpa
    leaves = [x.requires_grad_() for x in (q, k, v)]
    dout = normal(problem.seqlen, problem.nheads)
    ours, theirs = forward(), sdpa().transpose(1, 2)
    return (
        lambda: torch.autograd.grad(ours, leaves, dout, retain_graph=True),
        lambda: torch.autograd.grad(theirs, leaves, dout, retain_graph=True),
    )


def _measure(problem: Problem, device: torch.device, rounds: int, seconds: float) -> Measurement:
    """Time both for ``rounds`` rounds of about ``seconds`` each."""
    timers: list[Callable[[], float]] = []
    for call in _calls(problem, device):
        seconds_a_call(call, device)
        repeats = max(1, round(seconds / seconds_a_call(call, device)))
        timers.append(partial(seconds_a_call, call, device, repeats))
    ours, sdpa = zip(*take_turns(timers, rounds), strict=True)
    return Measurement(problem, _summary(ours), _summary(sdpa))


def _summary(samples: Sequence[float]) -> Timing:
    lower, median, upper = statistics.quantiles(samples, n=4, method="inclusive")
    return Timing(median, 50 * (upper - lower) / median)


def _cells(measurement: Measurement) -> list[str]:
    cells = [str(measurement.problem), str(measurement.problem.dtype).removeprefix("torch.")]
    for timing in (measurement.ours, measurement.sdpa):
        cells += [f"{timing.median * 1e3:.3f} ms", f"{timing.spread:.1f} %"]
    return [*cells, f"{measurement.ratio:.2f}"]


def _record(measurement: Measurement, device: torch.device, backend: str) -> dict[str, object]:
    return {
        **asdict(measurement.problem),
        "dtype": str(measurement.problem.dtype).removeprefix("torch."),
        "backend": backend,
        "device": _device_name(device),
        "torch": torch.__version__,
        "flash_attn": __version__,
        "ours_seconds": measurement.ours.median,
        "ours_spread_percent": measurement.ours.spread,
        "sdpa_seconds": measurement.sdpa.median,
        "sdpa_spread_percent": measurement.sdpa.spread,
        "ratio": measurement.ratio,
    }


def _plot(measurements: list[Measurement], title: str, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1 + 0.3 * len(measurements)), layout="constrained")
    axes = figure.subplots()
    axes.barh([str(m.problem) for m in measurements], [m.ratio for m in measurements])
    axes.axvline(1.0, color="black", linewidth=1)
    axes.invert_yaxis()
    axes.set_xlabel("times faster than PyTorch's scaled_dot_product_attention")
    axes.set_title(title)
    figure.savefig(path)
