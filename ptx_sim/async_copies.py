"""Copies to shared memory that are in flight: their bytes arrive when their thread waits for them, not before.

Those that an mbarrier counts arrive as TMA transfers do, when nothing else can run any more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ptx_sim.threads import Threads
from ptx_sim.types import Array


@dataclass
class _Copy:
    number: int
    threads: Array
    group: Array
    places: Array
    granules: Array
    values: Array


class AsyncCopies:
    """What ``cp.async`` has begun, in order; a thread's groups are numbered as they are committed."""

    def __init__(self, threads: int) -> None:
        """Nothing is in flight."""
        self._committed: Array = np.zeros(threads, np.int64)
        self._open: list[_Copy] = []
        self._begun = 0

    def begin(self, t: Threads, threads: Array, addresses: Array, values: Array) -> None:
        """Copy the rows of ``values`` to each thread's address."""
        size = values.shape[1] * values.itemsize
        places, granules = t.shared.begin_copy(threads, addresses, size)
        self._open.append(_Copy(self._begun, threads, self._committed[threads], places, granules, values))
        self._begun += 1

    def commit(self, threads: Array) -> None:
        """Close the group of each of ``threads``."""
        self._committed[threads] += 1

    def wait(self, t: Threads, newest: int) -> None:
        """The executing threads wait for their groups, the ``newest`` ones left out."""
        below = self._committed - newest
        self._finish(t, lambda copy: t.mask[copy.threads] & (copy.group < below[copy.threads]))

    def wait_all(self, t: Threads) -> None:
        """The executing threads wait for all of their copies, in groups or not."""
        self._finish(t, lambda copy: t.mask[copy.threads])

    def arrive_later(self, t: Threads, threads: Array, addresses: Array) -> None:
        """Each of ``threads`` arrives at the mbarrier at its address when what it has begun is there."""
        mask = np.zeros(t.count, bool)
        mask[threads] = True
        places = np.zeros(t.count, np.int64)
        places[threads] = addresses
        begun = self._begun

        def deliver() -> None:
            self._finish(t, lambda copy: mask[copy.threads] & (copy.number < begun))

        t.batch.transactions.begin_arrivals(mask, places, deliver)

    def _finish(self, t: Threads, chosen: Callable[[_Copy], Array]) -> None:
        if not self._open:
            return
        left = []
        for copy in self._open:
            done = chosen(copy)
            if done.all():
                t.shared.end_copy(copy.threads, copy.places, copy.granules, copy.values)
            elif done.any():
                t.shared.end_copy(copy.threads[done], copy.places[done], copy.granules[done], copy.values[done])
                left.append(_select(copy, ~done))
            else:
                left.append(copy)
        self._open = left
        if not left:
            t.shared.some_ended()


def _select(copy: _Copy, chosen: Array) -> _Copy:
    rows = (copy.threads, copy.group, copy.places, copy.granules, copy.values)
    return _Copy(copy.number, *(x[chosen] for x in rows))
