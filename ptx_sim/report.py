"""What a launch returns: how often which class of instruction was executed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from ptx_sim.types import Array

if TYPE_CHECKING:
    from ptx_sim.program import Program


class RunReport:
    """Dynamic counts of one launch in warp-instructions (an instruction of a warp counts once)."""

    def __init__(self, program: Program) -> None:
        """Nothing has been executed."""
        self.program = program
        self.executions: Array = np.zeros(len(program.blocks), np.int64)
        self.thread_blocks = 0

    @property
    def instructions(self) -> int:
        """Warp-instructions executed."""
        return sum(self.by_category().values())

    def by_category(self) -> dict[str, int]:
        """Warp-instructions of each class: "alu", "matrix", "shared_load", "global_store"..."""
        counts: Counter[str] = Counter()
        for block, times in zip(self.program.blocks, self.executions.tolist(), strict=True):
            if times:
                for entry in self.program.entries[block.begin : block.end]:
                    counts[entry.category] += times
        return dict(counts)

    def __str__(self) -> str:
        """A line for every class."""
        lines = [f"{self.thread_blocks} thread blocks, {self.instructions} warp-instructions"]
        lines += [f"{category:16s} {times:10d}" for category, times in sorted(self.by_category().items())]
        return "\n".join(lines)
