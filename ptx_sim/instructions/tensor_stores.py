"""cp.async.bulk.tensor and its reduction, from shared memory: boxes written to a tensor, or added to it."""

from __future__ import annotations

import numpy as np

from ptx_sim.decoding import Decoding, Execute
from ptx_sim.errors import KernelError
from ptx_sim.instructions.tensor_copies import TensorOperand, check_box
from ptx_sim.syntax import Immediate, integer
from ptx_sim.tensor_maps import TensorMap, swizzled
from ptx_sim.threads import Threads
from ptx_sim.types import UNSIGNED, Array


def stores(d: Decoding) -> bool:
    """Whether a ``cp.async.bulk`` is one of those here."""
    return not {"bulk_group", "commit_group", "wait_group"}.isdisjoint(d.modifiers)


def tensor_store(d: Decoding, adds: bool) -> Execute:
    """Decode a store, an addition or a wait for them; ``cp.async.bulk`` is taken already."""
    d.category = "tensor_copy"
    if d.flag("commit_group"):
        return lambda t: t.stores.commit(t.active)
    if d.flag("wait_group"):
        # what has been read is written at once
        d.flag("read")
        newest = d.operand(0)
        if not isinstance(newest, Immediate):
            raise d.unsupported("a constant is expected")
        groups = integer(newest.text)
        return lambda t: t.stores.wait(t.active, groups)
    if not d.flag("tensor"):
        raise d.unsupported("only copies of tensors are modelled")
    rank = int((d.choice("1d", "2d", "3d", "4d", "5d") or "0")[0])
    d.flag("tile")
    if not (d.flag("global") and d.flag("shared::cta") and d.flag("bulk_group")) or (adds and not d.flag("add")):
        raise d.unsupported("only stores and additions from shared memory in groups are modelled")
    d.flag("L2::cache_hint")
    tensors = TensorOperand(d, 0, rank)
    origin, _ = d.address(1)

    def execute(t: Threads) -> None:
        origins = origin(t)
        boxes = tensors.read(t)
        for lane in t.active.tolist():
            _begin(t, lane, int(origins[lane]), *boxes(lane), adds)

    return execute


def _begin(t: Threads, lane: int, origin: int, tensor: TensorMap, places: Array, inside: Array, adds: bool) -> None:
    check_box(tensor, origin, lane)
    if adds and not tensor.float32:
        raise KernelError("additions to elements other than float32 are not modelled", lane)
    sources = swizzled(origin + np.arange(len(places)) * 16, tensor.swizzle)
    addresses, threads = places.astype(np.int64), np.full(len(places), lane)
    t.shared.touch(threads, sources, 16)
    unsigned = UNSIGNED[tensor.element]

    def deliver() -> None:
        values = t.shared.load(threads, sources, 16, tensor.element).view(unsigned)
        for number in range(16 // tensor.element):
            rows = np.flatnonzero(inside > number)
            if not len(rows):
                continue
            targets, new = addresses[rows] + number * tensor.element, values[rows, number : number + 1]
            if adds:
                old = t.memory.load(targets, tensor.element, tensor.element, "TMA addition")
                new = (old.view(np.float32) + new.view(np.float32)).view(unsigned)
            t.memory.store(targets, new, "TMA store")

    t.stores.begin(lane, deliver)
