"""Byte-addressed memory: host allocations that kernels may touch, and fast gathers and scatters on them."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from amdgpu_sim.errors import OutOfBoundsError
from amdgpu_sim.waves import Array, Waves
from simulated_device.address_space import AddressSpace, Allocation, OutsideError

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


class GlobalMemory(AddressSpace[Block]):
    """The allocations of one launch. Atomics hold ``exclusive`` from their load to their store."""

    def __init__(self) -> None:
        """Nothing is allocated."""
        super().__init__()
        self.exclusive: AbstractContextManager[Any] = nullcontext()

    def _hold(self, address: int, data: Array) -> Block:
        return Block(data)

    def replace_writable(self, copy: Callable[[Array], Array]) -> list[Allocation[Block]]:
        """Put ``copy(data)`` in the place of every writable allocation's bytes; returns what :meth:`restore` takes.

        Allocations that overlap share one copy.
        """
        originals = list(self._allocations)
        regions: list[list[int]] = []
        for old in originals:
            if old.writable and regions and old.begin < regions[-1][1]:
                regions[-1][1] = max(regions[-1][1], old.end)
            elif old.writable:
                regions.append([old.begin, old.end])
        copies = [(begin, copy(np.zeros(end - begin, np.uint8))) for begin, end in regions]
        for number, old in enumerate(originals):
            if old.writable:
                base, data = copies[bisect.bisect_right(regions, [old.begin, 1 << 64]) - 1]
                part = data[old.begin - base : old.end - base]
                part[:] = old.held.bytes
                self._allocations[number] = replace(old, held=Block(part))
        return originals

    def restore(self, originals: list[Allocation[Block]]) -> None:
        """Copy the bytes back into the allocations that :meth:`replace_writable` replaced."""
        for copied, original in zip(self._allocations, originals, strict=True):
            if copied.writable:
                original.held.bytes[:] = copied.held.bytes
        self._allocations = originals
        self.exclusive = nullcontext()

    def _places(self, where: Array, addresses: Array, size: int, what: str) -> list[tuple[Block, Array | None, Array]]:
        """The blocks that hold ``addresses``: (block, positions or None for all, offsets)."""
        try:
            parts = self._parts(addresses, size, what == "store")
        except OutsideError as outside:
            address = int(addresses[outside.position])
            slot, lane = (int(x[outside.position]) for x in np.nonzero(where))
            text = f"global {what} of {size} bytes at {address:#x}: {self._describe(address)}"
            raise OutOfBoundsError(text, slot, lane) from None
        return [
            (
                part.held,
                some,
                ((addresses if some is None else addresses[some]) - np.uint64(part.begin)).astype(np.int64),
            )
            for part, some in parts
        ]

    def load(self, w: Waves, where: Array, addresses: Array, size: int) -> Array:
        """Bytes (len(addresses), size) at ``addresses`` of the lanes ``where``, a (wave, lane) mask."""
        if not len(addresses):
            return np.zeros((0, size), np.uint8)
        parts = self._places(where, addresses, size, "load")
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
        for block, positions, offsets in self._places(where, addresses, values.shape[1], "store"):
            block.scatter(offsets, values if positions is None else values[positions])
