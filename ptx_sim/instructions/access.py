"""ld, st and prefetch in every state space, generic addresses included."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptx_sim.decoding import Decoding, Execute, Read, instruction
from ptx_sim.instructions.elementwise import scalar_safe
from ptx_sim.instructions.moves import take_space
from ptx_sim.memory import LOCAL_WINDOW, SHARED_WINDOW
from ptx_sim.syntax import Sink
from ptx_sim.threads import Threads
from ptx_sim.types import DTYPES, UNSIGNED, Array, size_of

# of caches and of the order of memory operations: blocks run one after the other or in step, and see all at once
_HINTS = ("L1::", "L2::", "evict_", "no_allocate")
_ORDER = ("ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc", "volatile", "relaxed", "acquire", "release", "weak", "cta",
          "cluster", "gpu", "sys", "mmio", "unified")  # fmt: skip


def load(t: Threads, space: str, active: Array, addresses: Array, size: int, element: int) -> Array:
    """``size`` bytes at the address of each thread ``active``: (threads, size // element) unsigned elements."""
    if space == "shared":
        return t.shared.load(active, addresses, size, element)
    if space == "local":
        return t.local.load(active, addresses, size, element)
    if space:
        return t.memory.load(addresses, size, element)
    windows = addresses >> 60
    if not windows.any():
        return t.memory.load(addresses, size, element)
    result = np.empty((len(active), size // element), UNSIGNED[element])
    for window, (name, base) in _GENERIC.items():
        chosen = windows == window
        if chosen.any():
            result[chosen] = load(t, name, active[chosen], addresses[chosen] - base, size, element)
    return result


def store(t: Threads, space: str, active: Array, addresses: Array, values: Array) -> None:
    """Store the rows of ``values`` at the address of each thread ``active``."""
    if space == "shared":
        t.shared.store(active, addresses, values)
    elif space == "local":
        t.local.store(active, addresses, values)
    elif space:
        t.memory.store(addresses, values)
    else:
        windows = addresses >> 60
        for window, (name, base) in _GENERIC.items():
            chosen = windows == window
            if chosen.any():
                store(t, name, active[chosen], addresses[chosen] - base, values[chosen])


_GENERIC = {
    0: ("global", 0),
    SHARED_WINDOW >> 60: ("shared", SHARED_WINDOW),
    LOCAL_WINDOW >> 60: ("local", LOCAL_WINDOW),
}


def place(d: Decoding, number: int) -> tuple[Read, str]:
    """Reader of an address operand and its state space."""
    space = take_space(d)
    read, of_variable = d.address(number)
    return read, space or (of_variable or "" if of_variable in ("param", "global", "const") else "")


def _shape(d: Decoding) -> tuple[str, int]:
    count = int(d.choice("v2", "v4", "v8", default="v1")[1:])
    kind = d.type()
    d.access_bytes = count * size_of(kind)
    if d.access_bytes > 16:
        raise d.unsupported("accesses of more than 16 bytes are not modelled")
    return kind, count


@instruction("ld", "ldu")
def _(d: Decoding) -> Execute:
    d.ignore(*_HINTS)
    polls = any(modifier in d.modifiers for modifier in ("volatile", "relaxed", "acquire"))
    while d.flag(*_ORDER):
        pass
    kind, count = _shape(d)
    address, space = place(d, 1)
    d.category = f"{space or 'generic'}_load"
    size, element = size_of(kind) * count, size_of(kind)
    items = d.elements(d.operand(0))
    if len(items) != count:
        raise d.unsupported(f"{count} destinations are expected")
    writes = [(n, d.destination(item, kind)) for n, item in enumerate(items) if not isinstance(item, Sink)]
    dtype = DTYPES[kind]

    def execute(t: Threads) -> None:
        if polls:
            t.batch.polled = True
        active = t.active
        where = address(t)
        loaded = load(t, space, active, where if t.everyone else where[active], size, element)
        for number, write in writes:
            write(t, t.spread(loaded[:, number], active).view(dtype))

    return execute


@instruction("st")
def _(d: Decoding) -> Execute:
    d.ignore(*_HINTS)
    while d.flag(*_ORDER):
        pass
    kind, count = _shape(d)
    address, space = place(d, 0)
    d.category = f"{space or 'generic'}_store"
    items = d.elements(d.operand(1))
    if len(items) != count:
        raise d.unsupported(f"{count} sources are expected")
    unsigned = UNSIGNED[size_of(kind)]
    reads = [scalar_safe(d.source(item, kind)) for item in items]

    def execute(t: Threads) -> None:
        active = t.active
        everyone = t.everyone
        values = np.empty((len(active), count), unsigned)
        for number, read in enumerate(reads):
            value: Any = read(t).view(unsigned)
            values[:, number] = value if everyone else value[active]
        where = address(t)
        store(t, space, active, where if everyone else where[active], values)

    return execute


@instruction("prefetch", "prefetchu", "discard", "applypriority")
def _(d: Decoding) -> Execute:
    d.ignore("L1", "L2")
    take_space(d)
    return lambda t: None
