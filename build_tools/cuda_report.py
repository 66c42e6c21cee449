"""Registers, spills, memory and instructions of compiled CUDA kernels, as a Markdown table.

Registers, stack and spills are what ptxas said; instructions are counted in the machine code that
cuobjdump prints. A launch asks for shared memory up to the bound of csrc_cuda/families.py.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from csrc_cuda.instances import CudaInstance

from .detect import Detection
from .errors import BuildError
from .instances import Selection
from .kernel_report import Row, kernel_table
from .programs import find, run
from .torch_build import python_folders

CUOBJDUMP_WHEELS = "nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm"
_ENTRY = re.compile(r"Compiling entry function '(\S+)' for '(\w+)'")
_FIGURES = {
    "registers": re.compile(r"Used (\d+) registers"),
    "stack B": re.compile(r"(\d+) bytes stack frame"),
    "spill stores B": re.compile(r"(\d+) bytes spill stores"),
    "spill loads B": re.compile(r"(\d+) bytes spill loads"),
}
_INSTRUCTIONS = {
    "HMMA": re.compile(r"\bHMMA\."),
    "HGMMA": re.compile(r"\b[HQ]GMMA\."),  # QGMMA is that of 8 bits
    "local memory": re.compile(r"\b(?:LDL|STL)\b"),
}


def cuda_table(folder: Path, selections: Sequence[Selection], detection: Detection) -> str:
    """Return a row for each kernel and architecture.

    Raises:
        BuildError: there is no cuobjdump, or an object has no machine code for an architecture.
    """
    assert detection.cuda
    cuobjdump = find_cuobjdump(detection)
    rows = []
    for selection in selections:
        instance = selection.instance
        assert isinstance(instance, CudaInstance)
        path = folder / f"{instance.name}.o"
        remarks = Path(f"{path}.remarks").read_text(encoding="utf-8")
        figures = read_ptxas(remarks, instance.name)
        counts = count_instructions(cuobjdump, path, instance.name)
        seconds = re.findall(r"^CPU seconds: (\S+)$", remarks, re.MULTILINE)[-1]
        for arch in selection.archs:
            if arch not in figures or arch not in counts:
                raise BuildError(f"{path} has no machine code for {arch}")
            cells = {**figures[arch], "shared KiB at most": str(instance.tile.shared_kib)}
            cells |= {kind: str(count) for kind, count in counts[arch].items()}
            spills = (figures[arch]["spill stores B"], figures[arch]["spill loads B"]) != ("0", "0")
            rows.append(Row(instance.name, arch, cells, seconds, spills))
    return kernel_table(detection.cuda.nvcc, rows)


def find_cuobjdump(detection: Detection) -> Path:
    """Return the toolkit's cuobjdump, else that of NVIDIA's wheels; BuildError if there is none."""
    assert detection.cuda
    wheels = (folder / "nvidia" / cuda / "bin" for folder in python_folders() for cuda in ("cu13", "cuda_cuobjdump"))
    for place in (detection.cuda.home / "bin", *wheels):
        if found := find("cuobjdump", str(place)):
            return found
    raise BuildError(f"no cuobjdump in {detection.cuda.home}/bin: pip install {CUOBJDUMP_WHEELS}")


def read_ptxas(text: str, name: str) -> dict[str, dict[str, str]]:
    """Return the figures of the kernel whose symbol has ``name`` in it, by architecture, from ``ptxas -v``."""
    found: dict[str, dict[str, str]] = {}
    figures: dict[str, str] = {}
    for line in text.splitlines():
        if entry := _ENTRY.search(line):
            figures = dict.fromkeys(_FIGURES, "0")
            if _names(entry.group(1), name):
                found[entry.group(2)] = figures
        for figure, pattern in _FIGURES.items():
            if match := pattern.search(line):
                figures[figure] = match.group(1)
    return found


def count_instructions(cuobjdump: Path, path: Path, name: str) -> Mapping[str, Mapping[str, int]]:
    """Return how many instructions of each kind the kernel has, by architecture."""
    text, problem = run(cuobjdump, "--dump-sass", path)
    if problem:
        raise BuildError(problem)
    return read_sass(text, name)


def read_sass(text: str, name: str) -> dict[str, dict[str, int]]:
    """Return how many instructions of each kind the kernel has, by architecture, in what cuobjdump printed."""
    found: dict[str, dict[str, int]] = {}
    for part in re.split(r"^\s*code for (?=sm_)", text, flags=re.MULTILINE)[1:]:
        arch = part.split(maxsplit=1)[0]
        for function in re.split(r"^\s*Function : ", part, flags=re.MULTILINE)[1:]:
            if _names(function.split(maxsplit=1)[0], name):
                found[arch] = {kind: len(pattern.findall(function)) for kind, pattern in _INSTRUCTIONS.items()}
    return found


def _names(symbol: str, name: str) -> bool:
    """Whether a mangled symbol has a C++ name in it, which its length precedes."""
    return f"{len(name)}{name}" in symbol
