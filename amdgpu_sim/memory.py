"""Byte-addressed memory: host allocations that kernels may touch, and fast gathers and scatters on them."""

from __future__ import annotations

import bisect
import ctypes
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from amdgpu_sim.errors import OutOfBoundsError
from amdgpu_sim.waves import Array, Waves

_UNITS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64, 16: np.complex128}


class Block:
    """A contiguous byte array, accessed in the widest unit that the offsets allow."""

    def __init__(self, data: Array) -> None:
        """``data``: the uint8 array to access."""
        self.bytes = data
        self._views = {unit: data[: len(data) // unit * unit].view(dtype) for unit, dtype in _UNITS.items()}

    @staticmethod
    def _index(offsets: Array, size: int) -> tuple[int, Array]:
        alignment = int(np.bitwise_or.reduce(offsets)) | size | 16
        unit = alignment & -alignment
        index = offsets // unit
        if unit != size:
            index = index[:, None] + np.arange(size // unit)
        return unit, index

    def gather(self, offsets: Array, size: int) -> Array:
        """``size`` bytes at each of ``offsets`` (int64): uint8 (len(offsets), size)."""
        unit, index = self._index(offsets, size)
        return self._views[unit].take(index).view(np.uint8).reshape(len(offsets), size)

    def scatter(self, offsets: Array, values: Array) -> None:
        """Store the rows of ``values`` (uint8) at ``offsets``; of equal offsets the last one stays."""
        unit, index = self._index(offsets, values.shape[1])
        self._views[unit][index] = np.ascontiguousarray(values).view(_UNITS[unit]).reshape(index.shape)


def undefined_bytes(undefined: Array, size: int) -> Array:
    """Per-register flags (n, registers) as per-byte flags (n, size)."""
    return np.repeat(undefined, 4, axis=1)[:, :size]


def undefined_registers(flags: Array) -> Array | None:
    """Per-byte flags (n, size) as per-register flags; None if none is set."""
    if not flags.any():
        return None
    if flags.shape[1] < 4:
        return flags.any(1, keepdims=True)
    return flags.reshape(len(flags), -1, 4).any(2)


class GlobalMemory:
    """The allocations of one launch, found by address. Every access must lie inside one of them.

    Atomics hold ``exclusive`` from their load to their store.
    """

    def __init__(self) -> None:
        """Nothing is allocated."""
        self._starts: list[int] = []
        self._blocks: list[tuple[int, int, Block, str, bool]] = []
        self.exclusive: AbstractContextManager[Any] = nullcontext()

    def add(self, address: int, data: Array, name: str, writable: bool = True) -> None:
        """Make ``data`` (uint8) visible at ``address``; an allocation that is already there is kept."""
        place = bisect.bisect_left(self._starts, address)
        if (
            place < len(self._starts)
            and self._starts[place] == address
            and self._blocks[place][1] >= address + len(data)
        ):
            return
        self._starts.insert(place, address)
        self._blocks.insert(place, (address, address + len(data), Block(data), name, writable))

    def add_host(self, address: int, size: int, name: str, writable: bool = True) -> None:
        """Make ``size`` bytes of this process's memory visible at their own address."""
        if size:
            self.add(address, np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)), name, writable)

    def replace_writable(self, copy: Callable[[Array], Array]) -> list[tuple[int, int, Block, str, bool]]:
        """Put ``copy(data)`` in the place of every writable allocation's bytes; returns what :meth:`restore` takes.

        Allocations that overlap share one copy.
        """
        originals = list(self._blocks)
        regions: list[list[int]] = []
        for start, end, _, _, writable in originals:
            if writable and regions and start < regions[-1][1]:
                regions[-1][1] = max(regions[-1][1], end)
            elif writable:
                regions.append([start, end])
        copies = [(start, copy(np.zeros(end - start, np.uint8))) for start, end in regions]
        for number, (start, end, block, name, writable) in enumerate(originals):
            if writable:
                base, data = copies[bisect.bisect_right(regions, [start, 1 << 64]) - 1]
                part = data[start - base : end - base]
                part[:] = block.bytes
                self._blocks[number] = (start, end, Block(part), name, writable)
        return originals

    def restore(self, originals: list[tuple[int, int, Block, str, bool]]) -> None:
        """Copy the bytes back into the allocations that :meth:`replace_writable` replaced."""
        for (_, _, block, _, writable), original in zip(self._blocks, originals, strict=True):
            if writable:
                original[2].bytes[:] = block.bytes
        self._blocks = originals
        self.exclusive = nullcontext()

    def _find(self, low: int, high: int) -> tuple[int, int, Block, str, bool] | None:
        place = bisect.bisect_right(self._starts, low) - 1
        while place >= 0:
            entry = self._blocks[place]
            if entry[1] >= high:
                return entry
            place -= 1
        return None

    def _parts(self, addresses: Array, size: int, store: bool) -> list[tuple[Block, Array | None, Array]]:
        """The blocks that hold ``addresses``: (block, positions or None for all, offsets)."""
        low, high = int(addresses.min()), int(addresses.max()) + size
        entry = self._find(low, high)
        if entry and (entry[4] or not store):
            return [(entry[2], None, (addresses - np.uint64(entry[0])).astype(np.int64))]
        parts: list[tuple[Block, Array | None, Array]] = []
        left = np.ones(len(addresses), bool)
        for start, end, block, _, writable in self._blocks:
            inside = left & (addresses >= np.uint64(start)) & (addresses + np.uint64(size) <= np.uint64(end))
            if (writable or not store) and inside.any():
                parts.append((block, np.flatnonzero(inside), (addresses[inside] - np.uint64(start)).astype(np.int64)))
                left &= ~inside
        if left.any():
            raise _OutsideError(int(left.argmax()))
        return parts

    def _describe(self, address: int) -> str:
        near = min(self._blocks, key=lambda b: max(b[0] - address, address - b[1] + 1), default=None)
        if near is None:
            return "nothing is allocated"
        start, end, _, name, writable = near
        if start <= address < end:
            return f"{address - start} bytes into {name} of {end - start} bytes" + ("" if writable else " (read-only)")
        where = f"{address - end} bytes past the end" if address >= end else f"{start - address} bytes before the start"
        return f"{where} of {name} of {end - start} bytes"

    def fault(self, w: Waves, where: Array, position: int, address: int, what: str, size: int) -> OutOfBoundsError:
        """The error of the active lane number ``position`` among ``where`` (a (wave, lane) mask)."""
        slot, lane = (int(x[position]) for x in np.nonzero(where))
        return OutOfBoundsError(f"global {what} of {size} bytes at {address:#x}: {self._describe(address)}", slot, lane)

    def load(self, w: Waves, where: Array, addresses: Array, size: int) -> Array:
        """Bytes (len(addresses), size) at ``addresses`` of the lanes ``where``."""
        if not len(addresses):
            return np.zeros((0, size), np.uint8)
        try:
            parts = self._parts(addresses, size, False)
        except _OutsideError as outside:
            raise self.fault(w, where, outside.position, int(addresses[outside.position]), "load", size) from None
        if parts[0][1] is None:
            return parts[0][0].gather(parts[0][2], size)
        result = np.empty((len(addresses), size), np.uint8)
        for block, positions, offsets in parts:
            result[positions] = block.gather(offsets, size)
        return result

    def store(self, w: Waves, where: Array, addresses: Array, values: Array) -> None:
        """Store the rows of ``values`` at ``addresses`` of the lanes ``where``."""
        if not len(addresses):
            return
        size = values.shape[1]
        try:
            parts = self._parts(addresses, size, True)
        except _OutsideError as outside:
            raise self.fault(w, where, outside.position, int(addresses[outside.position]), "store", size) from None
        for block, positions, offsets in parts:
            block.scatter(offsets, values if positions is None else values[positions])


class _OutsideError(Exception):
    """Internal: the access number ``position`` is in no allocation."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position
