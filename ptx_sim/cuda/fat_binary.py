"""Reads the fat binaries that nvcc puts into host programs: the PTX for a target."""

from __future__ import annotations

import ctypes
import importlib
import struct

from ptx_sim.errors import PtxError
from ptx_sim.targets import Target

_WRAPPER_MAGIC, _MAGIC = 0x466243B1, 0xBA55ED50
_PTX = 1
_LZ4, _ZSTD = 0x2000, 0x8000


def ptx_for(wrapper: int, target: Target) -> str | None:
    """The PTX behind the wrapper at address ``wrapper`` that suits ``target`` best; None if there is none."""
    magic, _, data = struct.unpack("<IIQ", ctypes.string_at(wrapper, 16))
    if magic != _WRAPPER_MAGIC:
        raise PtxError("__cudaRegisterFatBinary: the wrapper's magic number is not CUDA's")
    header = ctypes.string_at(data, 16)
    magic, _, header_size, size = struct.unpack("<IHHQ", header)
    if magic != _MAGIC:
        raise PtxError("__cudaRegisterFatBinary: the fat binary's magic number is not CUDA's")
    return choose(ctypes.string_at(data + header_size, size), target)


def choose(entries: bytes, target: Target) -> str | None:
    """Of the entries of a fat binary, the text of the newest PTX that ``target`` can run."""
    major, minor = target.capability
    found: dict[int, bytes] = {}
    place = 0
    while place + 64 <= len(entries):
        kind, _, header_size, padded = struct.unpack_from("<HHIQ", entries, place)
        compressed, _, _, arch = struct.unpack_from("<IIII", entries, place + 16)
        flags, _, unpacked = struct.unpack_from("<QQQ", entries, place + 40)
        begin = place + header_size
        if kind == _PTX and arch <= 10 * major + minor:
            held = entries[begin : begin + (compressed or padded)]
            found[arch] = _unpack(held, flags, unpacked)
        place = begin + padded
    return found[max(found)].rstrip(b"\0").decode() if found else None


def _unpack(data: bytes, flags: int, size: int) -> bytes:
    if flags & _LZ4:
        raise PtxError("the PTX in the fat binary is compressed by LZ4: build with nvcc --no-compress")
    if flags & _ZSTD:
        try:
            zstandard = importlib.import_module("zstandard")
        except ImportError:
            raise PtxError(
                "the fat binary is compressed: install zstandard, or build with nvcc --no-compress"
            ) from None
        return bytes(zstandard.ZstdDecompressor().decompress(data, max_output_size=size))
    return data
