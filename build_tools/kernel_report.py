"""Registers, spills, LDS, occupancy and instructions of compiled CK kernels, as a Markdown table.

The figures are the compiler's own: its remarks, kept beside each object, and the disassembly of the code object. A
cell is empty where the architecture has no such thing, as AGPRs on gfx12. Scratch may be reserved and never used:
scratch instructions tell (gfx90a has others for it, so there the reserved bytes do).
"""

import re
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .detect import Detection, Rocm
from .errors import BuildError
from .instances import Selection
from .programs import Program, find, run

_MAGIC = b"__CLANG_OFFLOAD_BUNDLE__"
_FIGURES = {
    "VGPR": "VGPRs",
    "AGPR": "AGPRs",
    "VGPR spills": "VGPRs Spill",
    "SGPR spills": "SGPRs Spill",
    "scratch B/lane": "ScratchSize [bytes/lane]",
    "LDS B": "LDS Size [bytes/block]",
    "waves/SIMD": "Occupancy [waves/SIMD]",
}
_INSTRUCTIONS = {
    "matrix instructions": r"\bv_(?:mfma|smfmac|wmma|swmmac)_",
    "scratch instructions": r"\bscratch_(?:load|store)_",
}


def ck_table(folder: Path, selections: Sequence[Selection], detection: Detection) -> str:
    """Return a row for each kernel and architecture.

    Raises:
        BuildError: there is no llvm-objdump beside the compiler.
    """
    assert detection.rocm
    compiler, objdump = detection.rocm.compiler, find_objdump(detection.rocm)
    rows = []
    for selection in selections:
        stem = folder / f"{selection.instance.name}.o"
        remarks, seconds = read_remarks(Path(f"{stem}.remarks").read_text(encoding="utf-8"))
        images = dict(code_objects(stem.read_bytes()))
        for arch, figures in zip(selection.archs, remarks, strict=True):
            counts = count_instructions(objdump, images[arch])
            cells = {name: figures.get(key, "") for name, key in _FIGURES.items()}
            cells |= {kind: str(count) for kind, count in counts.items()}
            rows.append(Row(selection.instance.name, arch, cells, seconds, cells["VGPR spills"] != "0"))
    return kernel_table(compiler, rows)


@dataclass(frozen=True)
class Row:
    """A kernel for one architecture; ``seconds`` are those of its translation unit for all of them."""

    name: str
    arch: str
    figures: Mapping[str, str]
    seconds: str
    spills: bool


def kernel_table(compiler: Program, rows: Sequence[Row]) -> str:
    """Return a Markdown table, and below it what the kernels cost and which of them spill."""
    figures = list(rows[0].figures) if rows else []
    header = ["kernel", "arch", *figures, "CPU seconds"]
    lines = [_row(header), _row(["---"] * len(header))]
    lines += [_row([row.name, row.arch, *row.figures.values(), row.seconds]) for row in rows]
    units = {row.name: float(row.seconds) for row in rows}
    spilling = [f"{row.name} ({row.arch})" for row in rows if row.spills]
    total = f"{len(units)} kernels, {sum(units.values()):.0f} CPU seconds; spills: {', '.join(spilling) or 'none'}"
    return "\n".join((f"compiler: {compiler.path.name} {compiler.version}", "", *lines, "", total))


def find_objdump(rocm: Rocm) -> Path:
    """Return the llvm-objdump of ROCm's compiler; BuildError if there is none."""
    compiler = rocm.compiler.path
    folders = [compiler.parent, compiler.resolve().parent, rocm.path / "llvm" / "bin"]
    objdump = next((found for place in folders if (found := find("llvm-objdump", str(place)))), None)
    if objdump is None:
        raise BuildError(f"no llvm-objdump in {', '.join(str(place) for place in folders)}")
    return objdump


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def read_remarks(text: str) -> tuple[list[dict[str, str]], str]:
    """Return the figures of each compilation of the kernel, and the CPU seconds of all of them."""
    kernels: list[dict[str, str]] = []
    seconds = ""
    for line in text.splitlines():
        name, _, value = line.partition(": ")
        value = value.partition(" [-R")[0].strip()
        if name == "Function Name":
            kernels.append({})
        elif name == "CPU seconds":
            seconds = value
        elif kernels:
            kernels[-1][name] = value
    return kernels, seconds


def code_objects(file: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield (architecture, code object) of every offload bundle in an object file.

    The format is LLVM's "Clang Offload Bundler", uncompressed.
    """
    start = file.find(_MAGIC)
    while start >= 0:
        (count,) = struct.unpack_from("<Q", file, start + len(_MAGIC))
        at = start + len(_MAGIC) + 8
        for _ in range(count):
            offset, size, length = struct.unpack_from("<3Q", file, at)
            target = file[at + 24 : at + 24 + length].decode()
            at += 24 + length
            if match := re.search(r"--(gfx.+)$", target):
                yield match.group(1), file[start + offset : start + offset + size]
        start = file.find(_MAGIC, start + 1)


def count_instructions(objdump: Path, image: bytes) -> dict[str, int]:
    """Return how many instructions of each kind a code object has."""
    with tempfile.NamedTemporaryFile(suffix=".co") as file:
        file.write(image)
        file.flush()
        text, problem = run(objdump, "--disassemble", "--no-show-raw-insn", file.name)
    if problem:
        raise BuildError(problem)
    return {kind: len(re.findall(pattern, text)) for kind, pattern in _INSTRUCTIONS.items()}
