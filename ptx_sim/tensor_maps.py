"""Tensor maps, by which the TMA unit reads and writes. A real one is opaque; ours has a layout of its own."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from ptx_sim.types import Array

_MAGIC = 0x70616D5F736E6574
_MOST_DIMENSIONS = 5
_BYTES = 128


class _Packed(ctypes.Structure):
    _fields_ = (
        ("magic", ctypes.c_uint64),
        ("address", ctypes.c_uint64),
        ("strides", ctypes.c_uint64 * (_MOST_DIMENSIONS - 1)),
        ("sizes", ctypes.c_uint64 * _MOST_DIMENSIONS),
        ("box", ctypes.c_uint16 * _MOST_DIMENSIONS),
        ("rank", ctypes.c_uint8),
        ("element", ctypes.c_uint8),
        ("swizzle", ctypes.c_uint8),
        ("float32", ctypes.c_bool),
    )


class TensorMap:
    """A tiled tensor map, with the argument order and the limits of ``cuTensorMapEncodeTiled``."""

    def __init__(
        self,
        address: int,
        element: int,
        sizes: Sequence[int],
        strides: Sequence[int],
        box: Sequence[int],
        swizzle: int = 0,
        float32: bool = False,
    ) -> None:
        """Innermost dimension first.

        Args:
            address: of the first element; a multiple of 16.
            element: its bytes.
            sizes: elements along each of 1 to 5 dimensions, 1 to 2^32.
            strides: bytes between neighbours of every dimension but the first; multiples of 16 below 2^40.
            box: elements of a transfer along each dimension, 1 to 256.
            swizzle: 0, or the 32, 64 or 128 bytes that the box's rows fill at most.
            float32: whether elements are that, which matters to additions alone.

        Raises:
            ValueError: the driver would refuse the map.
        """
        rank = len(sizes)
        if not 1 <= rank <= _MOST_DIMENSIONS or len(strides) != rank - 1 or len(box) != rank:
            raise ValueError(
                f"{rank} sizes, {len(strides)} strides and a box of {len(box)}: 1 to 5 dimensions expected"
            )
        if address % 16 or any(not 0 < stride < 1 << 40 or stride % 16 for stride in strides):
            raise ValueError(f"address {address:#x} and strides {list(strides)}: multiples of 16 expected")
        if any(not 1 <= size <= 1 << 32 for size in sizes) or any(not 1 <= size <= 256 for size in box):
            raise ValueError(f"sizes {list(sizes)}, box {list(box)}: 1 to 2^32 and 1 to 256 expected")
        row = box[0] * element
        if row % 16 or swizzle not in (0, 32, 64, 128) or (swizzle and row > swizzle):
            raise ValueError(f"rows of {row} bytes with a swizzle of {swizzle}")
        self.address, self.element, self.swizzle, self.float32 = address, element, swizzle, float32
        self.sizes, self.strides, self.box = list(sizes), [element, *strides], list(box)

    def pack(self) -> bytes:
        """The 128 bytes of a ``CUtensorMap``."""
        rank = len(self.sizes)
        rest = [0] * (_MOST_DIMENSIONS - rank)
        packed = _Packed(
            _MAGIC,
            self.address,
            (ctypes.c_uint64 * 4)(*self.strides[1:], *rest),
            (ctypes.c_uint64 * 5)(*self.sizes, *rest),
            (ctypes.c_uint16 * 5)(*self.box, *rest),
            rank,
            self.element,
            self.swizzle,
            self.float32,
        )
        return bytes(packed).ljust(_BYTES, b"\0")

    @classmethod
    def unpack(cls, data: bytes) -> TensorMap:
        """What :meth:`pack` returned. ValueError for other bytes."""
        packed = _Packed.from_buffer_copy(data)
        if packed.magic != _MAGIC:
            raise ValueError("the bytes are no tensor map of ptx_sim")
        rank = packed.rank
        return cls(
            packed.address,
            packed.element,
            packed.sizes[:rank],
            packed.strides[: rank - 1],
            packed.box[:rank],
            packed.swizzle,
            packed.float32,
        )

    @property
    def bytes(self) -> int:
        """Of a box, with the elements outside the tensor."""
        return int(np.prod(self.box)) * self.element

    def places(self, coordinates: Sequence[int]) -> tuple[Array, Array]:
        """(addresses, inside): of every 16 bytes of the box at ``coordinates``, in the order of the box.

        ``inside`` counts how many of their elements lie in the tensor; addresses wrap at 2^64.
        """
        unit = 16 // self.element
        addresses: Array = np.array(self.address, np.uint64)
        inside: Array = np.array(unit)
        for axis in reversed(range(len(self.box))):
            index = coordinates[axis] + np.arange(0, self.box[axis], unit if axis == 0 else 1)
            steps = index.astype(np.int64).view(np.uint64) * np.uint64(self.strides[axis])
            if axis == 0:
                # negative coordinates of the innermost dimension would cut the 16 bytes' front
                count = np.where(index >= 0, np.clip(self.sizes[0] - index, 0, unit), 0)
            else:
                count = np.where((index >= 0) & (index < self.sizes[axis]), unit, 0)
            addresses = addresses[..., None] + steps
            inside = np.minimum(inside[..., None], count)
        return addresses.reshape(-1), inside.reshape(-1)


def swizzled(addresses: Array, width: int) -> Array:
    """Shared-memory byte addresses under a swizzle of ``width`` bytes (0 for none)."""
    if not width:
        return addresses
    bits = width // 16 - 1
    moved: Array = addresses ^ ((addresses >> 7 & bits) << 4)
    return moved
