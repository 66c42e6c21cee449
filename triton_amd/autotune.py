"""Timing configurations on the GPU at hand: the winner of each class, for this process or for ``configs/``.

    python -m flash_attn.triton_amd.autotune [--kernel forward] [--head-dim 128] [--dtype bf16] [--causal | --full]
                                             [--seqlen 4096] [--batch 4] [--heads 16] [--write FOLDER]

``FLASH_ATTENTION_TRITON_AMD_AUTOTUNE=TRUE`` makes every first call of a class do the same with its own tensors.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.runtime.errors import OutOfResources

from ..architectures import Architecture, find
from .backward import BACKWARD_ORDER, backward_launches, new_gradients
from .candidates import candidates
from .config_rows import CONFIGS, Row, write_rows
from .forward import forward_launch, new_results
from .kernel_config import (
    BackwardConfig,
    BackwardTile,
    ForwardConfig,
    KernelConfig,
    ProblemClass,
    problem_class,
)
from .launch import Launch
from .problem import Problem
from .tuning import backward_config as shipped_backward
from .tuning import for_architecture
from .tuning import forward_config as shipped_forward

# Compiler variants are timed for this many of the fastest tiles.
_FINALISTS = 3
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Winner:
    """The fastest configuration of a class, its time, and that of the shipped one (ms)."""

    group: ProblemClass
    config: KernelConfig
    milliseconds: float
    shipped_milliseconds: float


@dataclass
class Autotuner:
    """Times configurations and remembers the winners.

    Attributes:
        architecture: the GPU's.
        timer: milliseconds that a launch takes; raises ``OutOfResources`` where it cannot run.
        progress: is told a line of text after every timing; the last one of a search ends in a newline.
        winners: what was found, by class.
    """

    architecture: Architecture
    timer: Callable[[Launch], float]
    progress: Callable[[str], object]
    winners: dict[ProblemClass, Winner] = dataclasses.field(default_factory=dict)

    def forward_config(self, problem: Problem) -> ForwardConfig:
        """The forward's winner for the class of a problem, timed on its tensors."""
        results = new_results(problem)
        name = self.architecture.name

        def launch(config: KernelConfig) -> Launch:
            assert isinstance(config, ForwardConfig)
            return forward_launch(problem, *results, for_architecture(config, name))

        group = problem_class(problem, "forward")
        config = self._winner(group, shipped_forward(problem, name), launch)
        assert isinstance(config, ForwardConfig)
        return for_architecture(config, name)

    def backward_config(
        self, problem: Problem, out: Tensor, softmax_lse: Tensor, dout: Tensor, dlse: Tensor | None
    ) -> BackwardConfig:
        """The winners of the backward's kernels for the class of a problem; ``out``... as for the backward itself."""
        gradients = new_gradients(problem)
        shipped = shipped_backward(problem, self.architecture.name)

        def launches(config: BackwardConfig) -> list[Launch]:
            return backward_launches(problem, out, softmax_lse, dout, dlse, gradients, config)

        def launch_dkdv(config: KernelConfig) -> Launch:
            assert isinstance(config, BackwardTile)
            return launches(BackwardConfig(config, shipped.dq, config.num_xcds))[BACKWARD_ORDER.index("backward_dkdv")]

        def launch_dq(config: KernelConfig) -> Launch:
            assert isinstance(config, BackwardTile)
            return launches(BackwardConfig(shipped.dkdv, config, config.num_xcds))[BACKWARD_ORDER.index("backward_dq")]

        launches(shipped)[0].run()
        dkdv = self._winner(problem_class(problem, "backward_dkdv"), shipped.dkdv, launch_dkdv)
        dq = self._winner(problem_class(problem, "backward_dq"), shipped.dq, launch_dq)
        assert isinstance(dkdv, BackwardTile)
        assert isinstance(dq, BackwardTile)
        return BackwardConfig(dkdv, dq, dkdv.num_xcds)

    def write(self, folder: Path) -> None:
        """Write the winners into ``<architecture>.json`` of a folder, beside the rows of other classes."""
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
        write_rows(
            folder / f"{self.architecture.name}.json", [_row(winner, device) for winner in self.winners.values()]
        )

    def _winner(
        self, group: ProblemClass, shipped: KernelConfig, launch: Callable[[KernelConfig], Launch]
    ) -> KernelConfig:
        if group not in self.winners:
            self.winners[group] = self._search(group, shipped, launch)
        return self.winners[group].config

    def _search(self, group: ProblemClass, shipped: KernelConfig, launch: Callable[[KernelConfig], Launch]) -> Winner:
        """Time one variant of every tile, then the compiler variants of the fastest tiles."""
        variants: dict[tuple[int, int, int], list[KernelConfig]] = {}
        for config in candidates(group, self.architecture):
            variants.setdefault(_tile(config), []).append(config)
        times = {shipped: self._time(launch, shipped)}
        self._time_all(group, times, [of_tile[0] for of_tile in variants.values()], launch)
        fastest = sorted(times, key=lambda config: times[config])[:_FINALISTS]
        self._time_all(group, times, [x for config in fastest for x in variants.get(_tile(config), ())], launch)
        best = min(times, key=lambda config: times[config])
        if times[best] == float("inf"):
            raise RuntimeError(f"none of {len(times)} configurations for {group} runs on {self.architecture.name}")
        self.progress(f"{_title(group)}: {_words(best)}, {times[best]:.3f} ms, shipped {times[shipped]:.3f} ms\n")
        return Winner(group, best, times[best], times[shipped])

    def _time_all(
        self,
        group: ProblemClass,
        times: dict[KernelConfig, float],
        configs: Iterable[KernelConfig],
        launch: Callable[[KernelConfig], Launch],
    ) -> None:
        left = [config for config in dict.fromkeys(configs) if config not in times]
        for number, config in enumerate(left, 1):
            times[config] = self._time(launch, config)
            best = min(times, key=lambda key: times[key])
            self.progress(f"{_title(group)}: {number}/{len(left)}, best {_words(best)} {times[best]:.3f} ms")

    def _time(self, launch: Callable[[KernelConfig], Launch], config: KernelConfig) -> float:
        """Milliseconds; infinite for a configuration that needs more than the GPU has."""
        try:
            return self.timer(launch(config))
        except OutOfResources:
            return float("inf")


