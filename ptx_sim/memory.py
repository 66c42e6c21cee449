"""Memory by address: buffers that kernels may touch, with bounds and alignment checks.

Addresses are int64 arrays. Generic addresses of shared and local memory lie in windows that no host memory uses.
"""

from __future__ import annotations

import bisect
import ctypes

import numpy as np

from ptx_sim.errors import MisalignedError, OutOfBoundsError
from ptx_sim.types import UNSIGNED, Array

SHARED_WINDOW = 1 << 60
LOCAL_WINDOW = 1 << 61
_UNITS = {**UNSIGNED, 16: np.dtype(np.complex128)}


class Bytes:
    """A byte array that is gathered from and scattered to in units of 1 to 16 bytes."""

    def __init__(self, data: Array, address: int = 0) -> None:
        """``data``: the uint8 array; ``address``: what its first byte is called."""
        self.data, self.address = data, address
        self._skew = address % 16
        self._views = {unit: data[: len(data) // unit * unit].view(dtype) for unit, dtype in _UNITS.items()}

    def _place(self, addresses: Array, size: int) -> tuple[int, Array]:
        offsets = addresses - self.address
        unit = min(size, self._skew & -self._skew) if self._skew else size
        index = offsets // unit
        return unit, index if unit == size else index[:, None] + np.arange(size // unit)

    def gather(self, addresses: Array, size: int, element: int) -> Array:
        """``size`` bytes at each address, as unsigned elements: (addresses, size // element)."""
        unit, index = self._place(addresses, size)
        taken = self._views[unit].take(index)
        return taken.view(UNSIGNED[element]).reshape(len(addresses), size // element)

    def scatter(self, addresses: Array, values: Array) -> None:
        """Store the rows of ``values`` (unsigned elements); of equal addresses the last one stays."""
        size = values.shape[1] * values.itemsize
        unit, index = self._place(addresses, size)
        self._views[unit][index] = np.ascontiguousarray(values).view(_UNITS[unit]).reshape(index.shape)


def check_aligned(addresses: Array, size: int, what: str, threads: Array | None = None) -> None:
    """MisalignedError if an address (of ``threads``, else of those that execute) is no multiple of ``size``."""
    wrong = (addresses & (size - 1)) != 0
    if wrong.any():
        place = int(wrong.argmax())
        text = f"{what} of {size} bytes at {int(addresses[place]):#x}: not a multiple of {size}"
        raise MisalignedError(text, None if threads is None else int(threads[place]), place)


class Buffer(Bytes):
    """Memory of a name at an address."""

    def __init__(self, address: int, data: Array, name: str, writable: bool) -> None:
        """``data`` (uint8) is seen at ``address``."""
        super().__init__(data, address)
        self.end = address + len(data)
        self.name, self.writable = name, writable


class GlobalMemory:
    """The buffers that a launch may touch. Every access must lie inside one of them."""

    def __init__(self) -> None:
        """Nothing may be touched."""
        self._starts: list[int] = []
        self._buffers: list[Buffer] = []

    def add(self, address: int, data: Array, name: str, writable: bool = True) -> None:
        """Make ``data`` (uint8) visible at ``address``; a buffer that holds it already is kept."""
        if not len(data) or self._find(address, address + len(data)) is not None:
            return
        place = bisect.bisect_left(self._starts, address)
        self._starts.insert(place, address)
        self._buffers.insert(place, Buffer(address, data, name, writable))

    def add_array(self, data: Array, name: str, writable: bool = True) -> None:
        """Make a contiguous numpy array visible at its own address."""
        self.add(data.ctypes.data, data.reshape(-1).view(np.uint8), name, writable)

    def add_host(self, address: int, size: int, name: str, writable: bool = True) -> None:
        """Make ``size`` bytes of this process's memory visible at their own address."""
        if size:
            self.add(address, np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)), name, writable)

    def _find(self, low: int, high: int) -> Buffer | None:
        for place in range(bisect.bisect_right(self._starts, low) - 1, -1, -1):
            if self._buffers[place].end >= high:
                return self._buffers[place]
        return None

    def _parts(self, addresses: Array, size: int, store: bool, what: str) -> list[tuple[Buffer, Array | None]]:
        """The buffers that hold ``addresses``, each with the positions in it (None: all)."""
        check_aligned(addresses, size, what)
        buffer = self._find(int(addresses.min()), int(addresses.max()) + size)
        if buffer and (buffer.writable or not store):
            return [(buffer, None)]
        left = np.ones(len(addresses), bool)
        parts: list[tuple[Buffer, Array | None]] = []
        for buffer in self._buffers:
            inside = left & (addresses >= buffer.address) & (addresses + size <= buffer.end)
            if (buffer.writable or not store) and inside.any():
                parts.append((buffer, np.flatnonzero(inside)))
                left &= ~inside
        if left.any():
            place = int(left.argmax())
            address = int(addresses[place])
            raise OutOfBoundsError(f"{what} of {size} bytes at {address:#x}: {self._describe(address)}", place=place)
        return parts

    def _describe(self, address: int) -> str:
        near = min(self._buffers, key=lambda b: max(b.address - address, address - b.end + 1), default=None)
        if near is None:
            return "no buffer is registered"
        held = f"{near.name} of {len(near.data)} bytes"
        if near.address <= address < near.end:
            return f"{address - near.address} bytes into {held}" + ("" if near.writable else " (read-only)")
        if address >= near.end:
            return f"{address - near.end} bytes past the end of {held}"
        return f"{near.address - address} bytes before the start of {held}"

    def load(self, addresses: Array, size: int, element: int, what: str = "global load") -> Array:
        """``size`` bytes at each address, as (addresses, size // element) unsigned elements."""
        parts = self._parts(addresses, size, False, what)
        if parts[0][1] is None:
            return parts[0][0].gather(addresses, size, element)
        result = np.empty((len(addresses), size // element), UNSIGNED[element])
        for buffer, places in parts:
            result[places] = buffer.gather(addresses[places], size, element)
        return result

    def store(self, addresses: Array, values: Array, what: str = "global store") -> None:
        """Store the rows of ``values`` (unsigned elements)."""
        for buffer, places in self._parts(addresses, values.shape[1] * values.itemsize, True, what):
            if places is None:
                buffer.scatter(addresses, values)
            else:
                buffer.scatter(addresses[places], values[places])


class LocalMemory:
    """Memory of each thread's own, ``size`` bytes of it."""

    def __init__(self, threads: int, size: int) -> None:
        """Poisoned."""
        self._stride = -(-size // 16) * 16
        self._size = size
        self._bytes = Bytes(np.full(threads * self._stride, 0xFF, np.uint8))

    def _check(self, threads: Array, addresses: Array, size: int, what: str) -> Array:
        check_aligned(addresses, size, what, threads)
        outside = (addresses < 0) | (addresses + size > self._size)
        if outside.any():
            place = int(outside.argmax())
            text = f"{what} of {size} bytes at {int(addresses[place])} of {self._size} bytes of local memory"
            raise OutOfBoundsError(text, int(threads[place]))
        inside: Array = addresses + threads * self._stride
        return inside

    def load(self, threads: Array, addresses: Array, size: int, element: int) -> Array:
        """What :meth:`GlobalMemory.load` does, at each thread's own addresses."""
        return self._bytes.gather(self._check(threads, addresses, size, "local load"), size, element)

    def store(self, threads: Array, addresses: Array, values: Array) -> None:
        """What :meth:`GlobalMemory.store` does, at each thread's own addresses."""
        size = values.shape[1] * values.itemsize
        self._bytes.scatter(self._check(threads, addresses, size, "local store"), values)
