"""mbarriers of shared memory, and the transfers of the TMA unit that complete on them.

A transfer arrives as late as it can, when nothing else can run any more. Nothing orders transfers: the newest comes
first in every other block, the oldest in those between, so what is read without waiting for its own transfer is found
in one of them, whichever transfer is waited for instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ptx_sim.errors import KernelError, MisalignedError
from ptx_sim.shared_memory import WARP
from ptx_sim.types import Array

if TYPE_CHECKING:
    from ptx_sim.execution import Batch

Key = tuple[int, int]


@dataclass
class _Barrier:
    """``pending`` arrivals and ``bytes`` are outstanding in the phase that runs; ``known`` is for the one before."""

    count: int
    pending: int
    bytes: int = 0
    phase: int = 0
    gathered: Array | None = None
    known: Array | None = None
    parked: list[tuple[int, int, Array]] = field(default_factory=list)


@dataclass(frozen=True)
class Transfer:
    """``deliver()`` writes to shared memory; then ``bytes`` complete on the barrier ``key`` for thread ``lane``."""

    key: Key
    lane: int
    bytes: int
    deliver: Callable[[], None]


@dataclass(frozen=True)
class Arrivals:
    """``deliver()`` writes to shared memory; then the threads ``mask`` arrive at the barriers at ``addresses``."""

    mask: Array
    addresses: Array
    deliver: Callable[[], None]


class Transactions:
    """The mbarriers of all blocks of a batch, by (block, address)."""

    def __init__(self, batch: Batch) -> None:
        """None is initialised."""
        self._batch = batch
        self._barriers: dict[Key, _Barrier] = {}
        self._transfers: list[Transfer | Arrivals] = []

    @property
    def parked(self) -> bool:
        """Whether anybody waits."""
        return any(barrier.parked for barrier in self._barriers.values())

    def keys(self, mask: Array, addresses: Array) -> list[tuple[int, Key]]:
        """(thread, key of its barrier) of the threads ``mask``."""
        t = self._batch.threads
        lanes = np.flatnonzero(mask)
        blocks = lanes // (WARP * t.shared.warps)
        keys = [(int(lane), (int(b), int(addresses[lane]))) for lane, b in zip(lanes, blocks, strict=True)]
        for lane, (_, address) in keys:
            if address % 8:
                raise MisalignedError(f"mbarrier at {address:#x}: not a multiple of 8", lane)
        return keys

    def _at(self, lane: int, key: Key) -> _Barrier:
        if key not in self._barriers:
            raise KernelError(f"no mbarrier was initialised at {key[1]:#x}", lane)
        return self._barriers[key]

    def init(self, mask: Array, addresses: Array, counts: Array) -> None:
        """``mbarrier.init``: phases of ``counts`` arrivals."""
        for lane, key in self.keys(mask, addresses):
            count = int(counts[lane])
            if count < 1:
                raise KernelError(f"mbarrier.init with a count of {count}", lane)
            if key in self._barriers and self._barriers[key].parked:
                raise KernelError(f"mbarrier.init of {key[1]:#x} while threads wait on it", lane)
            self._barriers[key] = _Barrier(count, count)

    def expect(self, mask: Array, addresses: Array, sizes: Array) -> None:
        """Announce bytes of transfers in the phase that runs."""
        for lane, key in self.keys(mask, addresses):
            self._at(lane, key).bytes += int(sizes[lane])

    def arrive(self, mask: Array, addresses: Array) -> None:
        """An arrival of each thread."""
        for lane, key in self.keys(mask, addresses):
            barrier = self._at(lane, key)
            if barrier.pending == 0:
                raise KernelError(f"more arrivals on the mbarrier at {key[1]:#x} than its count {barrier.count}", lane)
            barrier.pending -= 1
            self._gather(barrier, lane)
            self._complete(barrier)

    def _gather(self, barrier: _Barrier, lane: int) -> None:
        known = self._batch.threads.shared.release(lane // WARP)
        if known is not None:
            barrier.gathered = known if barrier.gathered is None else np.maximum(barrier.gathered, known)

    def _complete(self, barrier: _Barrier) -> None:
        if barrier.pending or barrier.bytes:
            return
        barrier.phase ^= 1
        barrier.pending = barrier.count
        barrier.known, barrier.gathered = barrier.gathered, None
        waiting, barrier.parked = barrier.parked, []
        for parity, position, mask in waiting:
            if parity == barrier.phase:
                barrier.parked.append((parity, position, mask))
            else:
                self._pass(barrier, mask)
                self._batch.wake(position, mask)

    def _pass(self, barrier: _Barrier, mask: Array) -> None:
        self._batch.threads.shared.acquire(np.flatnonzero(mask.reshape(-1, WARP).any(1)), barrier.known)

    def wait(self, mask: Array, addresses: Array, parities: Array) -> None:
        """The threads ``mask`` wait for the end of the phase of each one's parity, and go on behind the block."""
        t = self._batch.threads
        groups: dict[tuple[Key, int], list[int]] = {}
        for lane, key in self.keys(mask, addresses):
            groups.setdefault((key, int(parities[lane]) & 1), []).append(lane)
        position = self._batch.next_position
        passing = np.zeros(t.count, bool)
        for (key, parity), lanes in groups.items():
            barrier = self._at(lanes[0], key)
            ours = np.zeros(t.count, bool)
            ours[lanes] = True
            if barrier.phase != parity:
                self._pass(barrier, ours)
                passing |= ours
            else:
                barrier.parked.append((parity, position, ours))
        self._batch.go(position, passing)

    def completed(self, mask: Array, addresses: Array, parities: Array) -> Array:
        """Of every thread, whether the phase of its parity has ended (``mbarrier.test_wait``)."""
        done = np.zeros(self._batch.threads.count, bool)
        for lane, key in self.keys(mask, addresses):
            barrier = self._at(lane, key)
            done[lane] = barrier.phase != int(parities[lane]) & 1
            if done[lane]:
                ours = np.zeros(len(done), bool)
                ours[lane] = True
                self._pass(barrier, ours)
        return done

    def begin(self, transfer: Transfer) -> None:
        """A transfer is on its way."""
        self._at(transfer.lane, transfer.key)
        self._transfers.append(transfer)

    def begin_arrivals(self, mask: Array, addresses: Array, deliver: Callable[[], None]) -> None:
        """What the threads ``mask`` copy is on its way, and behind it their arrivals, which the counts have."""
        for lane, key in self.keys(mask, addresses):
            self._at(lane, key)
        self._transfers.append(Arrivals(mask, addresses, deliver))

    def deliver(self) -> bool:
        """Let a transfer arrive; whether there was one."""
        if not self._transfers:
            return False
        transfer = self._transfers.pop(self._next())
        transfer.deliver()
        if isinstance(transfer, Arrivals):
            self.arrive(transfer.mask, transfer.addresses)
            return True
        barrier = self._at(transfer.lane, transfer.key)
        if barrier.bytes < transfer.bytes:
            raise KernelError(
                f"a transfer of {transfer.bytes} bytes arrives at the mbarrier at {transfer.key[1]:#x}, "
                f"which expects {barrier.bytes}",
                transfer.lane,
            )
        barrier.bytes -= transfer.bytes
        self._gather(barrier, transfer.lane)
        if not self._transfers:
            self._batch.threads.shared.some_ended()
        self._complete(barrier)
        return True

    def _next(self) -> int:
        """Place of the transfer that arrives next: the newest, or the oldest of its block."""
        blocks = [self._block(transfer) for transfer in self._transfers]
        oldest_first = sum(self._batch.block_name(blocks[-1])) % 2
        return blocks.index(blocks[-1]) if oldest_first else -1

    def _block(self, transfer: Transfer | Arrivals) -> int:
        if isinstance(transfer, Transfer):
            return transfer.key[0]
        return int(transfer.mask.argmax()) // (WARP * self._batch.threads.shared.warps)

    def describe(self) -> str:
        """Who waits, for the message of a deadlock."""
        t = self._batch.threads
        lines = []
        for (block, address), barrier in self._barriers.items():
            for parity, _, mask in barrier.parked:
                warps = sorted({int(warp) % t.shared.warps for warp in np.flatnonzero(mask) // WARP})
                lines.append(
                    f"block {self._batch.block_name(block)}: warps {warps} at the mbarrier at {address:#x} for phase "
                    f"{parity}, which lacks {barrier.pending} of {barrier.count} arrivals and {barrier.bytes} bytes"
                )
        return "; ".join(lines)
