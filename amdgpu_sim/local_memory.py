"""LDS of the work-groups that run together: bounds, definedness and races between waves.

Every byte carries the stamp of its last writer and of its last reader: ``epoch << 5 | wave + 1``, where the
epoch counts the work-group's barriers. Two accesses of one epoch by different waves, one of them a write,
are a race unless the write leaves the byte as it was.

A barrier publishes only what its writer has waited for. Every byte also carries the ticket of its last store:
the store's number in its wave's sequence (0: ``ds_`` stores, 1: loads straight to LDS; each completes in order)
times two, plus the sequence. At a barrier every wave notes how far each of its sequences is complete; a read by
another wave of a byte with a later ticket is a race. Atomics do not race with each other.
"""

from __future__ import annotations

import numpy as np

from amdgpu_sim.errors import LdsRaceError, MissingWaitError, OutOfBoundsError
from amdgpu_sim.memory import Block, undefined_bytes, undefined_registers
from amdgpu_sim.waves import Array, Waves

_SHARED = 31
_LAST_EPOCH = 2047


class LocalMemory:
    """LDS of ``groups`` work-groups of ``size`` bytes each; ``check_races`` as the name says.

    ``follow_stores`` keeps tickets, for the checks that stores were waited for.
    """

    def __init__(self, groups: int, size: int, check_races: bool, follow_stores: bool = False) -> None:
        """All bytes start undefined, at epoch 1."""
        self.size, self.stride, self.check_races = size, -(-size // 16) * 16, check_races
        self.data = Block(np.full(groups * self.stride, 0xAD, np.uint8))
        self._writer, self._reader = np.zeros((2, groups * self.stride), np.uint16)
        self._writers, self._readers = Block(self._writer.view(np.uint8)), Block(self._reader.view(np.uint8))
        self._atomic: Array = np.zeros(groups * self.stride, bool)
        self._atomics = Block(self._atomic.view(np.uint8))
        self._any_atomic = False
        self.epochs: Array = np.ones(groups, np.int64)
        self.follow_stores = follow_stores
        self._tickets = Block(np.zeros(4 * groups * self.stride * follow_stores, np.uint8))
        self._complete: Array = np.zeros((groups, _SHARED, 2), np.int64)
        self._incomplete = False

    def stamp(self, w: Waves) -> None:
        """Refresh the stamp with which the waves of ``w`` mark bytes."""
        w.writer = ((self.epochs[w.group] << 5) | (w.wave % 30 + 1)).astype(np.uint16)[:, None]

    def publish(self, waves: list[tuple[Waves, tuple[int, int]]]) -> None:
        """Bundles at a barrier, with the stores of each sequence that they have not waited for."""
        self._incomplete = any(in_flight != (0, 0) for _, in_flight in waves)
        for w, in_flight in waves:
            self._complete[w.group, w.wave % 30] = w.lds_stores - in_flight

    def leave(self, w: Waves) -> None:
        """The waves of ``w`` end, and with them their stores complete."""
        self._complete[w.group, w.wave % 30] = w.lds_stores

    def pass_barrier(self, groups: Array) -> None:
        """All waves of ``groups`` met at a barrier."""
        self.epochs[groups] += 1
        for group in groups[self.epochs[groups] >= _LAST_EPOCH]:
            part = slice(group * self.stride, (group + 1) * self.stride)
            self._writer[part][self._writer[part] > 0] = _SHARED
            self._reader[part] = 0
            self.epochs[group] = 1

    def offsets(self, w: Waves, where: Array, addresses: Array, size: int, what: str) -> Array:
        """Offsets of the lanes ``where`` (addresses (wave, lane), int64) after the bounds check.

        An address is the sum of a base and an offset in 32 bits, so that a base may be negative.
        """
        picked = addresses[where] & 0xFFFFFFFF
        if len(picked) and int(picked.max()) + size > self.size:
            position = int(np.flatnonzero(picked + size > self.size)[0])
            slot, lane = (int(x[position]) for x in np.nonzero(where))
            raise OutOfBoundsError(
                f"LDS {what} of {size} bytes at {int(picked[position])}: LDS has {self.size} bytes",
                slot,
                lane,
            )
        return picked + np.broadcast_to(w.lds_base, where.shape)[where]

    def _marks(self, block: Block, offsets: Array, size: int) -> Array:
        return block.gather(offsets * 2, size * 2).view(np.uint16)

    def _race(self, where: Array, bad: Array, marks: Array, what: str, why: str = "no barrier between") -> LdsRaceError:
        position = int(np.flatnonzero(bad.any(1))[0])
        slot, lane = (int(x[position]) for x in np.nonzero(where))
        code = int(marks[position][bad[position]][0]) & 31
        other = "several waves" if code == _SHARED else f"wave {code - 1}"
        return LdsRaceError(f"LDS race: {what} with {other}, {why}", slot, lane)

    def load(self, w: Waves, where: Array, offsets: Array, size: int) -> tuple[Array, Array | None]:
        """Bytes (n, size) at ``offsets`` and which 4-byte words were never written (None: no word)."""
        if not len(offsets):
            return np.zeros((0, size), np.uint8), None
        written = self._marks(self._writers, offsets, size)
        if self.check_races:
            stamps = np.broadcast_to(w.writer, where.shape)[where][:, None]
            same_epoch = (written >> 5) == (stamps >> 5)
            bad = same_epoch & (written != stamps) & (written & 31 != _SHARED)
            if bad.any():
                raise self._race(where, bad, written, "read after a write")
            if self._incomplete:
                self._check_published(where, offsets, written, stamps)
            self._mark_read(offsets, size, stamps)
        return self.data.gather(offsets, size), undefined_registers(written == 0)

    def _check_published(self, where: Array, offsets: Array, written: Array, stamps: Array) -> None:
        tickets = self._tickets.gather(offsets * 4, written.shape[1] * 4).view(np.uint32).astype(np.int64)
        code = (written & 31).astype(np.int64)
        complete = self._complete[(offsets // self.stride)[:, None], np.maximum(code, 1) - 1, tickets & 1]
        bad = (code != (stamps & 31)) & (code != 0) & (code != _SHARED) & (tickets >> 1 > complete)
        if bad.any():
            why = "which did not wait for it before the barrier"
            raise self._race(where, bad, written, "read after a write", why)

    def check_arrived(self, w: Waves, where: Array, offsets: Array, size: int, in_flight: int) -> None:
        """Raise MissingWaitError if a wave reads what one of its last ``in_flight`` loads straight to LDS brings."""
        tickets = self._tickets.gather(offsets * 4, size * 4).view(np.uint32).astype(np.int64)
        wave = np.broadcast_to(w.writer & 31, where.shape)[where][:, None]
        own = (self._marks(self._writers, offsets, size) & 31) == wave
        complete = np.broadcast_to(w.lds_stores[:, 1:] - in_flight, where.shape)[where][:, None]
        bad = own & (tickets & 1 == 1) & (tickets >> 1 > complete)
        if bad.any():
            slot, lane = (int(x[bad.any(1).argmax()]) for x in np.nonzero(where))
            raise MissingWaitError(
                "reads LDS that a load straight to LDS has yet to fill: no wait covers it", slot, lane
            )

    def _ticket(self, w: Waves, where: Array, offsets: Array, size: int, sequence: int) -> None:
        tickets = 2 * w.lds_stores[:, sequence, None] + sequence if sequence >= 0 else np.zeros((1, 1), np.int64)
        lanes = np.broadcast_to(tickets.astype(np.uint32), where.shape)[where]
        self._tickets.scatter(offsets * 4, np.repeat(lanes[:, None], size, axis=1).view(np.uint8))

    def fetch(self, offsets: Array, size: int) -> tuple[Array, Array | None]:
        """What an atomic finds: as :meth:`load`, which marks the bytes as read."""
        return self.data.gather(offsets, size), undefined_registers(self._marks(self._writers, offsets, size) == 0)

    def _mark_read(self, offsets: Array, size: int, stamps: Array) -> None:
        seen = self._marks(self._readers, offsets, size)
        other = ((seen >> 5) == (stamps >> 5)) & (seen != stamps)
        marks = np.where(other, stamps | _SHARED, stamps).astype(np.uint16)
        self._readers.scatter(offsets * 2, marks.view(np.uint8))
        lost = (self._marks(self._readers, offsets, size) != marks).any(1)
        if lost.any():
            shared = np.broadcast_to(stamps[lost] | _SHARED, (int(lost.sum()), size)).astype(np.uint16)
            self._readers.scatter(offsets[lost] * 2, np.ascontiguousarray(shared).view(np.uint8))

    def store(
        self,
        w: Waves,
        where: Array,
        offsets: Array,
        values: Array,
        undefined: Array | None = None,
        sequence: int = 0,
        atomic: bool = False,
    ) -> None:
        """Store the rows of ``values``; words flagged in ``undefined`` stay undefined.

        ``sequence`` is the store's (see the module's text; -1: not followed). ``atomic`` stores do not race with
        each other.
        """
        size = values.shape[1]
        if not len(offsets):
            return
        if self.follow_stores:
            self._ticket(w, where, offsets, size, sequence)
        stamps = np.broadcast_to(w.writer, where.shape)[where][:, None]
        marks = np.broadcast_to(stamps, values.shape)
        if undefined is not None:
            marks = np.where(undefined_bytes(undefined, size), np.uint16(0), marks)
        if self.check_races:
            written, seen = (
                self._marks(self._writers, offsets, size),
                self._marks(self._readers, offsets, size),
            )
            other_writer = ((written >> 5) == (stamps >> 5)) & (written != stamps) & (written & 31 != _SHARED)
            other_reader = ((seen >> 5) == (stamps >> 5)) & (seen != stamps)
            if atomic:
                other_writer &= self._atomics.gather(offsets, size) == 0
            if other_writer.any() or other_reader.any():
                changes = self.data.gather(offsets, size) != values
                for bad, codes, what in (
                    (other_writer & changes, written, "write after a write"),
                    (other_reader & changes, seen, "write after a read"),
                ):
                    if bad.any():
                        raise self._race(where, bad, codes, what)
        self.data.scatter(offsets, values)
        self._writers.scatter(offsets * 2, np.ascontiguousarray(marks).view(np.uint8))
        if atomic or self._any_atomic:
            self._any_atomic = True
            self._atomics.scatter(offsets, np.full(values.shape, atomic, np.uint8))
        if self.check_races and not atomic:
            now = self._marks(self._writers, offsets, size)
            clash = (now != marks) & (self.data.gather(offsets, size) != values)
            if clash.any():
                raise self._race(where, clash, now, "two writes")
