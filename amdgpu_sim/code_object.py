"""Code objects: the ELF files (hsaco) that compilers make for the GPU, loaded with their data and metadata."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from amdgpu_sim.assembly import Argument, KernelText
from amdgpu_sim.disassembly import disassemble, parse_disassembly
from amdgpu_sim.errors import AssemblyError
from amdgpu_sim.kernel_descriptor import parse_descriptor
from amdgpu_sim.memory import GlobalMemory
from amdgpu_sim.program import Program
from amdgpu_sim.targets import find_target
from amdgpu_sim.waves import Array

_NT_AMDGPU_METADATA = 32
_PAGE = 4096
_ABS64, _RELATIVE64 = 3, 13


@dataclass(frozen=True)
class Symbol:
    """A function ("STT_FUNC") or variable ("STT_OBJECT"): ``address`` and ``size`` in bytes."""

    name: str
    address: int
    size: int
    kind: str


@dataclass(frozen=True)
class _Region:
    """Bytes ``begin`` to ``end`` of the loaded image that kernels may touch."""

    begin: int
    end: int
    name: str
    writable: bool


class CodeObject:
    """One GPU code object, loaded into this process's memory.

    ``target`` is its processor; ``kernels`` maps kernel names to their metadata (".args", ".vgpr_count"...,
    as LLVM's AMDGPU guide lists them); ``variables`` are the device globals.
    """

    def __init__(self, source: bytes | str | Path, objdump: str | Path | None = None) -> None:
        """Load ``source`` (the file's bytes or its path).

        ``objdump`` names the llvm-objdump to use, see :func:`amdgpu_sim.disassembly.find_objdump`. Raises
        AssemblyError if the file is not a code object that can be loaded, ValueError if its target is not
        simulated.
        """
        self.data = source if isinstance(source, bytes) else Path(source).read_bytes()
        self._objdump = objdump
        self._elf = self._open()
        note = self._note()
        self.target = find_target(note["amdhsa.target"].partition(":")[0].rpartition("-")[2])
        self.kernels: dict[str, dict[str, Any]] = {entry[".name"]: entry for entry in note["amdhsa.kernels"]}
        self._image = self._load_image()
        self._programs: dict[str, Program] = {}

    def _open(self) -> Any:
        try:
            from elftools.common.exceptions import ELFError
            from elftools.elf.elffile import ELFFile
        except ImportError as error:
            raise AssemblyError(f"loading a code object needs pyelftools and msgpack: {error}") from error
        try:
            elf = ELFFile(io.BytesIO(self.data))
        except ELFError as error:
            raise AssemblyError(f"not an ELF file: {error}") from error
        if elf["e_machine"] != "EM_AMDGPU" or elf["e_type"] != "ET_DYN":
            raise AssemblyError(f"not a linked AMDGPU code object: machine {elf['e_machine']}, type {elf['e_type']}")
        return elf

    def _note(self) -> dict[str, Any]:
        import msgpack

        for segment in self._elf.iter_segments("PT_NOTE"):
            data, place = segment.data(), 0
            while place + 12 <= len(data):
                name_size, size, kind = struct.unpack_from("<III", data, place)
                begin = place + 12 + -(-name_size // 4) * 4
                if kind == _NT_AMDGPU_METADATA and data[place + 12 :].startswith(b"AMDGPU\0"):
                    note: dict[str, Any] = msgpack.unpackb(data[begin : begin + size])
                    return note
                place = begin + -(-size // 4) * 4
        raise AssemblyError("the code object has no AMDGPU metadata note")

    @cached_property
    def _symbols(self) -> dict[str, Symbol]:
        found = {}
        for table in (".symtab", ".dynsym"):
            section = self._elf.get_section_by_name(table)
            for symbol in section.iter_symbols() if section else ():
                kind = symbol["st_info"]["type"]
                if symbol["st_shndx"] != "SHN_UNDEF" and kind in ("STT_FUNC", "STT_OBJECT"):
                    found[symbol.name] = Symbol(symbol.name, symbol["st_value"], symbol["st_size"], kind)
        return found

    @cached_property
    def variables(self) -> dict[str, Symbol]:
        """Device globals by name; their ``address`` is where they lie in this process."""
        return {
            symbol.name: Symbol(symbol.name, self.base + symbol.address, symbol.size, symbol.kind)
            for symbol in self._symbols.values()
            if symbol.kind == "STT_OBJECT" and not symbol.name.endswith(".kd")
        }

    @property
    def base(self) -> int:
        """Where address 0 of the file lies in this process."""
        return int(self._image.ctypes.data)

    def _load_image(self) -> Array:
        segments = list(self._elf.iter_segments("PT_LOAD"))
        size = max(segment["p_vaddr"] + segment["p_memsz"] for segment in segments)
        storage = np.zeros(size + _PAGE, np.uint8)
        image = storage[-storage.ctypes.data % _PAGE :][:size]
        for segment in segments:
            data = segment.data()
            image[segment["p_vaddr"] : segment["p_vaddr"] + len(data)] = np.frombuffer(data, np.uint8)
        self._relocate(image)
        return image

    def _relocate(self, image: Array) -> None:
        base = int(image.ctypes.data)
        for section in self._elf.iter_sections("SHT_RELA"):
            symbols = self._elf.get_section(section["sh_link"])
            for entry in section.iter_relocations():
                kind, value = entry["r_info_type"], base + entry["r_addend"]
                if kind == _ABS64:
                    symbol = symbols.get_symbol(entry["r_info_sym"])
                    if symbol["st_shndx"] == "SHN_UNDEF":
                        raise AssemblyError(f"symbol {symbol.name!r} is not defined in the code object")
                    value += symbol["st_value"]
                elif kind != _RELATIVE64:
                    raise AssemblyError(f"relocation of type {kind} is not supported")
                place = entry["r_offset"]
                image[place : place + 8] = np.frombuffer(struct.pack("<Q", value), np.uint8)

    @cached_property
    def _regions(self) -> list[_Region]:
        """The sections that hold data."""
        from elftools.elf.constants import SH_FLAGS

        regions = []
        for section in self._elf.iter_sections():
            flags, begin = section["sh_flags"], section["sh_addr"]
            end = begin + section["sh_size"]
            held = section["sh_type"] in ("SHT_PROGBITS", "SHT_NOBITS") and section.name != ".relro_padding"
            if not held or not flags & SH_FLAGS.SHF_ALLOC or flags & SH_FLAGS.SHF_EXECINSTR or begin == end:
                continue
            regions.append(_Region(begin, end, f"section {section.name}", bool(flags & SH_FLAGS.SHF_WRITE)))
        return regions

    def map_into(self, memory: GlobalMemory) -> None:
        """Make the constants and variables of the code object visible to kernels that use ``memory``."""
        for region in self._regions:
            data = self._image[region.begin : region.end]
            memory.add(self.base + region.begin, data, region.name, region.writable)

    def disassembly(self, kernel: str) -> str:
        """llvm-objdump's text of ``kernel``, to whose lines error messages refer."""
        self._check(kernel)
        return disassemble(self.data, kernel, self._objdump)

    def _check(self, kernel: str) -> None:
        if kernel not in self.kernels:
            raise AssemblyError(f"kernel {kernel!r} is not among {sorted(self.kernels)}")

    def program(self, kernel: str | None = None) -> Program:
        """``kernel`` (default: the only one), ready to launch; decoded once.

        Raises AssemblyError or UnsupportedInstructionError if it cannot be loaded.
        """
        if kernel is None:
            if len(self.kernels) != 1:
                raise AssemblyError(f"kernel: the code object holds {sorted(self.kernels)}; name exactly one of them")
            (kernel,) = self.kernels
        if kernel not in self._programs:
            self._programs[kernel] = Program(self._kernel_text(kernel), map_image=self.map_into)
        return self._programs[kernel]

    def _kernel_text(self, name: str) -> KernelText:
        self._check(name)
        metadata = self.kernels[name]
        descriptor = self._symbols[metadata[".symbol"]]
        data = self._image[descriptor.address : descriptor.address + descriptor.size].tobytes()
        directives, entry = parse_descriptor(data, self.target)
        function = self._symbols[name]
        if descriptor.address + entry != function.address:
            raise AssemblyError(f"kernel {name!r}: the descriptor's entry is not the function of that name")
        arguments = [Argument(a[".offset"], a[".size"], a[".value_kind"]) for a in metadata.get(".args", ())]
        lines, labels = parse_disassembly(self.disassembly(name), function.address + function.size, self.base)
        return KernelText(
            name, self.target.name, directives, arguments, metadata[".kernarg_segment_size"], lines, labels
        )
