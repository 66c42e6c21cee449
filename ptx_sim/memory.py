"""Memory by address: buffers that kernels may touch, with bounds and alignment checks.

Addresses are int64 arrays. Generic addresses of shared and local memory lie in windows that no host memory uses.
"""

from __future__ import annotations

import numpy as np

from ptx_sim.errors import MisalignedError, OutOfBoundsError
from ptx_sim.types import UNSIGNED, Array
from simulated_device.address_space import AddressSpace, OutsideError

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


class GlobalMemory(AddressSpace[Bytes]):
    """The buffers that a launch may touch. Every access must lie inside one of them."""

    def _hold(self, address: int, data: Array) -> Bytes:
        return Bytes(data, address)

    def add_array(self, data: Array, name: str, writable: bool = True) -> None:
        """Make a contiguous numpy array visible at its own address."""
        self.add(data.ctypes.data, data.reshape(-1).view(np.uint8), name, writable)

    def _places(self, addresses: Array, size: int, store: bool, what: str) -> list[tuple[Bytes, Array | None]]:
        """The bytes that hold ``addresses``, each with the positions in it (None: all)."""
        check_aligned(addresses, size, what)
        try:
            return [(part.held, places) for part, places in self._parts(addresses, size, store)]
        except OutsideError as outside:
            address = int(addresses[outside.position])
            text = f"{what} of {size} bytes at {address:#x}: {self._describe(address)}"
            raise OutOfBoundsError(text, place=outside.position) from None

    def load(self, addresses: Array, size: int, element: int, what: str = "global load") -> Array:
        """``size`` bytes at each address, as (addresses, size // element) unsigned elements."""
        parts = self._places(addresses, size, False, what)
        if parts[0][1] is None:
            return parts[0][0].gather(addresses, size, element)
        result = np.empty((len(addresses), size // element), UNSIGNED[element])
        for held, places in parts:
            result[places] = held.gather(addresses[places], size, element)
        return result

    def store(self, addresses: Array, values: Array, what: str = "global store") -> None:
        """Store the rows of ``values`` (unsigned elements)."""
        for held, places in self._places(addresses, values.shape[1] * values.itemsize, True, what):
            if places is None:
                held.scatter(addresses, values)
            else:
                held.scatter(addresses[places], values[places])


def check_inside(addresses: Array, size: int, limit: int, threads: Array, what: str, space: str) -> None:
    """OutOfBoundsError if an access of ``threads`` leaves the ``limit`` bytes of ``space``."""
    outside = (addresses < 0) | (addresses + size > limit)
    if outside.any():
        place = int(outside.argmax())
        text = f"{what} of {size} bytes at {int(addresses[place])} of {limit} bytes of {space}"
        raise OutOfBoundsError(text, int(threads[place]))


class LocalMemory:
    """Memory of each thread's own, ``size`` bytes of it."""

    def __init__(self, threads: int, size: int) -> None:
        """Poisoned."""
        self._stride = -(-size // 16) * 16
        self._size = size
        self._bytes = Bytes(np.full(threads * self._stride, 0xFF, np.uint8))

    def _check(self, threads: Array, addresses: Array, size: int, what: str) -> Array:
        check_aligned(addresses, size, what, threads)
        check_inside(addresses, size, self._size, threads, what, "local memory")
        inside: Array = addresses + threads * self._stride
        return inside

    def load(self, threads: Array, addresses: Array, size: int, element: int) -> Array:
        """What :meth:`GlobalMemory.load` does, at each thread's own addresses."""
        return self._bytes.gather(self._check(threads, addresses, size, "local load"), size, element)

    def store(self, threads: Array, addresses: Array, values: Array) -> None:
        """What :meth:`GlobalMemory.store` does, at each thread's own addresses."""
        size = values.shape[1] * values.itemsize
        self._bytes.scatter(self._check(threads, addresses, size, "local store"), values)
