"""What a run returns: how often which class of instruction was executed, by every wave and in total."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from amdgpu_sim.waves import Array, Waves

if TYPE_CHECKING:
    from amdgpu_sim.decoding import Instruction
    from amdgpu_sim.program import Program

MEMORY_CLASSES = (
    "scalar_load", "global_load", "global_store", "global_atomic", "scratch_load", "scratch_store",
    "lds_read", "lds_write", "lds_atomic",
)  # fmt: skip
_LDS_CLASSES = ("lds_read", "lds_write", "lds_atomic")
_COLUMN = {name: n for n, name in enumerate(MEMORY_CLASSES)}
_LDS_COLUMN = {name: 2 * n for n, name in enumerate(_LDS_CLASSES)}


class RunReport:
    """Dynamic counts of one launch, in wave-instructions.

    Waves are numbered in the order of the grid: work-group ``x + grid_x * (y + grid_y * z)`` times the waves
    of a work-group, plus the wave's number in it.
    """

    def __init__(self, program: Program, waves: int = 0) -> None:
        """Nothing has been executed by any of ``waves`` waves."""
        self.program = program
        self.waves = waves
        self._blocks: Array = np.zeros((waves, len(program.blocks)), np.int64)
        self._bytes: Array = np.zeros((waves, len(MEMORY_CLASSES)), np.int64)
        self._lds: Array = np.zeros((waves, 2 * len(_LDS_CLASSES)), np.int64)

    def count(self, block: int, w: Waves) -> None:
        """Record that the waves of ``w`` executed block number ``block``."""
        self._blocks[w.number, block] += 1

    def count_bytes(self, category: str, w: Waves, where: Array, size: int) -> None:
        """Record that the lanes ``where`` accessed ``size`` bytes each."""
        lanes = w.wave_size if where is w.active and w.full else where.sum(1)
        self._bytes[w.number, _COLUMN[category]] += lanes * size

    def count_lds_cycles(self, category: str, w: Waves, cycles: Array, conflicts: Array) -> None:
        """Record for every wave in how many cycles the banks served an access, and how many were conflicts."""
        column = _LDS_COLUMN[category]
        self._lds[w.number, column] += cycles
        self._lds[w.number, column + 1] += conflicts

    def merge(self, arrays: tuple[Array, Array, Array]) -> None:
        """Add the counts of another run of the same launch, as its :meth:`arrays` gives them."""
        for own, other in zip(self.arrays(), arrays, strict=True):
            own += other

    def arrays(self) -> tuple[Array, Array, Array]:
        """The counts: (wave, block) executions, (wave, memory class) bytes, (wave, LDS class and kind) cycles."""
        return self._blocks, self._bytes, self._lds

    def executed(self, wave: int | None = None) -> Iterator[tuple[Instruction, int]]:
        """Every instruction that ran, with how often ``wave`` (default: all waves together) executed it."""
        counts = self._blocks.sum(0) if wave is None else self._blocks[wave]
        for block, times in zip(self.program.blocks, counts.tolist(), strict=True):
            if times:
                for instruction in self.program.instructions[block.begin : block.end]:
                    yield instruction, times

    @property
    def instructions(self) -> int:
        """Wave-instructions executed."""
        lengths = np.array([block.end - block.begin for block in self.program.blocks])
        return int(self._blocks.sum(0) @ lengths)

    def by_category(self, wave: int | None = None) -> dict[str, int]:
        """Wave-instructions of each class ("valu", "matrix", "lds_read"...), of one wave or of all."""
        counts: Counter[str] = Counter()
        for instruction, times in self.executed(wave):
            counts[instruction.category] += times
        return dict(counts)

    def access_widths(self, category: str, wave: int | None = None) -> dict[int, int]:
        """Of a memory class: bytes that a lane (scalar loads: a wave) accesses -> wave-instructions."""
        widths: Counter[int] = Counter()
        for instruction, times in self.executed(wave):
            if instruction.category == category:
                widths[instruction.bytes_per_lane] += times
        return dict(widths)

    def bytes(self, category: str, wave: int | None = None) -> int:
        """Bytes that the lanes of a memory class accessed; lanes that were switched off do not count."""
        column = self._bytes[:, _COLUMN[category]]
        return int(column.sum() if wave is None else column[wave])

    def lds_cycles(self, category: str, wave: int | None = None) -> int:
        """Cycles in which the LDS banks served "lds_read", "lds_write" or "lds_atomic"."""
        column = self._lds[:, _LDS_COLUMN[category]]
        return int(column.sum() if wave is None else column[wave])

    def lds_conflicts(self, category: str, wave: int | None = None) -> int:
        """Those of :meth:`lds_cycles` that bank conflicts added."""
        column = self._lds[:, _LDS_COLUMN[category] + 1]
        return int(column.sum() if wave is None else column[wave])

    @property
    def matrix_flops(self) -> int:
        """Floating-point (or integer) operations of the matrix instructions."""
        return sum(instruction.flops * times for instruction, times in self.executed())

    def __str__(self) -> str:
        """A line for every class, with bytes, widths and conflicts where they apply."""
        lines = [f"{self.waves} waves, {self.instructions} wave-instructions on {self.program.target.name}"]
        for category, times in sorted(self.by_category().items()):
            line = f"{category:14s} {times:10d}"
            if category in _COLUMN:
                widths = ", ".join(f"{n} x {width} B" for width, n in sorted(self.access_widths(category).items()))
                line += f"  {self.bytes(category)} bytes ({widths})"
            if category in _LDS_COLUMN:
                line += f", {self.lds_conflicts(category)} of {self.lds_cycles(category)} bank cycles are conflicts"
            lines.append(line)
        return "\n".join(lines)
