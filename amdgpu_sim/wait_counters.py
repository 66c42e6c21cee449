"""Checks that no register is touched while a memory operation that fills it may still be in flight.

The state is the queue of outstanding operations of each counter. It depends only on the path taken, so the
result of every (block, state) pair is computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amdgpu_sim.decoding import Instruction
from amdgpu_sim.errors import MissingWaitError
from amdgpu_sim.targets import Target

# per counter, the outstanding operations, oldest first: (registers, position of the instruction)
Queue = tuple[tuple[int, int], ...]
State = tuple[tuple[str, Queue], ...]


@dataclass(frozen=True)
class _Result:
    state: int
    fault: tuple[int, str] | None


class WaitChecker:
    """Steps wait states through blocks of ``instructions``; states are small integers, 0 is "nothing
    outstanding"."""

    def __init__(self, target: Target, instructions: Sequence[Instruction]) -> None:
        """Start with nothing simulated."""
        self._instructions = instructions
        self._depth = {
            "load": 63,
            "store": 63,
            "ds": 63,
            "km": 31,
            "smem": 31,
            "lgkm": 15 if target.generation == 9 else 63,
        }
        self._states: list[State] = [()]
        self._numbers: dict[State, int] = {(): 0}
        self._memo: dict[tuple[int, int, int], _Result] = {}
        self._open: dict[tuple[int, int, int], tuple[int, int]] = {}

    def step(self, state: int, begin: int, end: int) -> int:
        """The state after instructions ``begin`` to ``end``; raises MissingWaitError (its ``args[1]`` is
        the position)."""
        key = (begin, end, state)
        result = self._memo.get(key)
        if result is None:
            result = self._memo[key] = self._simulate(self._states[state], begin, end)
        if result.fault:
            fault = MissingWaitError(result.fault[1])
            fault.args = (result.fault[1], result.fault[0])
            raise fault
        return result.state

    def open_lds_stores(self, state: int, begin: int = 0, end: int = 0) -> tuple[int, int]:
        """LDS stores of each sequence (``ds_`` stores, loads straight to LDS) in flight after ``begin`` to ``end``."""
        key = (begin, end, state)
        if key not in self._open:
            queues = dict(self._states[state])
            for position in range(begin, end):
                self._advance(queues, position)
            sequences = [self._instructions[position].lds_store for queue in queues.values() for _, position in queue]
            self._open[key] = sequences.count(0), sequences.count(1)
        return self._open[key]

    def _simulate(self, state: State, begin: int, end: int) -> _Result:
        queues = dict(state)
        for position in range(begin, end):
            problem = self._advance(queues, position)
            if problem:
                return _Result(0, (position, problem))
        after = tuple(sorted((name, queue) for name, queue in queues.items() if queue))
        number = self._numbers.setdefault(after, len(self._states))
        if number == len(self._states):
            self._states.append(after)
        return _Result(number, None)

    def _advance(self, queues: dict[str, Queue], position: int) -> str:
        """Step ``queues`` over one instruction; returns what is wrong with it, or nothing."""
        instruction = self._instructions[position]
        for counter, limit in instruction.waits.items():
            self._wait(queues, counter, limit)
        problem = self._conflict(queues, instruction)
        for counter in instruction.counters:
            queue = (*queues.get(counter, ()), (instruction.pending, position))
            queues[counter] = queue[-self._depth[counter] :]
        return problem

    @staticmethod
    def _wait(queues: dict[str, Queue], counter: str, limit: int) -> None:
        if counter == "lgkm":
            # scalar loads return in any order: with one outstanding only 0 says anything
            if limit == 0:
                queues.pop("smem", None)
            elif queues.get("smem"):
                return
        if counter == "km" and limit:
            return
        queue = queues.get(counter, ())
        queues[counter] = queue[len(queue) - limit :] if len(queue) > limit else queue

    def _conflict(self, queues: dict[str, Queue], instruction: Instruction) -> str:
        for counter, queue in queues.items():
            # operations of one in-order counter may fill the same register one after another
            ordered = counter in instruction.counters and counter not in ("smem", "km")
            touched = instruction.read_bits if ordered else instruction.touched
            for bits, position in queue:
                if bits & touched:
                    line = self._instructions[position].line
                    return f"touches the result of line {line.number} `{line.text}` before a wait covers it"
        return ""