_AUTOTUNERS: dict[str, Autotuner] = {}


def autotuner(arch_name: str) -> Autotuner:
    """The process's autotuner for the GPU at hand; ``ValueError`` for an architecture that is in no table."""
    if arch_name not in _AUTOTUNERS:
        architecture = find(arch_name)
        if architecture is None:
            raise ValueError(f"{arch_name} is in no table of architectures: its configurations cannot be pruned")
        _AUTOTUNERS[arch_name] = Autotuner(architecture, time_on_gpu, _show)
    return _AUTOTUNERS[arch_name]


def time_on_gpu(launch: Launch) -> float:
    """Median milliseconds of a launch."""
    return float(triton.testing.do_bench(launch.run, warmup=10, rep=50, return_mode="median"))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: time classes on the GPU at hand, and write the winners if asked to."""
    options = _parser().parse_args(arguments)
    if not torch.cuda.is_available():
        raise SystemExit("autotuning needs a GPU, and torch finds none")
    tuner = autotuner(_arch_name())
    for dtype in options.dtype:
        for head_dim in options.head_dim:
            for causal in (True,) if options.causal else (False,) if options.full else (False, True):
                _tune(tuner, _problem(options, head_dim, _DTYPES[dtype], causal), options.kernel)
    if options.write is not None:
        tuner.write(options.write)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flash_attn.triton_amd.autotune", description="Time configurations on the GPU at hand."
    )
    parser.add_argument("--kernel", nargs="+", choices=("forward", "backward"), default=["forward", "backward"])
    parser.add_argument("--head-dim", nargs="+", type=int, default=[64, 128])
    parser.add_argument("--dtype", nargs="+", choices=tuple(_DTYPES), default=["bf16"])
    parser.add_argument("--seqlen", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--heads", type=int, default=16)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--causal", action="store_true")
    kind.add_argument("--full", action="store_true")
    parser.add_argument("--write", type=Path, metavar="FOLDER", nargs="?", const=CONFIGS, help="default: as shipped")
    return parser


def _problem(options: argparse.Namespace, head_dim: int, dtype: torch.dtype, causal: bool) -> Problem:
    shape = (options.batch, options.seqlen, options.heads, head_dim)
    q, k, v = (torch.randn(shape, device="cuda").to(dtype) for _ in range(3))
    right = 0 if causal else -1
    return Problem(q, k, v, options.seqlen, options.seqlen, head_dim**-0.5, window_right=right)


def _tune(tuner: Autotuner, problem: Problem, kernels: Sequence[str]) -> None:
    config = (
        tuner.forward_config(problem) if "forward" in kernels else shipped_forward(problem, tuner.architecture.name)
    )
    if "backward" in kernels:
        out, softmax_lse = new_results(problem)
        forward_launch(problem, out, softmax_lse, config).run()
        tuner.backward_config(problem, out, softmax_lse, torch.randn_like(out), None)


def _arch_name() -> str:
    properties = torch.cuda.get_device_properties()
    amd = getattr(properties, "gcnArchName", None)
    return str(amd) if torch.version.hip else f"sm_{properties.major}{properties.minor}"


def _show(line: str) -> None:
    """One line that is written over on a terminal; elsewhere only what ends in a newline."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
    elif line.endswith("\n"):
        print(line, end="", file=sys.stderr, flush=True)


def _row(winner: Winner, device: str) -> Row:
    provenance: dict[str, Any] = {
        "tool": f"python -m flash_attn.triton_amd.autotune, on {device}",
        "triton": triton.__version__,
        "figures": {
            "milliseconds": round(winner.milliseconds, 4),
            "shipped_milliseconds": round(winner.shipped_milliseconds, 4),
        },
    }
    group = winner.group
    return Row(group.kernel, group.bits, group.block_d, group.banded, winner.config, provenance)


def _tile(config: KernelConfig) -> tuple[int, int, int]:
    return config.block_m, config.block_n, config.num_warps


def _title(group: ProblemClass) -> str:
    kind = "banded" if group.banded else "full"
    return f"autotune {group.kernel} {group.bits} bits d{group.block_d} {kind}"


def _words(config: KernelConfig) -> str:
    return f"{config.block_m}x{config.block_n}, {config.num_warps} waves"


if __name__ == "__main__":
    main()
