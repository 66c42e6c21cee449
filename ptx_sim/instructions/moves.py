"""mov, cvta and isspacep."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptx_sim.decoding import Decoding, Execute, instruction
from ptx_sim.instructions.elementwise import elementwise, scalar_safe
from ptx_sim.memory import LOCAL_WINDOW, SHARED_WINDOW
from ptx_sim.syntax import Operand, Sink, Vector
from ptx_sim.threads import Threads
from ptx_sim.types import DTYPES, UNSIGNED, size_of


@instruction("mov")
def _(d: Decoding) -> Execute:
    kind = d.type()
    target, origin = d.operand(0), d.operand(1)
    if isinstance(target, Vector):
        return _unpack(d, kind, target.items)
    if isinstance(origin, Vector):
        return _pack(d, kind, origin.items)
    return elementwise(d, kind, [kind], lambda a: a)


def _pack(d: Decoding, kind: str, items: tuple[Operand, ...]) -> Execute:
    whole = UNSIGNED[size_of(kind)]
    part = f"b{8 * size_of(kind) // len(items)}"
    reads = [scalar_safe(d.source(item, part)) for item in items]
    write = d.destination(0, f"u{8 * whole.itemsize}")
    dtype = DTYPES[part]

    def execute(t: Threads) -> None:
        packed = np.empty((t.count, len(reads)), dtype)
        for number, read in enumerate(reads):
            packed[:, number] = read(t)
        write(t, packed.view(whole)[:, 0])

    return execute


def _unpack(d: Decoding, kind: str, items: tuple[Operand, ...]) -> Execute:
    part = f"b{8 * size_of(kind) // len(items)}"
    read = scalar_safe(d.source(1, kind))
    writes = [(n, d.destination(item, part)) for n, item in enumerate(items) if not isinstance(item, Sink)]
    dtype = DTYPES[part]

    def execute(t: Threads) -> None:
        parts = np.ascontiguousarray(read(t)).view(dtype).reshape(t.count, len(items))
        for number, write in writes:
            write(t, np.ascontiguousarray(parts[:, number]))

    return execute


_WINDOWS = {"shared": SHARED_WINDOW, "local": LOCAL_WINDOW, "global": 0, "const": 0, "param": 0}


def take_space(d: Decoding) -> str:
    """Take the name of a state space; "" for generic addresses."""
    space = d.choice("global", "shared", "local", "const", "param", "shared::cta", "shared::cluster")
    if space == "" and (entry := d.choice("param::entry")):
        return entry.partition("::")[0]
    return space.partition("::")[0]


@instruction("cvta")
def _(d: Decoding) -> Execute:
    to, space, kind = d.flag("to"), take_space(d), d.type()
    if size_of(kind) != 8:
        raise d.unsupported("addresses have 64 bits")
    window = np.uint64(_WINDOWS[space])

    def function(address: Any) -> Any:
        if not window:
            return address
        # a null pointer stays null
        return np.where(address == 0, address, address - window) if to else address + window

    return elementwise(d, "u64", ["u64"], function)


@instruction("isspacep")
def _(d: Decoding) -> Execute:
    space = take_space(d)
    low = _WINDOWS[space]

    def function(address: Any) -> Any:
        if low:
            return (address >= np.uint64(low)) & (address < np.uint64(2 * low))
        return address < np.uint64(SHARED_WINDOW)

    return elementwise(d, "pred", ["u64"], function)
