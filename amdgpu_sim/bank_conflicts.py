"""LDS bank conflicts: in how many cycles the banks serve one instruction, and how many of them are conflicts.

LDS has 32 banks of four bytes. An instruction is served in phases, each a fixed set of lanes whose data
would fill the banks; a phase takes one cycle for every different row that its busiest bank has to deliver
(lanes that want the same word share it). Sources: "Understanding AMD GPU LDS and Bank Conflicts" in the
Composable Kernel documentation (32 or 64 banks, eight consecutive lanes a phase for ``ds_write_b128``), the
ROCm blog "Avoiding LDS Bank Conflicts on AMD GPUs" (the lanes of ``ds_read_b128``), and the CDNA 4 white
paper (reads of twice the width: 64 banks).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from amdgpu_sim.targets import Target
from amdgpu_sim.waves import Array

# lanes that a CDNA wave's ds_read_b128 serves together; the second half-wave repeats them
_READ_B128 = ((0, 20), (4, 16), (8, 28), (12, 24))
# the pairs of those phases that gfx950's 64 banks serve at once
_READ_B128_WIDE = ((0, 20, 12, 24), (4, 16, 8, 28))


def bank_count(target: Target, write: bool) -> int:
    """Banks that serve one phase."""
    # assumption: gfx950 doubled reads only, so its stores use half of the banks in a phase
    return 64 if target.name == "gfx950" and not write else 32


@lru_cache(maxsize=64)
def phases(target: Target, size: int, write: bool) -> Array:
    """(phases, lanes): the lanes that an access of ``size`` bytes a lane serves together."""
    lanes = target.wave_size
    banks = bank_count(target, write)
    if size == 16 and not write and target.generation == 9:
        quads = _READ_B128_WIDE if banks == 64 else _READ_B128
        rows = [[half + first + n for first in row for n in range(4)] for half in (0, 32) for row in quads]
        return np.array(rows)
    # assumption: other widths are served in lane order, b96 in the phases of b128
    words = {8: 2, 12: 4, 16: 4}.get(size, 1)
    return np.arange(lanes).reshape(-1, min(lanes, banks // words))


def service_cycles(target: Target, addresses: Array, active: Array, size: int, write: bool) -> tuple[Array, Array]:
    """Cycles and, of them, conflict cycles of one instruction, per wave.

    ``addresses``: (wave, lane) byte addresses; ``active``: lanes that take part; ``size``: bytes a lane.
    """
    lanes = phases(target, size, write)
    banks = bank_count(target, write)
    words = -(-size // 4)
    count = len(addresses)
    word = (addresses[:, lanes] >> 2)[..., None] + np.arange(words)
    word = np.where(active[:, lanes][..., None], word, -1).reshape(count * len(lanes), -1)
    word.sort(axis=1)
    new = np.ones(word.shape, bool)
    new[:, 1:] = word[:, 1:] != word[:, :-1]
    new &= word >= 0
    phase = np.broadcast_to(np.arange(len(word))[:, None], word.shape)[new]
    rows = np.bincount(phase * banks + word[new] % banks, minlength=len(word) * banks)
    busiest = rows.reshape(count, len(lanes), banks).max(2)
    return busiest.sum(1), np.maximum(busiest - 1, 0).sum(1)


class BankCounter:
    """Service cycles of one LDS instruction; remembers the last answer, for addresses repeat in loops."""

    def __init__(self, target: Target, size: int, write: bool) -> None:
        """``size``: bytes a lane accesses."""
        self._target, self._size, self._write = target, size, write
        self._addresses: Array = np.zeros(0, np.int64)
        self._active: Array = np.zeros(0, bool)
        self._answer: tuple[Array, Array] = (self._addresses, self._addresses)

    def __call__(self, addresses: Array, active: Array) -> tuple[Array, Array]:
        """As :func:`service_cycles`."""
        # a shift of all addresses by whole words only renames the banks
        relative = addresses - (addresses[:, :1] & ~3)
        if not (np.array_equal(relative, self._addresses) and np.array_equal(active, self._active)):
            self._addresses, self._active = relative, active.copy()
            self._answer = service_cycles(self._target, addresses, active, self._size, self._write)
        return self._answer
