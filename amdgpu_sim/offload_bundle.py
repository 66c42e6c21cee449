"""Finds the code object of a target in what HIP compilers embed: offload bundles, plain or compressed.

Source: Clang's documentation, "Clang Offload Bundler" (bundled binary layout, compressed bundles).
"""

from __future__ import annotations

import ctypes
import struct
import zlib
from collections.abc import Callable

from amdgpu_sim.errors import AssemblyError

# reads (offset, size) bytes of an image whose length may be unknown
ReadImage = Callable[[int, int], bytes]

_BUNDLE, _COMPRESSED, _ELF = b"__CLANG_OFFLOAD_BUNDLE__", b"CCOB", b"\x7fELF"
_ZLIB, _ZSTD = 0, 1
# what a device cannot run under its usual settings: retry of page faults on, memory protection off
_OTHER_SETTINGS = ("xnack+", "sramecc-")


def read_bytes(data: bytes) -> ReadImage:
    """An image held as ``data``."""

    def read(offset: int, size: int) -> bytes:
        if offset + size > len(data):
            raise AssemblyError(f"the image ends at {len(data)} bytes, before {offset + size}")
        return data[offset : offset + size]

    return read


def read_memory(address: int) -> ReadImage:
    """An image at ``address`` of this process."""
    return lambda offset, size: ctypes.string_at(address + offset, size)


def code_objects(read: ReadImage) -> dict[str, bytes]:
    """The GPU code objects of an image by target, e.g. {"gfx942": ...}; a bare ELF file under "".

    The target keeps its feature settings ("gfx90a:xnack-"). Raises AssemblyError for an unknown format.
    """
    start = read(0, 4)
    if start == _ELF:
        return {"": read(0, _elf_size(read))}
    if start == _COMPRESSED:
        return code_objects(read_bytes(_decompress(read)))
    if start != _BUNDLE[:4] or read(0, len(_BUNDLE)) != _BUNDLE:
        raise AssemblyError(f"not a code object and not an offload bundle: it starts with {start!r}")
    place = len(_BUNDLE) + 8
    (count,) = struct.unpack("<Q", read(len(_BUNDLE), 8))
    found = {}
    for _ in range(count):
        offset, size, name_size = struct.unpack("<QQQ", read(place, 24))
        name = read(place + 24, name_size).decode()
        place += 24 + name_size
        kind, _, target = name.rpartition("--")
        if kind.startswith("hip"):
            found[target] = read(offset, size)
    return found


def choose(objects: dict[str, bytes], target: str) -> bytes | None:
    """The code object that a device ``target`` loads; None if there is none for it."""
    for name, data in objects.items():
        processor, *settings = name.split(":")
        if processor in (target, "") and not set(settings) & set(_OTHER_SETTINGS):
            return data
    return None


def _elf_size(read: ReadImage) -> int:
    """End of the section header table, which linkers put last."""
    header = read(0, 64)
    (section_offset,) = struct.unpack_from("<Q", header, 40)
    entry_size, entries = struct.unpack_from("<HH", header, 58)
    return int(section_offset + entry_size * entries)


def _decompress(read: ReadImage) -> bytes:
    _, version, method = struct.unpack("<4sHH", read(0, 8))
    if version not in (2, 3):
        raise AssemblyError(f"compressed offload bundle of version {version}; 2 and 3 are supported")
    layout = "<II8x" if version == 2 else "<QQ8x"
    total, plain = struct.unpack(layout, read(8, struct.calcsize(layout)))
    begin = 8 + struct.calcsize(layout)
    packed = read(begin, total - begin)
    if method == _ZLIB:
        return zlib.decompress(packed)
    if method != _ZSTD:
        raise AssemblyError(f"offload bundle compressed by method {method}; zlib (0) and zstd (1) are supported")
    try:
        import zstandard
    except ImportError as error:
        raise AssemblyError(
            "the offload bundle is compressed with zstd: install zstandard, or compile without --offload-compress"
        ) from error
    return bytes(zstandard.ZstdDecompressor().decompress(packed, max_output_size=plain))
