"""cp: asynchronous copies between global and shared memory, waiting for them, and mbarriers that count them."""

from __future__ import annotations

import numpy as np

from ptx_sim.decoding import Decoding, Execute, instruction
from ptx_sim.instructions.moves import take_space
from ptx_sim.instructions.tensor_copies import tensor_copy
from ptx_sim.instructions.tensor_stores import stores, tensor_store
from ptx_sim.syntax import Immediate, integer
from ptx_sim.threads import Threads
from ptx_sim.types import Array


@instruction("cp")
def _(d: Decoding) -> Execute:
    adds = d.flag("reduce")
    if not d.flag("async"):
        raise d.unsupported("only cp.async is modelled")
    if d.flag("bulk"):
        return tensor_store(d, adds) if adds or stores(d) else tensor_copy(d)
    d.category = "async_copy"
    if d.flag("mbarrier"):
        return _arrive(d)
    if d.flag("commit_group"):
        return lambda t: t.copies.commit(t.active)
    if d.flag("wait_all"):
        return lambda t: t.copies.wait_all(t)
    if d.flag("wait_group"):
        newest = d.operand(0)
        if not isinstance(newest, Immediate):
            raise d.unsupported("a constant is expected")
        groups = integer(newest.text)
        return lambda t: t.copies.wait(t, groups)
    return _copy(d)


def _arrive(d: Decoding) -> Execute:
    if not (d.flag("arrive") and d.flag("noinc")):
        raise d.unsupported("only arrivals that the mbarrier's count has (.noinc) are modelled")
    if take_space(d) != "shared" or not d.flag("b64"):
        raise d.unsupported("only mbarriers named by shared addresses are modelled")
    address, _ = d.address(0)
    return lambda t: t.copies.arrive_later(t, t.active, address(t)[t.active])


def _copy(d: Decoding) -> Execute:
    d.ignore("L2::", "L1::")
    d.flag("ca", "cg")
    if take_space(d) != "shared" or take_space(d) != "global":
        raise d.unsupported("only copies from global to shared memory are modelled")
    to, _ = d.address(0)
    origin, _ = d.address(1)
    size_operand = d.operand(2)
    if not isinstance(size_operand, Immediate) or integer(size_operand.text) not in (4, 8, 16):
        raise d.unsupported("a constant size of 4, 8 or 16 bytes is expected")
    size = d.access_bytes = integer(size_operand.text)
    if len(d.operands) > 4:
        raise d.unsupported("at most four operands are modelled")
    present = d.source(3, "u32") if len(d.operands) == 4 else None

    def execute(t: Threads) -> None:
        active = t.active
        here, there = to(t)[active], origin(t)[active]
        if present is None:
            values = t.memory.load(there, size, 4, "asynchronous copy")
        else:
            length = np.minimum(np.broadcast_to(present(t), t.count)[active], size).astype(np.int64)
            values = _partly(t, there, size, length)
        t.copies.begin(t, active, here, values)

    return execute


def _partly(t: Threads, addresses: Array, size: int, length: Array) -> Array:
    """The first ``length`` bytes at each address, then zeros; nothing is read where the length is 0."""
    if (length == size).all():
        return t.memory.load(addresses, size, 4, "asynchronous copy")
    values = np.zeros((len(addresses), size), np.uint8)
    for bytes_ in np.unique(length).tolist():
        if bytes_ == 0:
            continue
        rows = np.flatnonzero(length == bytes_)
        unit = bytes_ & -bytes_
        for begin in range(0, bytes_, unit):
            part = t.memory.load(addresses[rows] + begin, unit, 1, "asynchronous copy")
            values[rows, begin : begin + unit] = part
    return values.view(np.uint32)
