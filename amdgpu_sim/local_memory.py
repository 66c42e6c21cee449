"""LDS of the work-groups that run together: bounds, definedness and races between waves.

Every byte carries the stamp of its last writer and of its last reader: ``epoch << 5 | wave + 1``, where the
epoch counts the work-group's barriers. Two accesses of one epoch by different waves, one of them a write,
are a race unless the write leaves the byte as it was.
"""

from __future__ import annotations

import numpy as np

from amdgpu_sim.errors import LdsRaceError, OutOfBoundsError
from amdgpu_sim.memory import Block, undefined_bytes, undefined_registers
from amdgpu_sim.waves import Array, Waves

_SHARED = 31
_LAST_EPOCH = 2047


class LocalMemory:
    """LDS of ``groups`` work-groups of ``size`` bytes each; ``check_races`` as the name says."""

    def __init__(self, groups: int, size: int, check_races: bool) -> None:
        """All bytes start undefined, at epoch 1."""
        self.size, self.stride, self.check_races = size, -(-size // 16) * 16, check_races
        self.data = Block(np.full(groups * self.stride, 0xAD, np.uint8))
        self._writer, self._reader = np.zeros((2, groups * self.stride), np.uint16)
        self._writers, self._readers = Block(self._writer.view(np.uint8)), Block(self._reader.view(np.uint8))
        self.epochs: Array = np.ones(groups, np.int64)

    def stamp(self, w: Waves) -> None:
        """Refresh the stamp with which the waves of ``w`` mark bytes."""
        w.writer = ((self.epochs[w.group] << 5) | (w.wave % 30 + 1)).astype(np.uint16)[:, None]

    def pass_barrier(self, groups: Array) -> None:
        """All waves of ``groups`` met at a barrier."""
        self.epochs[groups] += 1
        for group in groups[self.epochs[groups] >= _LAST_EPOCH]:
            part = slice(group * self.stride, (group + 1) * self.stride)
            self._writer[part][self._writer[part] > 0] = _SHARED
            self._reader[part] = 0
            self.epochs[group] = 1

    def offsets(self, w: Waves, where: Array, addresses: Array, size: int, what: str) -> Array:
        """Offsets of the lanes ``where`` (addresses (wave, lane), int64) after the bounds check."""
        picked = addresses[where]
        if len(picked) and (int(picked.min()) < 0 or int(picked.max()) + size > self.size):
            position = int(np.flatnonzero((picked < 0) | (picked + size > self.size))[0])
            slot, lane = (int(x[position]) for x in np.nonzero(where))
            raise OutOfBoundsError(
                f"LDS {what} of {size} bytes at {int(picked[position])}: LDS has {self.size} bytes",
                slot,
                lane,
            )
        return picked + np.broadcast_to(w.lds_base, where.shape)[where]

    def _marks(self, block: Block, offsets: Array, size: int) -> Array:
        return block.gather(offsets * 2, size * 2).view(np.uint16)

    def _race(self, where: Array, bad: Array, marks: Array, what: str) -> LdsRaceError:
        position = int(np.flatnonzero(bad.any(1))[0])
        slot, lane = (int(x[position]) for x in np.nonzero(where))
        code = int(marks[position][bad[position]][0]) & 31
        other = "several waves" if code == _SHARED else f"wave {code - 1}"
        return LdsRaceError(f"LDS race: {what} with {other}, no barrier between", slot, lane)

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
            self._mark_read(offsets, size, stamps)
        return self.data.gather(offsets, size), undefined_registers(written == 0)

    def _mark_read(self, offsets: Array, size: int, stamps: Array) -> None:
        seen = self._marks(self._readers, offsets, size)
        other = ((seen >> 5) == (stamps >> 5)) & (seen != stamps)
        marks = np.where(other, stamps | _SHARED, stamps).astype(np.uint16)
        self._readers.scatter(offsets * 2, marks.view(np.uint8))
        lost = (self._marks(self._readers, offsets, size) != marks).any(1)
        if lost.any():
            shared = np.broadcast_to(stamps[lost] | _SHARED, (int(lost.sum()), size)).astype(np.uint16)
            self._readers.scatter(offsets[lost] * 2, np.ascontiguousarray(shared).view(np.uint8))

    def store(self, w: Waves, where: Array, offsets: Array, values: Array, undefined: Array | None) -> None:
        """Store the rows of ``values``; words flagged in ``undefined`` stay undefined."""
        if not len(offsets):
            return
        size = values.shape[1]
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
        if self.check_races:
            now = self._marks(self._writers, offsets, size)
            clash = (now != marks) & (self.data.gather(offsets, size) != values)
            if clash.any():
                raise self._race(where, clash, now, "two writes")
