"""What a compiled kernel costs, read from its assembly: registers, spills, LDS, waves, and what its hot loop does.

AMD: the text that LLVM writes. A loop is what lies between a label and the last branch back to it; only loops
without another loop inside count. Register files, LDS and the number of waves that fit are those of
``architectures.py``; allocation granules and wave limits are those of the LLVM "User Guide for AMDGPU Backend".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from ..architectures import Architecture

# Multiply-adds of one 32x32x8 matrix instruction: the unit in which matrix work of any shape is compared.
_UNIT = 32 * 32 * 8
_MATRIX = re.compile(r"v_(?:mfma|smfmac|wmma|swmmac)(?:_scale)?_[a-z0-9]+?_(\d+)x(\d+)x(\d+)")
_TRANSCENDENTAL = re.compile(r"v_(?:s_)?(?:exp|log|rcp|rsq|sqrt|sin|cos)_")
_GLOBAL_LOAD = re.compile(r"(?:buffer|global|flat)_load_(\w+)")
_LDS = re.compile(r"ds_(?:read|write|load|store|bpermute|permute)(2)?\w*?_[bui](\d+)")
_LABEL = re.compile(r"(\.L\w+):")
_BRANCH = re.compile(r"s_c?branch\w*\s+(\.L\w+)")
_LOAD_BITS = {
    "ubyte": 8, "sbyte": 8, "u8": 8, "i8": 8, "ushort": 16, "sshort": 16, "short": 16, "u16": 16, "i16": 16,
    "dword": 32, "b32": 32, "dwordx2": 64, "b64": 64, "dwordx3": 96, "b96": 96, "dwordx4": 128, "b128": 128,
}  # fmt: skip


@dataclass(frozen=True)
class Loop:
    """The instructions of an innermost loop, in order."""

    label: str
    instructions: tuple[str, ...]

    @cached_property
    def _mnemonics(self) -> tuple[str, ...]:
        return tuple(line.split(None, 1)[0] for line in self.instructions)

    @property
    def matrix_shapes(self) -> dict[str, int]:
        """Matrix instructions by their ``MxNxK``."""
        return dict(Counter("x".join(map(str, shape)) for shape in _matrix_shapes(self._mnemonics)))

    @property
    def matrix_instructions(self) -> int:
        """Number of matrix instructions."""
        return sum(1 for _ in _matrix_shapes(self._mnemonics))

    @property
    def matrix_units(self) -> float:
        """Matrix work in 32x32x8 instructions."""
        return sum(m * n * k for m, n, k in _matrix_shapes(self._mnemonics)) / _UNIT

    @property
    def valu(self) -> int:
        """Vector instructions that are no matrix instructions; a packed or dual one is one."""
        return sum(name.startswith("v_") and not _MATRIX.match(name) for name in self._mnemonics)

    @property
    def valu_per_matrix_instruction(self) -> float:
        """Vector instructions for each matrix instruction; infinite without any."""
        return self.valu / self.matrix_instructions if self.matrix_instructions else float("inf")

    @property
    def valu_per_matrix_unit(self) -> float:
        """Vector instructions for each 32x32x8 of matrix work, so that small shapes do not flatter; or infinite."""
        return self.valu / self.matrix_units if self.matrix_units else float("inf")

    @property
    def transcendental(self) -> int:
        """Exponentials, logarithms, reciprocals, roots."""
        return sum(bool(_TRANSCENDENTAL.match(name)) for name in self._mnemonics)

    @property
    def scratch(self) -> int:
        """Loads and stores of scratch memory: spilled registers, or arrays that found no registers."""
        return sum(_is_scratch(line) for line in self.instructions)

    @property
    def accvgpr_moves(self) -> int:
        """Moves between vector and accumulation registers of CDNA."""
        return sum(name.startswith("v_accvgpr_") for name in self._mnemonics)

    @property
    def lds_instructions(self) -> int:
        """Reads and writes of LDS, and permutes that go through it."""
        return sum(name.startswith("ds_") for name in self._mnemonics)

    @property
    def lds_bytes(self) -> int:
        """Bytes that a lane moves to and from LDS; an access takes the place of four bytes at least."""
        matches = (_LDS.match(name) for name in self._mnemonics)
        return sum(max(4, int(match[2]) // 8) * (2 if match[1] else 1) for match in matches if match)

    @property
    def global_load_bits(self) -> dict[int, int]:
        """Loads of global memory by their width in bits."""
        matches = (_GLOBAL_LOAD.match(name) for name, line in zip(self._mnemonics, self.instructions, strict=True)
                   if not _is_scratch(line))  # fmt: skip
        widths = (_LOAD_BITS.get(match[1].removeprefix("lds_"), 16) for match in matches if match)
        return dict(sorted(Counter(widths).items()))


@dataclass(frozen=True)
class Occupancy:
    """Waves on a SIMD.

    Attributes:
        by_registers: as many as the registers allow.
        by_lds: as many as the LDS allows.
        waves_per_simd: as many as both allow, in whole work groups.
    """

    by_registers: int
    by_lds: float
    waves_per_simd: float


@dataclass(frozen=True)
class KernelReport:
    """Resources of a compiled kernel and its hot loops.

    Attributes:
        vgprs: vector registers of a lane; CDNA: with accumulation registers. NVIDIA: registers of a thread.
        agprs: of them accumulation registers.
        sgprs: scalar registers of a wave.
        vgpr_spills: vector registers that were spilled to memory. NVIDIA: 4-byte words of stack.
        sgpr_spills: scalar registers that were spilled.
        scratch_bytes: scratch memory of a lane.
        lds_bytes: LDS or shared memory of a work group.
        occupancy: how many waves fit.
        matrix_instructions: matrix instructions of the whole kernel.
        loops: innermost loops with matrix instructions, most matrix work first; of equals the shortest first.
    """

    vgprs: int
    agprs: int
    sgprs: int
    vgpr_spills: int
    sgpr_spills: int
    scratch_bytes: int
    lds_bytes: int
    occupancy: Occupancy
    matrix_instructions: int
    loops: tuple[Loop, ...]

    @property
    def hot_loop(self) -> Loop | None:
        """The innermost loop with most matrix work."""
        return self.loops[0] if self.loops else None

    @property
    def waves_per_simd(self) -> float:
        """Waves on a SIMD that registers and LDS allow."""
        return self.occupancy.waves_per_simd

    @property
    def hot_scratch(self) -> int:
        """Accesses to scratch memory in any innermost loop with matrix instructions."""
        return sum(loop.scratch for loop in self.loops)


def read_amd_assembly(text: str, architecture: Architecture, num_warps: int, shared_bytes: int) -> KernelReport:
    """Report of the AMD assembly ``text`` of one kernel.

    ``shared_bytes`` is the LDS that the launch gives to a work group of ``num_warps`` waves; the text's own figure
    counts only what is fixed at compile time.
    """
    vgprs = _metadata(text, "vgpr_count")
    lds = max(shared_bytes, _metadata(text, "group_segment_fixed_size"))
    blocks = _basic_blocks(text)
    loops = [loop for loop in _innermost_loops(blocks) if loop.matrix_instructions]
    loops.sort(key=lambda loop: (-loop.matrix_units, len(loop.instructions)))
    names = [line.split(None, 1)[0] for _, lines in blocks for line in lines]
    return KernelReport(
        vgprs=vgprs,
        agprs=_metadata(text, "agpr_count"),
        sgprs=_metadata(text, "sgpr_count"),
        vgpr_spills=_metadata(text, "vgpr_spill_count"),
        sgpr_spills=_metadata(text, "sgpr_spill_count"),
        scratch_bytes=_metadata(text, "private_segment_fixed_size"),
        lds_bytes=lds,
        occupancy=occupancy(architecture, vgprs, lds, num_warps),
        matrix_instructions=sum(1 for _ in _matrix_shapes(names)),
        loops=tuple(loops),
    )


def occupancy(architecture: Architecture, registers: int, lds_bytes: int, num_warps: int) -> Occupancy:
    """Waves on a SIMD as registers, LDS and both allow, for work groups of ``num_warps`` waves."""
    simds = architecture.simds_per_unit
    if architecture.vendor == "nvidia":
        granule, most = 8, 48 if architecture.shared_memory_per_unit <= 100 * 1024 else 64
        most //= simds
    elif architecture.matrix_kind == "mfma":
        granule, most = 8, 8
    else:
        granule, most = (24, 16) if architecture.registers_per_lane == 1536 else (16, 16)
    allocated = -(-max(registers, 1) // granule) * granule
    by_registers = min(most, architecture.registers_per_lane // allocated)
    groups = by_registers * simds // num_warps
    by_lds = float(most)
    if lds_bytes:
        lds_groups = architecture.shared_memory_per_unit // lds_bytes
        by_lds = min(by_lds, lds_groups * num_warps / simds)
        groups = min(groups, lds_groups)
    return Occupancy(by_registers, by_lds, groups * num_warps / simds)


def _matrix_shapes(mnemonics: Iterable[str]) -> Iterator[tuple[int, int, int]]:
    for name in mnemonics:
        match = _MATRIX.match(name)
        if match:
            yield int(match[1]), int(match[2]), int(match[3])


def _is_scratch(line: str) -> bool:
    """Whether an instruction accesses scratch memory: by its own mnemonic, or on gfx90a through a buffer."""
    return line.startswith("scratch_") or (line.startswith("buffer_") and " off, s[0:3], 0" in line)


def _metadata(text: str, name: str) -> int:
    """A number of the code object's metadata; 0 where the compiler leaves it out."""
    match = re.search(rf"\.{name}:\s*(\d+)", text)
    return int(match[1]) if match else 0


