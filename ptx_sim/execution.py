"""Runs launches: batches of thread blocks whose threads run together as far as they agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ptx_sim.async_copies import AsyncCopies
from ptx_sim.barriers import Barriers
from ptx_sim.control_flow import BasicBlock
from ptx_sim.errors import DeadlockError, KernelError
from ptx_sim.instructions.warpgroup_matrix import WARPGROUP, Products
from ptx_sim.memory import GlobalMemory, LocalMemory
from ptx_sim.program import Program
from ptx_sim.report import RunReport
from ptx_sim.shared_memory import WARP, SharedMemory
from ptx_sim.tensor_stores import TensorStores
from ptx_sim.threads import Shape, Threads
from ptx_sim.transactions import Transactions
from ptx_sim.types import Array

# turns of a loop that polls after which others run in between
_PATIENCE = 500
# times that nobody but those who poll or sleep could run, after which nobody will help them
_IDLE_TURNS = 500


def run(
    program: Program,
    shape: Shape,
    parameters: Array,
    memory: GlobalMemory,
    *,
    check_races: bool = True,
    threads_per_batch: int = 1024,
    max_instructions: int = 10**9,
) -> RunReport:
    """Run ``program`` over the grid; ``parameters`` (uint8) is the parameter buffer.

    ``threads_per_batch`` bounds the blocks that run side by side, ``max_instructions`` the warp-instructions of a
    batch. Raises a :class:`KernelError` subclass at the first mistake of the kernel.
    """
    report = RunReport(program)
    blocks = shape.grid[0] * shape.grid[1] * shape.grid[2]
    together = max(1, threads_per_batch // (shape.warps * WARP))
    memory.add_array(parameters, "the kernel's parameters", writable=False)
    with np.errstate(all="ignore"):
        for begin in range(0, blocks, together):
            numbers = range(begin, min(begin + together, blocks))
            Batch(program, shape, numbers, parameters, memory, report, check_races, max_instructions).run()
    report.thread_blocks = blocks
    return report


class Batch:
    """Blocks that run together; what instructions see as ``threads.batch``.

    ``ready`` holds, by position, the threads that may go on there; the lowest position goes on first.
    """

    def __init__(
        self,
        program: Program,
        shape: Shape,
        blocks: Sequence[int],
        parameters: Array,
        memory: GlobalMemory,
        report: RunReport,
        check_races: bool,
        budget: int,
    ) -> None:
        """``blocks`` are numbers in the grid."""
        size = program.shared_bytes(shape.dynamic_shared)
        shared = SharedMemory(len(blocks), size, shape.warps, program.granule, check_races)
        lanes = len(blocks) * shape.warps * WARP
        t = self.threads = Threads(shape, blocks, program.registers(lanes), shared, memory)
        t.batch, t.copies, t.parameters = self, AsyncCopies(lanes), parameters.ctypes.data
        t.local = LocalMemory(lanes, program.local_bytes)
        self.barriers, self.transactions = Barriers(self), Transactions(self)
        t.products = Products(-(-lanes // WARPGROUP))
        t.stores = TensorStores()
        self.program, self.report, self.budget = program, report, budget
        self.steps: int = 0
        self._blocks = blocks
        self._ready: dict[int, Array] = {}
        self._asleep: dict[int, Array] = {}
        self._idle = 0
        # whether an instruction looked at memory that others may change since the latest turn of a loop
        self.polled = False
        self._all_live = t.everyone
        self._block: BasicBlock = program.blocks[0]
        self._moved = False
        self._left: Array | None = None

    def run(self) -> None:
        """Run all blocks to their end."""
        t, nodes = self.threads, self.program.nodes
        self._ready = {self.program.blocks[0].position: t.live}
        turns = 0
        while self._some_ready():
            position = min(self._ready)
            mask = self._ready.pop(position)
            node = nodes[position]
            if node < 0:
                turns = turns + 1 if self.polled else 0
                self.polled = False
                if turns > (_PATIENCE if self._idle == 0 else 1):
                    turns = 0
                    _add(self._asleep, ~node, mask)
                else:
                    self.go(~node, mask)
                continue
            t.full = not self._ready and not self._asleep and not self._parked
            t.mask = t.live if t.full else mask
            t.everyone = t.full and self._all_live
            self._run_block(node)

    def _some_ready(self) -> bool:
        while not self._ready:
            delivered = self.transactions.deliver()
            if self._asleep:
                self._idle = 0 if delivered else self._idle + 1
            for position, mask in self._asleep.items():
                _add(self._ready, position, mask)
            self._asleep = {}
            if self._idle > _IDLE_TURNS:
                raise DeadlockError("every thread that can run waits for something that nobody does")
            if not delivered:
                break
        if self._ready:
            return True
        if self._parked:
            waiting = filter(None, (self.barriers.describe(), self.transactions.describe()))
            raise DeadlockError(f"nothing can run any more: {'; '.join(waiting)}")
        return False

    @property
    def _parked(self) -> bool:
        return self.barriers.parked or self.transactions.parked

    def _run_block(self, number: int) -> None:
        t = self.threads
        block = self._block = self.program.blocks[number]
        warps = t.count // WARP if t.everyone else int(t.mask.reshape(-1, WARP).any(1).sum())
        self.report.executions[number] += warps
        self.steps += block.end - block.begin
        self.budget -= warps * (block.end - block.begin)
        if self.budget < 0:
            raise DeadlockError("instruction budget exhausted: the kernel does not end")
        self._moved, self._left = False, None
        mask = t.mask
        position = 0
        try:
            for position, execute in enumerate(self.program.code[number]):  # noqa: B007 - names the culprit
                execute(t)
        except KernelError as fault:
            fault.locate(self._where(fault, block.begin + position))
            raise
        if block.begin == block.end:
            self.leave(mask)
        if not self._moved:
            rest = mask if self._left is None else mask & ~self._left
            self.go(block.next_position, rest)

    @property
    def next_position(self) -> int:
        """Where threads go on behind the block that runs."""
        return self._block.next_position

    def go(self, position: int, mask: Array) -> None:
        """The threads ``mask`` go on at a position."""
        self._moved = True
        _add(self._ready, position, mask)

    def wake(self, position: int, mask: Array) -> None:
        """Threads other than the executing ones go on at a position."""
        _add(self._ready, position, mask)

    def fall_through(self) -> None:
        """The executing threads go on behind the block that runs."""
        self.go(self._block.next_position, self.threads.mask)

    def branch(self, taken: Array, target: int) -> None:
        """The threads ``taken`` leave for a target of the block's branch; the others go on behind it."""
        if taken.any():
            _add(self._ready, self._block.target_positions[target], taken)
            self._left = taken if self._left is None else self._left | taken

    def leave(self, mask: Array) -> None:
        """The threads ``mask`` end."""
        if mask.any():
            t = self.threads
            self._left = mask if self._left is None else self._left | mask
            t.live = t.live & ~mask
            self._all_live = False
            self.barriers.threads_left()
            t.stores.threads_left(mask)

    def let_others_run(self) -> None:
        """The executing threads go on behind the block when nobody else can run."""
        self._moved = True
        _add(self._asleep, self._block.next_position, self.threads.mask)

    def block_name(self, number: int) -> tuple[int, int, int]:
        """Coordinates in the grid of a block of the batch."""
        place, (x, y, _) = self._blocks[number], self.threads.shape.grid
        return place % x, place // x % y, place // (x * y)

    def _where(self, fault: KernelError, position: int) -> str:
        t = self.threads
        lane = fault.lane
        if lane is None and fault.place is not None:
            lane = int(t.active[fault.place])
        where = self.program.where(self.program.kernel.statements[position])
        if lane is None:
            return where
        return f"{where}, block {self.block_name(lane // (t.shape.warps * WARP))}, thread {int(t.thread[lane])}"


def _add(places: dict[int, Array], position: int, mask: Array) -> None:
    if position in places:
        places[position] = places[position] | mask
    elif mask.any():
        places[position] = mask
