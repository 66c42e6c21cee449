"""Kernel arguments as the bytes that a kernel reads."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

import numpy as np

from simulated_device.address_space import AddressSpace
from simulated_device.host_memory import extent


def packed(number: int, value: Any, size: int, memory: AddressSpace[Any], error: type[Exception]) -> bytes:
    """Argument ``number`` as ``size`` bytes: an integer, a float, None (null), bytes, a ctypes or numpy scalar or
    structure; a numpy array or a torch CPU tensor, whose memory then is visible in ``memory``; or what else has a
    ``data_ptr``. ``error`` if it does not fit."""
    if isinstance(value, ctypes.Structure | ctypes.Array | ctypes._SimpleCData):
        value = bytes(value)
    if isinstance(value, np.generic):
        value = value.tobytes()
    if isinstance(value, bytes | bytearray):
        if len(value) != size:
            raise error(f"argument {number}: {len(value)} bytes given, {size} expected")
        return bytes(value)
    if isinstance(value, float):
        if size not in (4, 8):
            raise error(f"argument {number}: a float for a parameter of {size} bytes, which takes bytes")
        return struct.pack("<f" if size == 4 else "<d", value)
    word = _word(number, value, memory, error)
    if not -(1 << 8 * size - 1) <= word < 1 << 8 * size:
        raise error(f"argument {number}: {word} does not fit {size} bytes")
    return (word % (1 << 8 * size)).to_bytes(size, "little")


def _word(number: int, value: Any, memory: AddressSpace[Any], error: type[Exception]) -> int:
    """An integer argument, or the address of an array, whose memory becomes visible."""
    if value is None:
        return 0
    if isinstance(value, int):
        return int(value)
    name = f"argument {number}"
    if isinstance(value, np.ndarray):
        memory.add_host(*extent(value, error, name), name, value.flags.writeable)
        return int(value.ctypes.data)
    if hasattr(value, "untyped_storage"):
        memory.add_host(*extent(value, error, name), name)
    if hasattr(value, "data_ptr"):
        return int(value.data_ptr())
    raise error(f"{name}: {type(value).__name__} is no argument of a kernel")
