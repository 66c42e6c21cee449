"""Barriers of thread blocks: bar.sync, bar.arrive and bar.red, numbered, with or without a thread count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ptx_sim.errors import DivergenceError, KernelError
from ptx_sim.shared_memory import WARP
from ptx_sim.types import Array

if TYPE_CHECKING:
    from ptx_sim.decoding import Read, Write
    from ptx_sim.execution import Batch

Reduction = tuple["Read", Callable[[Array], Any], "Write"]


@dataclass
class _Waiting:
    """Who has come to a barrier: ``parked`` (position to go on at, threads) stand there, others only arrived."""

    expected: int | None
    warps: set[int] = field(default_factory=set)
    arrived: int = 0
    parked: list[tuple[int, Array]] = field(default_factory=list)
    known: Array | None = None
    reduction: Reduction | None = None
    values: list[Array] = field(default_factory=list)


class Barriers:
    """The barriers of all blocks of a batch, by (block, number)."""

    def __init__(self, batch: Batch) -> None:
        """Nobody waits."""
        self._batch = batch
        self._waiting: dict[tuple[int, int], _Waiting] = {}

    @property
    def parked(self) -> bool:
        """Whether anybody waits."""
        return any(waiting.parked for waiting in self._waiting.values())

    def arrive(
        self, mask: Array, number: Any, count: Any, action: str, aligned: bool, reduction: Reduction | None
    ) -> None:
        """The threads ``mask`` come to a barrier; ``action`` is "sync", "arrive" or "red"."""
        t = self._batch.threads
        if t.full and mask is t.mask and number.ndim == 0 and count is None and action == "sync" and not self._waiting:
            t.shared.order_blocks()
            self._batch.fall_through()
            return
        lanes, living = mask.reshape(-1, WARP), t.live.reshape(-1, WARP)
        partly = lanes.any(1) & (lanes != living).any(1)
        if aligned and partly.any():
            warp = int(partly.argmax())
            text = f"a barrier reached by {lanes[warp].sum()} of the {living[warp].sum()} living threads of a warp"
            raise DivergenceError(text, warp * WARP + int(lanes[warp].argmax()))
        numbers = np.broadcast_to(number, t.count).reshape(-1, WARP)
        counts = None if count is None else np.broadcast_to(count, t.count).reshape(-1, WARP)
        wanted = None if reduction is None else mask & reduction[0](t)
        touched: dict[tuple[int, int], list[int]] = {}
        for warp in np.flatnonzero(lanes.any(1)).tolist():
            first = int(lanes[warp].argmax())
            key = warp // t.shared.warps, int(numbers[warp, first])
            expected = None if counts is None else int(counts[warp, first])
            self._join(key, warp, expected, int(lanes[warp].sum()) if not aligned else WARP)
            touched.setdefault(key, []).append(warp)
        passing = np.zeros(t.count, bool) if action != "arrive" else mask
        for key, warps in touched.items():
            waiting = self._waiting[key]
            ours = mask & self._of(warps)
            if action != "arrive":
                waiting.parked.append((self._batch.next_position, ours))
            if reduction is not None and wanted is not None:
                waiting.reduction = reduction
                waiting.values.append(wanted[ours])
        self._batch.go(self._batch.next_position, passing)
        for key in touched:
            self._complete(key)

    def _of(self, warps: list[int]) -> Array:
        mask = np.zeros((self._batch.threads.count // WARP, WARP), bool)
        mask[warps] = True
        return mask.reshape(-1)

    def _join(self, key: tuple[int, int], warp: int, expected: int | None, threads: int) -> None:
        t = self._batch.threads
        waiting = self._waiting.setdefault(key, _Waiting(expected))
        if waiting.expected != expected:
            raise KernelError(
                f"barrier {key[1]} is used with {waiting.expected} and with {expected} threads", warp * WARP
            )
        waiting.warps.add(warp)
        waiting.arrived += threads
        known = t.shared.release(warp)
        if known is not None:
            waiting.known = known if waiting.known is None else np.maximum(waiting.known, known)
        if expected is not None and waiting.arrived > expected:
            raise KernelError(f"barrier {key[1]} of {expected} threads is reached by {waiting.arrived}", warp * WARP)

    def threads_left(self) -> None:
        """Threads have ended, so that a barrier of all living threads may be complete."""
        for key in list(self._waiting):
            self._complete(key)

    def _complete(self, key: tuple[int, int]) -> None:
        t = self._batch.threads
        waiting = self._waiting[key]
        if waiting.expected is None:
            living = t.live.reshape(-1, t.shared.warps, WARP)[key[0]].any(1)
            first = key[0] * t.shared.warps
            if not {first + int(warp) for warp in np.flatnonzero(living)} <= waiting.warps:
                return
        elif waiting.arrived < waiting.expected:
            return
        del self._waiting[key]
        standing: Array = np.zeros(t.count, bool)
        for position, mask in waiting.parked:
            standing = standing | mask
            self._batch.go(position, mask)
        t.shared.acquire(np.flatnonzero(standing.reshape(-1, WARP).any(1)), waiting.known)
        if waiting.reduction is not None:
            _, function, write = waiting.reduction
            before = t.mask, t.full, t.everyone
            t.mask, t.full, t.everyone = standing, False, False
            write(t, t.constant(function(np.concatenate(waiting.values))))
            t.mask, t.full, t.everyone = before

    def describe(self) -> str:
        """Who waits for whom, for the message of a deadlock."""
        t = self._batch.threads
        lines = []
        for (block, number), waiting in self._waiting.items():
            if waiting.parked:
                expected = f"{waiting.expected} threads" if waiting.expected else "all living threads"
                warps = sorted(warp % t.shared.warps for warp in waiting.warps)
                lines.append(f"block {self._batch.block_name(block)}: warps {warps} at barrier {number} of {expected}")
        return "; ".join(lines)
