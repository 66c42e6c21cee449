"""Memory that kernels may touch, found by address."""

from __future__ import annotations

import bisect
import ctypes
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

Array = np.ndarray[Any, Any]
BytesT = TypeVar("BytesT")


@dataclass(frozen=True)
class Allocation(Generic[BytesT]):
    """Addresses ``begin`` to ``end``; ``held`` is how the simulator gets at their bytes."""

    begin: int
    end: int
    held: BytesT
    name: str
    writable: bool


class OutsideError(Exception):
    """The access number ``position`` is in no allocation; never leaves a simulator."""

    def __init__(self, position: int) -> None:
        """``position`` counts the addresses."""
        super().__init__(position)
        self.position = position


class AddressSpace(ABC, Generic[BytesT]):
    """The allocations of one launch. Every access must lie inside one of them."""

    def __init__(self) -> None:
        """Nothing is allocated."""
        self._starts: list[int] = []
        self._allocations: list[Allocation[BytesT]] = []

    @abstractmethod
    def _hold(self, address: int, data: Array) -> BytesT:
        """What gathers from and scatters to ``data``, which is seen at ``address``."""

    def add(self, address: int, data: Array, name: str, writable: bool = True) -> None:
        """Make ``data`` (uint8) visible at ``address``; an allocation that holds it already is kept."""
        end = address + len(data)
        inside = self._find(address, end)
        if address == end or (inside and (inside.writable or not writable)):
            return
        place = bisect.bisect_left(self._starts, address)
        self._starts.insert(place, address)
        self._allocations.insert(place, Allocation(address, end, self._hold(address, data), name, writable))

    def add_host(self, address: int, size: int, name: str, writable: bool = True) -> None:
        """Make ``size`` bytes of this process's memory visible at their own address."""
        if size:
            self.add(address, np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)), name, writable)

    def _find(self, low: int, high: int) -> Allocation[BytesT] | None:
        for place in range(bisect.bisect_right(self._starts, low) - 1, -1, -1):
            if self._allocations[place].end >= high:
                return self._allocations[place]
        return None

    def _parts(self, addresses: Array, size: int, store: bool) -> list[tuple[Allocation[BytesT], Array | None]]:
        """The allocations that hold ``addresses``, each with the positions in it (None: all)."""
        whole = self._find(int(addresses.min()), int(addresses.max()) + size)
        if whole and (whole.writable or not store):
            return [(whole, None)]
        left = np.ones(len(addresses), bool)
        parts: list[tuple[Allocation[BytesT], Array | None]] = []
        for allocation in self._allocations:
            inside = left & (addresses >= allocation.begin) & (addresses <= allocation.end - size)
            if (allocation.writable or not store) and inside.any():
                parts.append((allocation, np.flatnonzero(inside)))
                left &= ~inside
        if left.any():
            raise OutsideError(int(left.argmax()))
        return parts

    def _describe(self, address: int) -> str:
        """Where ``address`` lies, from the nearest allocation."""
        near = min(self._allocations, key=lambda a: max(a.begin - address, address - a.end + 1), default=None)
        if near is None:
            return "nothing is allocated"
        whole = f"{near.name} of {near.end - near.begin} bytes"
        if near.begin <= address < near.end:
            return f"{address - near.begin} bytes into {whole}" + ("" if near.writable else " (read-only)")
        if address >= near.end:
            return f"{address - near.end} bytes past the end of {whole}"
        return f"{near.begin - address} bytes before the start of {whole}"
