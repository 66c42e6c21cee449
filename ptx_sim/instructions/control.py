"""Branches, returns, barriers and fences."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptx_sim.decoding import Decoding, Execute, Read, instruction
from ptx_sim.errors import KernelError
from ptx_sim.instructions.cross_lane import check_members
from ptx_sim.threads import Threads


def _taken(d: Decoding) -> Read | None:
    """Who takes a branch, None for everyone that executes."""
    d.guards_itself = True
    if d.statement.guard is None:
        return None
    guard = d.guard()
    return lambda t: t.mask & guard(t)


@instruction("bra")
def _(d: Decoding) -> Execute:
    d.flag("uni")
    d.category = "branch"
    taken = _taken(d)
    if taken is None:
        return lambda t: t.batch.branch(t.mask, 0)
    return lambda t: t.batch.branch(taken(t), 0)


@instruction("brx")
def _(d: Decoding) -> Execute:
    d.flag("uni")
    if not d.flag("idx"):
        raise d.unsupported("only brx.idx is modelled")
    d.category = "branch"
    taken, index = _taken(d), d.source(0, "u32")

    def execute(t: Threads) -> None:
        wanted = t.mask if taken is None else taken(t)
        chosen = np.broadcast_to(index(t), t.count)
        for number in np.unique(chosen[wanted]).tolist():
            t.batch.branch(wanted & (chosen == number), number)

    return execute


@instruction("exit", "ret")
def _(d: Decoding) -> Execute:
    d.flag("uni")
    d.category = "branch"
    taken = _taken(d)
    return lambda t: t.batch.leave(t.mask if taken is None else taken(t))


@instruction("trap")
def _(d: Decoding) -> Execute:
    d.category = "branch"
    taken = _taken(d)

    def execute(t: Threads) -> None:
        mask = t.mask if taken is None else taken(t)
        if mask.any():
            raise KernelError("the kernel trapped", int(mask.argmax()))

    return execute


@instruction("call")
def _(d: Decoding) -> Execute:
    d.modifiers = []
    text = d.statement.text

    def execute(t: Threads) -> None:
        raise KernelError(f"`{text}` was reached: calls (assert, printf) are not modelled", int(t.mask.argmax()))

    return execute


@instruction("brkpt", "pmevent")
def _(d: Decoding) -> Execute:
    return lambda t: None


@instruction("nanosleep")
def _(d: Decoding) -> Execute:
    d.flag("u32")
    d.guards_itself = True
    return lambda t: t.batch.let_others_run()


@instruction("bar", "barrier")
def _(d: Decoding) -> Execute:
    d.category = "barrier"
    d.guards_itself = True
    guard = None if d.statement.guard is None else d.guard()
    warp, aligned = d.flag("warp"), d.flag("aligned") or d.opcode == "bar"
    if d.flag("cluster"):
        return _cluster_barrier(d)
    d.flag("cta")
    action = d.choice("sync", "arrive", "red")
    if not action:
        raise d.unsupported("a barrier that is not modelled")
    if warp:
        members = d.source(0, "u32")
        return lambda t: check_members(t, members(t), "bar.warp.sync")
    first = 1 if action == "red" else 0
    reduction = _reduction(d) if action == "red" else None
    last = len(d.operands) - (1 if action == "red" else 0)
    number = d.source(first, "u32")
    count = d.source(first + 1, "u32") if last > first + 1 else None

    def execute(t: Threads) -> None:
        mask = t.mask if guard is None else t.mask & guard(t)
        if mask.any():
            t.batch.barriers.arrive(mask, number(t), None if count is None else count(t), action, aligned, reduction)
        else:
            t.batch.fall_through()

    return execute


def _cluster_barrier(d: Decoding) -> Execute:
    """Clusters have one block: arriving is nothing, and waiting is a barrier of the block."""
    action = d.choice("arrive", "wait")
    while d.flag("acquire", "release", "relaxed"):
        pass
    if action == "arrive":
        return lambda t: t.batch.fall_through()
    # a number that no barrier of the block has
    return lambda t: t.batch.barriers.arrive(t.mask, np.uint32(16), None, "sync", True, None)


def _reduction(d: Decoding) -> Any:
    """(reader of the predicate, function of a (block's) predicates, writer)."""
    name = d.choice("popc", "and", "or")
    kind = d.type()
    wanted = d.source(len(d.operands) - 1, "pred")
    write = d.destination(0, kind)
    functions: dict[str, Any] = {
        "popc": lambda values: np.uint32(values.sum()),
        "and": lambda values: np.bool_(values.all()),
        "or": lambda values: np.bool_(values.any()),
    }
    return wanted, functions[name], write


@instruction("membar", "fence")
def _(d: Decoding) -> Execute:
    # memory operations are seen by everybody at once
    d.category = "fence"
    d.modifiers = []
    return lambda t: None


@instruction("griddepcontrol", "setmaxnreg")
def _(d: Decoding) -> Execute:
    d.category = "fence"
    d.modifiers = []
    return lambda t: None
