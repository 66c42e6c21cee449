"""Runs launches: batches of work-groups in lockstep bundles of waves that split at divergent branches."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from amdgpu_sim.decoding import Instruction
from amdgpu_sim.definedness import check_sinks, execute_checked
from amdgpu_sim.entry_state import make_waves, pack_arguments
from amdgpu_sim.errors import DeadlockError, KernelError, MissingWaitError, UnsupportedStateError
from amdgpu_sim.instructions.control import branch_taken
from amdgpu_sim.local_memory import LocalMemory
from amdgpu_sim.memory import GlobalMemory
from amdgpu_sim.process_pool import run_in_processes
from amdgpu_sim.program import BasicBlock, Program
from amdgpu_sim.report import RunReport
from amdgpu_sim.wait_counters import WaitChecker
from amdgpu_sim.waves import Array, Waves

_MAX_LDS_WAVES = 30


def launch(
    program: Program,
    grid: Sequence[int],
    workgroup: Sequence[int],
    arguments: Sequence[Any],
    *,
    memory: GlobalMemory | None = None,
    lds_bytes: int | None = None,
    seed: int | None = None,
    lockstep: bool = True,
    check_waits: bool = True,
    check_races: bool = True,
    waves_per_batch: int = 32,
    max_instructions: int = 10**9,
    processes: int = 1,
) -> RunReport:
    """Run ``program`` over ``grid`` work-groups of ``workgroup`` work-items (x, y, z each).

    ``arguments`` are such as :func:`simulated_device.arguments.packed` takes: arrays, tensors, integers, floats,
    None (null) or raw bytes; ``memory`` holds further allocations, to which addresses given as integers may
    point. ``lds_bytes`` is the LDS of a work-group (default: what the kernel declares). ``seed`` shuffles
    work-groups and waves; with ``lockstep`` false every wave runs on its own, interleaved by the seed.
    ``max_instructions`` bounds the wave-instructions of a batch. ``processes`` share the work-groups (see
    :mod:`amdgpu_sim.process_pool`). Raises a :class:`KernelError` subclass at the first
    mistake of the kernel.
    """
    if processes < 1:
        raise ValueError(f"processes: {processes} given, at least 1 expected")
    memory = memory or GlobalMemory()
    grid, workgroup = ([*shape, 1, 1][:3] for shape in (grid, workgroup))
    size = program.facts.lds_bytes if lds_bytes is None else max(lds_bytes, program.facts.lds_bytes)
    dynamic_lds = size - program.facts.lds_bytes
    kernarg = pack_arguments(program.kernel, grid, workgroup, arguments, memory, dynamic_lds)
    memory.add(kernarg.ctypes.data, kernarg, "the kernel's arguments", writable=False)
    ids = np.array([(x, y, z) for z in range(grid[2]) for y in range(grid[1]) for x in range(grid[0])], np.int64)
    ids = ids.reshape(-1, 3)
    if seed is not None:
        ids = ids[np.random.default_rng(seed).permutation(len(ids))]
    waves_each = -(-(workgroup[0] * workgroup[1] * workgroup[2]) // program.target.wave_size)
    races = check_races and 1 < waves_each <= _MAX_LDS_WAVES
    together = max(1, waves_per_batch // waves_each)
    place = np.array([1, grid[0], grid[0] * grid[1]])
    waits = WaitChecker(program.target, program.instructions) if check_waits else None

    def run(some: Array) -> RunReport:
        report = RunReport(program, len(ids) * waves_each)
        chooser = random.Random(seed)
        with np.errstate(all="ignore"):
            for begin in range(0, len(some), together):
                groups = some[begin : begin + together]
                lds = LocalMemory(len(groups), size, races, check_waits and (races or _loads_to_lds(program)))
                batch = Batch(program, groups, memory, lds, waits, report, max_instructions)
                waves = make_waves(program, groups, workgroup, kernarg)
                waves.number = (groups @ place)[waves.group] * waves_each + waves.wave
                batch.run(waves, chooser, seed is not None, lockstep)
        return report

    parts = [ids[n::processes] for n in range(min(processes, len(ids)))]
    if len(parts) <= 1:
        return run(ids)
    report = RunReport(program, len(ids) * waves_each)
    for counts in run_in_processes(parts, memory, lambda some: run(some).arrays()):
        report.merge(counts)
    return report


def _loads_to_lds(program: Program) -> bool:
    return any(instruction.lds_store == 1 for instruction in program.instructions)


class Batch:
    """Work-groups that run together; what instructions see as ``waves.machine``."""

    def __init__(
        self,
        program: Program,
        groups: Array,
        memory: GlobalMemory,
        lds: LocalMemory,
        waits: WaitChecker | None,
        report: RunReport,
        budget: int,
    ) -> None:
        """``groups`` are the (n, 3) ids; ``budget`` bounds the wave-instructions."""
        self.program, self.groups, self.memory, self.lds = program, groups, memory, lds
        self.waits, self.report, self.budget = waits, report, budget
        self._fills_lds = {id(i): n for n, i in enumerate(program.instructions)} if _loads_to_lds(program) else {}

    @staticmethod
    def unsupported_state(what: str) -> UnsupportedStateError:
        """The fault for run-time behaviour that is not modelled."""
        return UnsupportedStateError(f"{what} is not modelled")

    def run(self, waves: Waves, chooser: random.Random, shuffled: bool, lockstep: bool) -> None:
        """Run all waves to their end."""
        waves.machine = self
        waves.lds_base = (waves.group * self.lds.stride)[:, None]
        waves.position = self.program.entry_block
        order = list(range(waves.count))
        if shuffled:
            chooser.shuffle(order)
        ready = [waves.take(np.array(order))] if lockstep else [waves.take(np.array([slot])) for slot in order]
        for bundle in ready:
            self.lds.stamp(bundle)
        parked: list[Waves] = []
        while ready or parked:
            if not ready:
                ready = self._release(parked, lockstep)
                parked = []
            bundle = self._choose(ready, chooser, shuffled)
            for part in self._run_block(bundle):
                (parked if part.position < 0 else ready).append(part)

    def _choose(self, ready: list[Waves], chooser: random.Random, shuffled: bool) -> Waves:
        """Take the next bundle: a random one if shuffled, else those that are furthest behind, joined."""
        if len(ready) == 1:
            return ready.pop()
        if shuffled:
            return ready.pop(chooser.randrange(len(ready)))
        lowest = min(bundle.position for bundle in ready)
        state = next(bundle.wait_state for bundle in ready if bundle.position == lowest)
        chosen = [b for b in ready if b.position == lowest and b.wait_state == state]
        ready[:] = [b for b in ready if b.position != lowest or b.wait_state != state]
        return Waves.join(chosen)

    def _release(self, parked: list[Waves], lockstep: bool) -> list[Waves]:
        """Every wave that still lives stands at a barrier: let them pass."""
        if self.waits and self.lds.follow_stores:
            self.lds.publish([(bundle, self.waits.open_lds_stores(bundle.wait_state)) for bundle in parked])
        self.lds.pass_barrier(np.unique(np.concatenate([bundle.group for bundle in parked])))
        for bundle in parked:
            bundle.position = ~bundle.position
            self.lds.stamp(bundle)
        if not lockstep:
            return parked
        bundles: dict[tuple[int, int], list[Waves]] = {}
        for bundle in parked:
            bundles.setdefault((bundle.position, bundle.wait_state), []).append(bundle)
        return [Waves.join(parts) for parts in bundles.values()]

    def _run_block(self, w: Waves) -> list[Waves]:
        """Execute one block; the bundles to continue with, position negative (inverted) if at a barrier."""
        number = w.position
        block = self.program.blocks[number]
        self.report.count(number, w)
        self.budget -= w.count * (block.end - block.begin)
        if self.budget < 0:
            raise DeadlockError("instruction budget exhausted: the kernel does not end")
        self._execute(w, block)
        if self.waits:
            self._check_waits(w, block)
        if block.kind == "end":
            self.lds.leave(w)
            return []
        if block.kind == "barrier":
            w.position = ~block.follow
            return [w]
        if block.kind == "branch":
            return self._branch(w, block)
        w.position = block.follow
        return [w]

    def loads_to_lds_in_flight(self, w: Waves, instruction: Instruction) -> int:
        """Loads straight to LDS that may still be in flight when ``w`` executes ``instruction``."""
        if not self._fills_lds or self.waits is None or not self.lds.follow_stores:
            return 0
        begin = self.program.blocks[w.position].begin
        return self.waits.open_lds_stores(w.wait_state, begin, self._fills_lds[id(instruction)])[1]

    def _execute(self, w: Waves, block: BasicBlock) -> None:
        position = block.begin - 1
        try:
            if block.plain and not w.undefined & block.touched:
                for execute in block.code:
                    position += 1
                    execute(w)
            else:
                for instruction in self.program.instructions[block.begin : block.begin + len(block.code)]:
                    position += 1
                    execute_checked(w, instruction)
        except KernelError as fault:
            fault.locate(self._where(w, fault.slot, position))
            raise

    def _check_waits(self, w: Waves, block: BasicBlock) -> None:
        assert self.waits is not None
        try:
            w.wait_state = self.waits.step(w.wait_state, block.begin, block.end)
        except MissingWaitError as fault:
            fault.locate(self._where(w, 0, int(fault.args[1])))
            raise

    def _branch(self, w: Waves, block: BasicBlock) -> list[Waves]:
        last = self.program.instructions[block.end - 1]
        try:
            check_sinks(w, last)
        except KernelError as fault:
            fault.locate(self._where(w, fault.slot, block.end - 1))
            raise
        taken = branch_taken(last.line.mnemonic, w)
        if taken.all():
            w.position = block.target
            return [w]
        if not taken.any():
            w.position = block.follow
            return [w]
        jumping, falling = w.take(np.flatnonzero(taken)), w.take(np.flatnonzero(~taken))
        jumping.position, falling.position = block.target, block.follow
        return [jumping, falling]

    def _where(self, w: Waves, slot: int, position: int) -> str:
        line = self.program.instructions[position].line
        group = tuple(int(x) for x in self.groups[w.group[slot]])
        source = f" ({line.source})" if line.source else ""
        return f"line {line.number}: `{line.text}`{source}, work-group {group}, wave {int(w.wave[slot])}"
