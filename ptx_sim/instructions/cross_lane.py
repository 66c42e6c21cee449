"""shfl, vote, match, redux, elect and activemask: exchange between the threads of a warp."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptx_sim.decoding import Decoding, Execute, instruction
from ptx_sim.errors import DivergenceError
from ptx_sim.instructions.elementwise import scalar_safe
from ptx_sim.shared_memory import WARP
from ptx_sim.threads import Threads
from ptx_sim.types import DTYPES, Array

U32 = np.uint32
_BITS = U32(1) << np.arange(WARP, dtype=U32)


def executing_bits(t: Threads) -> Array:
    """The mask of executing threads of every thread's warp."""
    return np.repeat((t.mask.reshape(-1, WARP) * _BITS).sum(1, dtype=U32), WARP)


def check_members(t: Threads, members: Any, what: str) -> None:
    """DivergenceError unless exactly the living ``members`` (a mask for each thread) of the warps execute."""
    if t.everyone and members.ndim == 0 and members == U32(0xFFFFFFFF):
        return
    executing = executing_bits(t)
    living = np.repeat((t.live.reshape(-1, WARP) * _BITS).sum(1, dtype=U32), WARP)
    wrong = t.mask & ((members & living) != executing)
    if wrong.any():
        lane = int(wrong.argmax())
        named = int(np.broadcast_to(members, wrong.shape)[lane])
        raise DivergenceError(
            f"{what} names threads {named:#010x} of a warp of which {int(executing[lane]):#010x} execute it", lane
        )


def _sync(d: Decoding) -> None:
    if not d.flag("sync"):
        raise d.unsupported("only the .sync form is modelled")


@instruction("shfl")
def _(d: Decoding) -> Execute:
    _sync(d)
    mode = d.choice("up", "down", "bfly", "idx")
    if not mode or not d.flag("b32"):
        raise d.unsupported("only .up, .down, .bfly and .idx of .b32 are modelled")
    d.category = "shuffle"
    first, second = d.pair(0)
    value, distance, clamp, members = (d.source(n, "u32") for n in (1, 2, 3, 4))
    value = scalar_safe(value)
    write = d.destination(first, "u32")
    write_found = d.destination(second, "pred") if second is not None else None

    def execute(t: Threads) -> None:
        check_members(t, members(t), "shfl.sync")
        lane = t.thread % WARP
        control = np.asarray(clamp(t)).astype(np.int64)
        by = np.asarray(distance(t)).astype(np.int64) & 31
        segment, limit = (control >> 8) & 31, control & 31
        top = (lane & segment) | (limit & ~segment)
        if mode == "up":
            source = lane - by
            found = source >= top
        elif mode == "idx":
            source = (lane & segment) | (by & ~segment)
            found = source <= top
        else:
            source = lane + by if mode == "down" else lane ^ by
            found = source <= top
        origin = t.all_threads - lane + np.where(found, source, lane)
        if not t.everyone:
            silent = t.mask & ~t.mask[origin]
            if silent.any():
                raise DivergenceError("shfl.sync reads a thread that does not execute it", int(silent.argmax()))
        write(t, value(t)[origin])
        if write_found is not None:
            write_found(t, found & np.ones(t.count, bool))

    return execute


def _voting(t: Threads, wanted: Array) -> tuple[Array, Array]:
    """(warps, WARP): who executes, and who of them wants."""
    mask = t.mask.reshape(-1, WARP)
    return mask, mask & (wanted & np.ones(t.count, bool)).reshape(-1, WARP)


@instruction("vote")
def _(d: Decoding) -> Execute:
    _sync(d)
    mode = d.choice("all", "any", "uni", "ballot")
    kind = d.type()
    wanted, members = d.source(1, "pred"), d.source(2, "u32")
    write = d.destination(0, "u32" if mode == "ballot" else "pred")
    if not mode or (kind == "b32") != (mode == "ballot"):
        raise d.unsupported("a mode that is not modelled")
    d.category = "shuffle"

    def execute(t: Threads) -> None:
        check_members(t, members(t), "vote.sync")
        mask, wants = _voting(t, wanted(t))
        result: Any
        if mode == "ballot":
            result = (wants * _BITS).sum(1, dtype=U32)
        elif mode == "any":
            result = wants.any(1)
        else:
            result = (wants == mask).all(1)
            if mode == "uni":
                result = result | ~wants.any(1)
        write(t, np.repeat(result, WARP))

    return execute


@instruction("match")
def _(d: Decoding) -> Execute:
    mode = d.choice("any", "all")
    _sync(d)
    kind = d.type()
    first, second = d.pair(0)
    value, members = scalar_safe(d.source(1, kind)), d.source(2, "u32")
    write = d.destination(first, "u32")
    write_all = d.destination(second, "pred") if second is not None else None
    d.category = "shuffle"

    def execute(t: Threads) -> None:
        check_members(t, members(t), "match.sync")
        values, mask = value(t).reshape(-1, WARP), t.mask.reshape(-1, WARP)
        same = (values[:, :, None] == values[:, None, :]) & mask[:, None, :]
        bits = (same * _BITS).sum(2, dtype=U32).reshape(-1)
        if mode == "all":
            agree = bits == executing_bits(t)
            bits = np.where(agree, bits, U32(0))
            if write_all is not None:
                write_all(t, agree)
        write(t, bits)

    return execute


_REDUCTIONS: dict[str, tuple[Any, Any]] = {
    "add": (np.add, 0), "min": (np.minimum, None), "max": (np.maximum, None),
    "and": (np.bitwise_and, -1), "or": (np.bitwise_or, 0), "xor": (np.bitwise_xor, 0),
}  # fmt: skip


@instruction("redux")
def _(d: Decoding) -> Execute:
    _sync(d)
    name, kind = d.choice(*_REDUCTIONS), d.type()
    if not name or kind not in ("u32", "s32", "b32"):
        raise d.unsupported("a reduction that is not modelled")
    value, members = scalar_safe(d.source(1, kind)), d.source(2, "u32")
    write = d.destination(0, kind)
    function, neutral = _REDUCTIONS[name]
    dtype = DTYPES[kind]
    if neutral is None:
        neutral = np.iinfo(dtype).max if name == "min" else np.iinfo(dtype).min
    start = np.array(neutral).astype(dtype)
    d.category = "shuffle"

    def execute(t: Threads) -> None:
        check_members(t, members(t), "redux.sync")
        values = np.where(t.mask, value(t), start).reshape(-1, WARP)
        write(t, np.repeat(function.reduce(values, axis=1, dtype=dtype), WARP))

    return execute


@instruction("elect")
def _(d: Decoding) -> Execute:
    _sync(d)
    first, second = d.pair(0)
    members = d.source(1, "u32")
    write = d.destination(first, "u32")
    write_elected = d.destination(second, "pred") if second is not None else None
    d.category = "shuffle"

    def execute(t: Threads) -> None:
        check_members(t, members(t), "elect.sync")
        leader = np.repeat(t.mask.reshape(-1, WARP).argmax(1), WARP)
        write(t, leader.astype(U32))
        if write_elected is not None:
            write_elected(t, t.mask & (t.thread % WARP == leader))

    return execute


@instruction("activemask")
def _(d: Decoding) -> Execute:
    d.flag("b32")
    write = d.destination(0, "u32")
    return lambda t: write(t, executing_bits(t))
