"""Shared memory of the blocks that run together: bounds, races between warps, copies that are still in flight.

Races are found by vector clocks: a warp knows for every warp of its block up to which of its steps it has been
ordered behind it, by barriers. An access to bytes that another warp wrote (or a write to bytes that it read) in a
step that the accessing warp is not ordered behind is a race.
"""

from __future__ import annotations

import numpy as np

from ptx_sim.errors import MissingWaitError, SharedRaceError
from ptx_sim.memory import Bytes, check_aligned, check_inside
from ptx_sim.types import Array

WARP = 32


class SharedMemory:
    """``blocks`` times ``size`` bytes; threads are numbered through all blocks, ``warps`` warps a block."""

    def __init__(self, blocks: int, size: int, warps: int, granule: int, check_races: bool) -> None:
        """``granule``: bytes that are followed together, the smallest access of the kernel."""
        self.size, self.warps = size, warps
        self.stride = -(-max(size, 16) // 128) * 128
        self.bytes = Bytes(np.full(blocks * self.stride, 0xFF, np.uint8))
        self._granule = granule
        granules = blocks * self.stride // granule
        self._races = check_races and warps > 1
        self._in_flight: Array = np.zeros(granules, bool)
        self._anything_in_flight = False
        if self._races:
            self._writer: Array = np.zeros(granules, np.int64)
            self._written: Array = np.zeros(granules, np.int32)
            self._read: Array = np.zeros((granules, warps), np.int32)
            self._clocks: Array = np.zeros((blocks * warps, warps), np.int32)
            self._own = np.arange(blocks * warps), np.tile(np.arange(warps), blocks)
            self._clocks[self._own] = 1

    def order_blocks(self) -> None:
        """A barrier of all warps of every block has completed."""
        if self._races:
            blocks = self._clocks.reshape(-1, self.warps, self.warps)
            blocks[:] = blocks.max(1, keepdims=True)
            self._clocks[self._own] += 1

    def release(self, warp: int) -> Array | None:
        """What others learn who are ordered behind ``warp`` at this moment (see :meth:`acquire`)."""
        if not self._races:
            return None
        known: Array = self._clocks[warp].copy()
        self._clocks[warp, self._own[1][warp]] += 1
        return known

    def acquire(self, warps: Array, known: Array | None) -> None:
        """Order ``warps`` behind what :meth:`release` returned."""
        if self._races and known is not None:
            self._clocks[warps] = np.maximum(self._clocks[warps], known)

    def _place(self, threads: Array, addresses: Array, size: int, what: str) -> tuple[Array, Array]:
        """Addresses through all blocks, and the granules (threads, n) that they touch."""
        check_aligned(addresses, size, what, threads)
        check_inside(addresses, size, self.size, threads, what, "shared memory")
        flat = addresses + threads // (WARP * self.warps) * self.stride
        granules = (flat // self._granule)[:, None]
        if size > self._granule:
            granules = granules + np.arange(size // self._granule)
        return flat, granules

    def _not_in_flight(self, threads: Array, granules: Array, what: str) -> None:
        if self._anything_in_flight:
            bad = self._in_flight[granules].any(1)
            if bad.any():
                place = int(bad.argmax())
                raise MissingWaitError(f"{what} where an asynchronous copy is still in flight", int(threads[place]))

    def _race(self, bad: Array, threads: Array, what: str, others: Array) -> None:
        if bad.any():
            place = int(bad.any(tuple(range(1, bad.ndim))).argmax())
            other = int(others[place].reshape(-1)[bad[place].reshape(-1).argmax()])
            text = f"{what} with nothing that orders it behind warp {other}'s access to the same bytes"
            raise SharedRaceError(text, int(threads[place]))

    def _behind_writers(self, threads: Array, warps: Array, granules: Array, what: str) -> None:
        """Check that something orders ``threads`` behind the latest writers of ``granules``."""
        writers = self._writer[granules]
        self._race(self._written[granules] > self._clocks[warps[:, None], writers], threads, what, writers)

    def note_read(self, threads: Array, granules: Array) -> None:
        """Check and remember that ``threads`` read ``granules``."""
        if not self._races:
            return
        warps = threads // WARP
        self._behind_writers(threads, warps, granules, "shared load")
        local = warps % self.warps
        self._read[granules, local[:, None]] = self._clocks[warps, local][:, None]

    def note_write(self, threads: Array, granules: Array, what: str = "shared store") -> None:
        """Check and remember that ``threads`` write ``granules``."""
        if not self._races:
            return
        warps = threads // WARP
        self._behind_writers(threads, warps, granules, what)
        bad = self._read[granules] > self._clocks[warps][:, None]
        self._race(bad, threads, what, np.broadcast_to(np.arange(self.warps), bad.shape))
        local = warps % self.warps
        self._writer[granules] = local[:, None]
        self._written[granules] = self._clocks[warps, local][:, None]

    def load(self, threads: Array, addresses: Array, size: int, element: int) -> Array:
        """``size`` bytes at each thread's address, as (threads, size // element) unsigned elements."""
        flat, granules = self._place(threads, addresses, size, "shared load")
        self._not_in_flight(threads, granules, "shared load")
        self.note_read(threads, granules)
        return self.bytes.gather(flat, size, element)

    def touch(self, threads: Array, addresses: Array, size: int) -> None:
        """Check a load by ``threads`` whose value somebody else takes."""
        _, granules = self._place(threads, addresses, size, "shared load")
        self._not_in_flight(threads, granules, "shared load")
        self.note_read(threads, granules)

    def store(self, threads: Array, addresses: Array, values: Array) -> None:
        """Store the rows of ``values`` (unsigned elements)."""
        flat, granules = self._place(threads, addresses, values.shape[1] * values.itemsize, "shared store")
        self._not_in_flight(threads, granules, "shared store")
        self.note_write(threads, granules)
        self.bytes.scatter(flat, values)

    def atomic_places(self, threads: Array, addresses: Array, size: int) -> Array:
        """Addresses through all blocks for an atomic operation, which races with nothing but plain accesses."""
        flat, granules = self._place(threads, addresses, size, "shared atomic")
        self._not_in_flight(threads, granules, "shared atomic")
        return flat

    def begin_copy(self, threads: Array, addresses: Array, size: int) -> tuple[Array, Array]:
        """An asynchronous copy by ``threads`` begins; returns what :meth:`end_copy` takes."""
        flat, granules = self._place(threads, addresses, size, "asynchronous copy")
        self._not_in_flight(threads, granules, "asynchronous copy")
        self.note_write(threads, granules, "asynchronous copy")
        self._in_flight[granules] = True
        self._anything_in_flight = True
        return flat, granules

    def end_copy(self, threads: Array, flat: Array, granules: Array, values: Array) -> None:
        """The copy has arrived, and its threads have waited for it."""
        self._in_flight[granules] = False
        if self._races:
            warps = threads // WARP
            self._written[granules] = self._clocks[warps, warps % self.warps][:, None]
        self.bytes.scatter(flat, values)

    def some_ended(self) -> None:
        """Of copies of one kind, none is left in flight; there may be others."""
        self._anything_in_flight = bool(self._in_flight.any())
