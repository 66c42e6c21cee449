"""A loaded kernel: decoded instructions, basic blocks, and the launch."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import amdgpu_sim.instructions
from amdgpu_sim.assembly import KernelText, parse_kernel
from amdgpu_sim.decoding import Execute, Instruction, KernelFacts, decode
from amdgpu_sim.dual_issue import decode_dual
from amdgpu_sim.float_mode import flushes_f32, initial_mode, mode_after
from amdgpu_sim.instructions.calls import LEAVE
from amdgpu_sim.instructions.control import BARRIERS
from amdgpu_sim.memory import GlobalMemory
from amdgpu_sim.targets import find_target

if TYPE_CHECKING:
    from amdgpu_sim.report import RunReport

_ = amdgpu_sim.instructions  # imported for the table that it fills


@dataclass
class BasicBlock:
    """Instructions ``begin`` to ``end`` without a branch, barrier or label between; the last may be one.

    ``plain`` means that nothing in it can bring in undefined values from memory. ``kind`` is "fall", "end",
    "barrier" or "branch"; ``target`` and ``follow`` are block numbers.
    """

    begin: int
    end: int
    code: list[Execute]
    touched: int
    plain: bool
    kind: str = "fall"
    target: int = -1
    follow: int = -1


class Program:
    """One kernel, ready to launch; kernels of code objects come from :meth:`CodeObject.program`.

    Raises AssemblyError or UnsupportedInstructionError (with the line) if it cannot be loaded.
    """

    def __init__(
        self,
        text: str | KernelText,
        kernel: str | None = None,
        map_image: Callable[[GlobalMemory], None] | None = None,
    ) -> None:
        """Read and decode ``kernel`` (default: the only one) of assembly ``text``, or a kernel already read.

        ``map_image`` adds the data that the kernel refers to by address to the memory of each launch.
        """
        self.kernel: KernelText = parse_kernel(text, kernel) if isinstance(text, str) else text
        self._map_image = map_image
        self.target = find_target(self.kernel.target)
        self.facts = self._facts()
        self.instructions: list[Instruction] = self._decode()
        self.blocks = self._blocks()
        self.entry_block = self._entry_block()

    def _facts(self) -> KernelFacts:
        highest = {"v": -1, "a": -1}
        for line in self.kernel.lines:
            for bank, single, low, high in re.findall(r"\b([va])(?:(\d+)|\[(\d+)(?::(\d+))?\])", line.text):
                highest[bank] = max(highest[bank], int(single or high or low))
        vectors = max(highest["v"], 0) + 1
        directives = self.kernel.directives
        return KernelFacts(
            vectors=vectors + highest["a"] + 1,
            accumulator_base=vectors,
            flush_f32=flushes_f32(initial_mode(directives)),
            scratch_bytes=directives.get("private_segment_fixed_size", 0),
            lds_bytes=directives.get("group_segment_fixed_size", 0),
        )

    def _decode(self) -> list[Instruction]:
        instructions = []
        start = mode = initial_mode(self.kernel.directives)
        entered = set(self.kernel.labels.values())
        for number, line in enumerate(self.kernel.lines):
            if number in entered and mode != start:
                raise line.unsupported("a branch may come here while the float mode is not the kernel's own")
            mode = mode_after(line, mode)
            facts = self.facts if mode == start else replace(self.facts, flush_f32=flushes_f32(mode))
            instruction = (decode_dual if " :: " in line.text else decode)(line, self.target, facts)
            if instruction.target_label and mode != start:
                raise line.unsupported("a branch while the float mode is not the kernel's own")
            instructions.append(instruction)
        return instructions

    def _blocks(self) -> list[BasicBlock]:
        labels, count = self.kernel.labels, len(self.instructions)
        starts = {0, count} | set(labels.values())
        starts |= {n + 1 for n, instruction in enumerate(self.instructions) if instruction.ends_block}
        ordered = sorted(starts)
        number = {start: block for block, start in enumerate(ordered[:-1])}
        blocks = []
        for begin, end in pairwise(ordered):
            last = self.instructions[end - 1]
            body = self.instructions[begin : end - 1 if last.ends_block else end]
            block = BasicBlock(
                begin,
                end,
                [instruction.execute for instruction in body],
                _union(body),
                not any(i.category in ("lds_read", "scratch_load", "global_load") for i in body),
                follow=number.get(end, -1),
            )
            mnemonic = last.line.mnemonic
            if mnemonic == "s_endpgm" or (mnemonic in LEAVE and block.follow < 0):
                block.kind = "end"
            elif mnemonic in BARRIERS:
                block.kind = "barrier"
            elif last.target_label:
                block.kind = "branch"
                if labels.get(last.target_label) not in number:
                    raise last.line.unsupported(f"label {last.target_label!r} is not defined in the kernel")
                block.target = number[labels[last.target_label]]
            if block.kind in ("fall", "barrier") and block.follow < 0:
                raise last.line.unsupported("the kernel runs past its end")
            blocks.append(block)
        return blocks

    def _entry_block(self) -> int:
        """Kernels whose arguments are preloaded start behind the prologue that loads them for old
        firmware."""
        if not self.kernel.directives.get("user_sgpr_kernarg_preload_length"):
            return 0
        for block in self.blocks:
            if block.kind == "branch":
                return block.target
        raise self.kernel.lines[0].unsupported("preloaded arguments without the prologue's branch")

    def launch(
        self, grid: Sequence[int], workgroup: Sequence[int], arguments: Sequence[Any], **options: Any
    ) -> RunReport:
        """Run the kernel; see :func:`amdgpu_sim.execution.launch`."""
        from amdgpu_sim.execution import launch

        if self._map_image:
            options["memory"] = options.get("memory") or GlobalMemory()
            self._map_image(options["memory"])
        return launch(self, grid, workgroup, arguments, **options)


def _union(instructions: Sequence[Instruction]) -> int:
    bits = 0
    for instruction in instructions:
        bits |= instruction.touched
    return bits
