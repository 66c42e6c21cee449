"""cp.async.bulk.tensor: boxes of a tensor to shared memory by the TMA unit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ptx_sim.decoding import Decoding, Execute
from ptx_sim.errors import KernelError
from ptx_sim.syntax import Address, Register, Vector
from ptx_sim.tensor_maps import TensorMap, swizzled
from ptx_sim.threads import Threads
from ptx_sim.transactions import Transfer
from ptx_sim.types import UNSIGNED, Array

_MAP_BYTES = 128


def tensor_copy(d: Decoding) -> Execute:
    """Decode a load; ``cp.async.bulk`` is taken already."""
    if not d.flag("tensor"):
        raise d.unsupported("only copies of tensors are modelled")
    d.category = "tensor_copy"
    rank = int((d.choice("1d", "2d", "3d", "4d", "5d") or "0")[0])
    d.flag("tile")
    if not d.flag("shared::cluster", "shared::cta") or not d.flag("global"):
        raise d.unsupported("only loads to shared memory are modelled")
    if not d.flag("mbarrier::complete_tx::bytes"):
        raise d.unsupported("only completion on an mbarrier is modelled")
    d.flag("L2::cache_hint")
    to, _ = d.address(0)
    barrier, _ = d.address(2)
    tensors = TensorOperand(d, 1, rank)

    def execute(t: Threads) -> None:
        targets, barriers = to(t), barrier(t)
        boxes = tensors.read(t)
        for lane, key in t.batch.transactions.keys(t.mask, barriers):
            tensor, places, inside = boxes(lane)
            _begin(t, lane, key, tensor, int(targets[lane]), places, inside)

    return execute


class TensorOperand:
    """The operand ``[map, {coordinates}]``."""

    def __init__(self, d: Decoding, number: int, rank: int) -> None:
        """Of a tensor of ``rank`` dimensions."""
        operand = d.operand(number)
        if not isinstance(operand, Address) or not isinstance(operand.coordinates, Vector):
            raise d.unsupported("a tensor map with coordinates is expected")
        if not isinstance(operand.base, Register):
            raise d.unsupported("the address of a tensor map is expected in a register")
        self._base, self._offset = d.source(operand.base, "s64"), operand.offset
        self._coordinates = [d.source(item, "s32") for item in operand.coordinates.items]
        if len(self._coordinates) != rank:
            raise d.unsupported(f"{rank} coordinates are expected")

    def read(self, t: Threads) -> Callable[[int], tuple[TensorMap, Array, Array]]:
        """Return a function of a thread: its tensor map, and what :meth:`TensorMap.places` says of its box."""
        maps = np.broadcast_to(self._base(t), t.count) + self._offset
        where = [np.broadcast_to(read(t), t.count) for read in self._coordinates]

        def box(lane: int) -> tuple[TensorMap, Array, Array]:
            tensor = _tensor_map(t, int(maps[lane]), len(where), lane)
            return tensor, *tensor.places([int(axis[lane]) for axis in where])

        return box


def check_box(tensor: TensorMap, shared: int, lane: int) -> None:
    """KernelError where the unit does not take a box at a shared address."""
    if shared % (tensor.swizzle * 8 or 128):
        raise KernelError(f"a box with a swizzle of {tensor.swizzle} bytes at shared address {shared:#x}", lane)
    if tensor.swizzle and tensor.box[0] * tensor.element != tensor.swizzle:
        raise KernelError("a box whose rows do not fill the swizzle is not modelled", lane)


def _tensor_map(t: Threads, address: int, rank: int, lane: int) -> TensorMap:
    if address % 64:
        raise KernelError(f"tensor map at {address:#x}: not a multiple of 64", lane)
    data = t.memory.load(np.array([address]), 16, 1, "tensor map")
    parts = [data] + [t.memory.load(np.array([address + n]), 16, 1, "tensor map") for n in range(16, _MAP_BYTES, 16)]
    try:
        tensor = TensorMap.unpack(np.concatenate(parts, axis=None).tobytes())
    except ValueError as error:
        raise KernelError(str(error), lane) from None
    if len(tensor.sizes) != rank:
        raise KernelError(f"a tensor map of {len(tensor.sizes)} dimensions where {rank} are named", lane)
    return tensor


def _begin(
    t: Threads, lane: int, key: tuple[int, int], tensor: TensorMap, target: int, places: Array, inside: Array
) -> None:
    check_box(tensor, target, lane)
    threads = np.full(len(places), lane)
    written = swizzled(target + np.arange(len(places)) * 16, tensor.swizzle)
    flat, granules = t.shared.begin_copy(threads, written, 16)

    def deliver() -> None:
        values = np.zeros((len(places), 16), np.uint8)
        for count in filter(None, np.unique(inside).tolist()):
            rows, size = np.flatnonzero(inside == count), count * tensor.element
            unit, addresses = size & -size, places[inside == count].astype(np.int64)
            parts = [t.memory.load(addresses + n, unit, 1, "TMA load") for n in range(0, size, unit)]
            values[rows, :size] = np.concatenate(parts, axis=1)
        t.shared.end_copy(threads, flat, granules, values.view(UNSIGNED[4]))

    t.batch.transactions.begin(Transfer(key, lane, tensor.bytes, deliver))
