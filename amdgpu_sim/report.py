"""What a run returns: how often which class of instruction was executed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amdgpu_sim.decoding import Instruction
    from amdgpu_sim.program import Program


class RunReport:
    """Dynamic counts of one launch, in wave-instructions.

    Bytes assume that all lanes of a wave take part.
    """

    def __init__(self, program: Program) -> None:
        """Nothing has been executed."""
        self.program = program
        self.waves = 0
        self._blocks: Counter[int] = Counter()

    def count(self, block: int, waves: int) -> None:
        """Record that ``waves`` waves executed block number ``block``."""
        self._blocks[block] += waves

    def executed(self) -> Iterator[tuple[Instruction, int]]:
        """Every instruction that ran, with how many waves executed it (loops counted)."""
        for number, times in self._blocks.items():
            block = self.program.blocks[number]
            for instruction in self.program.instructions[block.begin : block.end]:
                yield instruction, times

    @property
    def instructions(self) -> int:
        """Wave-instructions executed."""
        return sum(times for _, times in self.executed())

    def by_category(self) -> dict[str, int]:
        """Wave-instructions of each class ("valu", "matrix", "lds_read"...)."""
        counts: Counter[str] = Counter()
        for instruction, times in self.executed():
            counts[instruction.category] += times
        return dict(counts)

    def bytes(self, category: str) -> int:
        """Bytes that the instructions of a memory class moved."""
        lanes = 1 if category == "scalar_load" else self.program.target.wave_size
        return sum(i.bytes_per_lane * times * lanes for i, times in self.executed() if i.category == category)

    @property
    def matrix_flops(self) -> int:
        """Floating-point (or integer) operations of the matrix instructions."""
        return sum(instruction.flops * times for instruction, times in self.executed())
