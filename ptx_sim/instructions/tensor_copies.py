"""cp.async.bulk.tensor: boxes of a tensor to shared memory by the TMA unit."""

from __future__ import annotations

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
    source = d.operand(1)
    if not isinstance(source, Address) or not isinstance(source.coordinates, Vector):
        raise d.unsupported("a tensor map with coordinates is expected")
    if not isinstance(source.base, Register):
        raise d.unsupported("the address of a tensor map is expected in a register")
    base = d.source(source.base, "s64")
    coordinates = [d.source(item, "s32") for item in source.coordinates.items]
    if len(coordinates) != rank:
        raise d.unsupported(f"{rank} coordinates are expected")
    offset = source.offset

    def execute(t: Threads) -> None:
        maps = np.broadcast_to(base(t), t.count) + offset
        where = [np.broadcast_to(read(t), t.count) for read in coordinates]
        targets, barriers = to(t), barrier(t)
        for lane, key in t.batch.transactions.keys(t.mask, barriers):
            tensor = _tensor_map(t, int(maps[lane]), rank, lane)
            places, inside = tensor.places([int(axis[lane]) for axis in where])
            _begin(t, lane, key, tensor, int(targets[lane]), places, inside)

    return execute


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
    if target % (tensor.swizzle * 8 or 128):
        raise KernelError(f"a box with a swizzle of {tensor.swizzle} bytes to shared address {target:#x}", lane)
    if tensor.swizzle and tensor.box[0] * tensor.element != tensor.swizzle:
        raise KernelError("a box whose rows do not fill the swizzle is not modelled", lane)
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
