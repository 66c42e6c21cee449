"""Copies to shared memory that are in flight: their bytes arrive when their thread waits for them, not before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptx_sim.threads import Threads
from ptx_sim.types import Array


@dataclass
class _Copy:
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

    def begin(self, t: Threads, threads: Array, addresses: Array, values: Array) -> None:
        """Copy the rows of ``values`` to each thread's address."""
        size = values.shape[1] * values.itemsize
        places, granules = t.shared.begin_copy(threads, addresses, size)
        self._open.append(_Copy(threads, self._committed[threads], places, granules, values))

    def commit(self, threads: Array) -> None:
        """Close the group of each of ``threads``."""
        self._committed[threads] += 1

    def wait(self, t: Threads, newest: int) -> None:
        """The executing threads wait for their groups, the ``newest`` ones left out."""
        self._finish(t, self._committed - newest)

    def wait_all(self, t: Threads) -> None:
        """The executing threads wait for all of their copies, in groups or not."""
        self._finish(t, self._committed + 1)

    def _finish(self, t: Threads, below: Array) -> None:
        if not self._open:
            return
        left = []
        for copy in self._open:
            done = t.mask[copy.threads] & (copy.group < below[copy.threads])
            if done.all():
                t.shared.end_copy(copy.threads, copy.places, copy.granules, copy.values)
            elif done.any():
                t.shared.end_copy(copy.threads[done], copy.places[done], copy.granules[done], copy.values[done])
                left.append(_select(copy, ~done))
            else:
                left.append(copy)
        self._open = left
        if not left:
            t.shared.nothing_in_flight()


def _select(copy: _Copy, chosen: Array) -> _Copy:
    return _Copy(
        copy.threads[chosen], copy.group[chosen], copy.places[chosen], copy.granules[chosen], copy.values[chosen]
    )