def _basic_blocks(text: str) -> list[tuple[str, list[str]]]:
    """(label, instructions) of every block of the first function, without comments and directives."""
    blocks: list[tuple[str, list[str]]] = [("entry", [])]
    for line in text.splitlines():
        if line.startswith(".Lfunc_end"):
            break
        label = _LABEL.match(line)
        if label:
            blocks.append((label[1], []))
            continue
        code = re.split(r";|//", line, maxsplit=1)[0].strip()
        if code and not code.endswith(":") and not code.startswith((".", "#")):
            blocks[-1][1].append(code)
    return blocks


def _innermost_loops(blocks: list[tuple[str, list[str]]]) -> list[Loop]:
    """Loops that contain no other loop."""
    position = {label: index for index, (label, _) in enumerate(blocks)}
    ends: dict[int, int] = {}
    for index, (_, lines) in enumerate(blocks):
        for line in lines:
            branch = _BRANCH.match(line)
            target = position.get(branch[1], len(blocks)) if branch else len(blocks)
            if target <= index:
                ends[target] = index
    innermost = [
        (begin, end)
        for begin, end in sorted(ends.items())
        if not any(begin < other <= ends[other] <= end for other in ends if other != begin)
    ]
    return [
        Loop(blocks[begin][0], tuple(line for _, lines in blocks[begin : end + 1] for line in lines))
        for begin, end in innermost
    ]
