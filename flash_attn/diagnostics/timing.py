"""Timing of contenders that take turns, so that a busy or throttling machine slows all of them alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch


def seconds_a_call(call: Callable[[], object], device: torch.device, repeats: int = 1) -> float:
    """Seconds of one call, from ``repeats`` in a row; waits for a GPU before and after."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - started) / repeats


def take_turns(
    timers: Sequence[Callable[[], float]], rounds: int, seconds: float = math.inf
) -> list[tuple[float, ...]]:
    """What every timer measured, round by round: ``rounds`` of them, fewer but at least 3 once ``seconds`` are over."""
    taken: list[tuple[float, ...]] = []
    end = time.perf_counter() + seconds
    while len(taken) < rounds and (len(taken) < 3 or time.perf_counter() < end):
        taken.append(tuple(timer() for timer in timers))
    return taken
