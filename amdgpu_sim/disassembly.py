"""Disassembles kernels of code objects with llvm-objdump into the lines that the decoder reads."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from amdgpu_sim.assembly import AsmLine, parse_instruction
from amdgpu_sim.errors import AssemblyError

_VARIABLE = "AMDGPU_SIM_OBJDUMP"
_NEWEST, _OLDEST = 30, 20
_LINE = re.compile(r"\s+(\S.*?)\s*// ([0-9A-F]+): ([0-9A-F ]+?)(?: <.*>)?")
_SOURCE = re.compile(r"; (.+):(\d+)")
_BRANCH = re.compile(r"(s_branch|s_cbranch_\w+) \d+")


def find_objdump(objdump: str | Path | None = None) -> str:
    """The llvm-objdump to use: ``objdump``, else $AMDGPU_SIM_OBJDUMP, $HIP_TOOLCHAIN, $ROCM_PATH, else PATH
    (the newest version). Raises AssemblyError if there is none."""
    if chosen := objdump or os.environ.get(_VARIABLE):
        found = shutil.which(chosen)
        if found is None:
            raise AssemblyError(f"{'objdump' if objdump else _VARIABLE}: {str(chosen)!r} is not an executable file")
        return found
    folders = [Path(os.environ[name]) for name in ("HIP_TOOLCHAIN", "ROCM_PATH") if os.environ.get(name)]
    names = [str(folder / part / "llvm-objdump") for folder in folders for part in ("bin", "llvm/bin")]
    names += [f"llvm-objdump-{version}" for version in range(_NEWEST, _OLDEST - 1, -1)]
    names += ["llvm-objdump", "/opt/rocm/llvm/bin/llvm-objdump"]
    for name in names:
        if found := shutil.which(name):
            return found
    raise AssemblyError(
        f"loading a code object needs llvm-objdump {_OLDEST} or newer: install LLVM, or set {_VARIABLE} to the program"
    )


def disassemble(data: bytes, symbol: str, objdump: str | Path | None = None) -> str:
    """llvm-objdump's text of function ``symbol`` of code object ``data``; AssemblyError if it fails."""
    program = find_objdump(objdump)
    with tempfile.NamedTemporaryFile(suffix=".co") as file:
        file.write(data)
        file.flush()
        # on gfx11 and later 16-bit registers are halves of 32-bit ones; without this objdump cannot name the high ones
        command = [program, "--mattr=+real-true16", "--line-numbers", "--disassemble-zeroes"]
        command += ["--disassemble-symbols=" + symbol, file.name]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise AssemblyError(f"{program} failed: {result.stderr.strip()}")
    _, found, body = result.stdout.partition(f"<{symbol}>:\n")
    if not found:
        raise AssemblyError(f"{program} found no function {symbol!r}: {result.stderr.strip()}")
    return body


def parse_disassembly(text: str, end: int, base: int) -> tuple[list[AsmLine], dict[str, int]]:
    """Instructions before address ``end`` and the labels of branch targets, from :func:`disassemble`'s text.

    Line numbers count the text's lines from 1. ``base`` is where address 0 of the file lies at run time.
    """
    lines: list[AsmLine] = []
    places: dict[int, int] = {}
    targets: set[int] = set()
    source = ""
    for number, raw in enumerate(text.splitlines(), 1):
        if match := _SOURCE.fullmatch(raw):
            source = f"{Path(match[1]).name}:{match[2]}"
        if not (match := _LINE.fullmatch(raw)):
            if raw.startswith((" ", "\t")):
                raise AssemblyError(f"line {number} of the disassembly cannot be read: {raw.strip()!r}")
            continue
        instruction, address = match[1], int(match[2], 16)
        if address >= end:
            break
        if branch := _BRANCH.fullmatch(instruction):
            jump = int(match[3].split()[0], 16) & 0xFFFF
            target = address + 4 + 4 * (jump - 0x10000 if jump & 0x8000 else jump)
            targets.add(target)
            instruction = f"{branch[1]} {_label(target)}"
        places[address] = len(lines)
        line = parse_instruction(instruction, number, source)
        line.address = base + address
        lines.append(line)
    # a branch that leaves the function has no label here; the program's blocks report it
    return lines, {_label(target): places[target] for target in targets if target in places}


def _label(address: int) -> str:
    return f"address_{address:x}"
