"""Ratio of two callables on the CPU that take turns, and a progress line."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from flash_attn.diagnostics.timing import seconds_a_call, take_turns


class Ratio(NamedTuple):
    """Seconds of both contenders (medians over rounds) and the ratio peer / ours of medians, with its quartiles."""

    ours: float
    peer: float
    ratio: float
    low: float
    high: float


def compare(ours: Callable[[], object], peer: Callable[[], object], seconds: float, rounds: int) -> Ratio:
    """Alternate both, ``rounds`` times or for about ``seconds``, at least 3 times; each is warmed up once."""
    ours()
    peer()
    timers = [partial(seconds_a_call, call, torch.device("cpu")) for call in (ours, peer)]
    times = take_turns(timers, rounds, seconds)
    mine, other = (statistics.median(column) for column in zip(*times, strict=True))
    low, _, high = statistics.quantiles([b / a for a, b in times], n=4, method="inclusive")
    return Ratio(mine, other, other / mine, low, high)


class Progress:
    """A counter on stderr: a bar on a terminal, silent elsewhere."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0

    def step(self, label: str) -> None:
        """Show that the work called ``label`` begins."""
        if sys.stderr.isatty():
            bar = "#" * (30 * self._done // self._total)
            print(f"\r\x1b[K[{bar:<30}] {self._done}/{self._total} {label}", end="", file=sys.stderr, flush=True)
        self._done += 1
        if self._done > self._total and sys.stderr.isatty():
            print(file=sys.stderr)
