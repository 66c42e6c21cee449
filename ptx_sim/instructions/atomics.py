"""atom and red in global and shared memory: every thread's operation whole, in the order of the threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ptx_sim.decoding import Decoding, Execute, instruction
from ptx_sim.instructions.access import place
from ptx_sim.instructions.elementwise import scalar_safe
from ptx_sim.memory import SHARED_WINDOW
from ptx_sim.number_formats import F16, F32, U16, from_bf16, to_bf16
from ptx_sim.syntax import Operand
from ptx_sim.threads import Threads
from ptx_sim.types import DTYPES, UNSIGNED, Array, size_of

_OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": lambda old, new: old + new,
    "min": np.fmin,
    "max": np.fmax,
    "and": lambda old, new: old & new,
    "or": lambda old, new: old | new,
    "xor": lambda old, new: old ^ new,
    "exch": lambda old, new: new,
    "inc": lambda old, new: np.where(old >= new, 0, old + 1).astype(old.dtype),
    "dec": lambda old, new: np.where((old == 0) | (old > new), new, old - 1).astype(old.dtype),
}


def _operation(name: str, kind: str) -> Callable[..., Array]:
    """Works on arrays of unsigned elements."""
    function = _OPERATIONS[name]
    if kind in ("bf16", "bf16x2"):
        return lambda old, new: to_bf16(
            np.asarray(function(from_bf16(old.view(U16)), from_bf16(new.view(U16))), F32)
        ).view(old.dtype)
    dtype = np.dtype(F16) if kind == "f16x2" else DTYPES[kind]
    return lambda old, new: np.asarray(function(old.view(dtype), new.view(dtype)), dtype).view(old.dtype)


@instruction("atom", "red")
def _(d: Decoding) -> Execute:
    d.ignore("L2::", "L1::")
    while d.flag("relaxed", "acquire", "release", "acq_rel", "cta", "cluster", "gpu", "sys", "noftz", "ftz"):
        pass
    if "async" in d.modifiers:
        raise d.unsupported("asynchronous reductions are not modelled")
    name = d.choice(*_OPERATIONS, "cas")
    count = int(d.choice("v2", "v4", "v8", default="v1")[1:])
    kind = d.type()
    returns = d.opcode == "atom"
    first = 1 if returns else 0
    address, space = place(d, first)
    d.category = f"{space or 'generic'}_atomic"
    d.access_bytes = size_of(kind) * count
    if not name or space not in ("", "global", "shared"):
        raise d.unsupported("an atomic operation of this kind is not modelled")
    targets = d.elements(d.operand(0)) if returns else ()
    writes = [d.destination(item, kind) for item in targets]
    sources = _vectors(d, kind, d.operands[first + 1 :])
    operation = None if name == "cas" else _operation(name, kind)
    if len(sources) != (2 if operation is None else 1) or any(len(source) != count for source in sources):
        raise d.unsupported("another number of operands is expected")
    unsigned, dtype = UNSIGNED[size_of(kind)], DTYPES[kind]

    polls = name in ("cas", "exch")

    def execute(t: Threads) -> None:
        if polls:
            t.batch.polled = True
        active = t.active
        where = address(t)[active]
        values = [np.stack([read(t).view(unsigned)[active] for read in source], 1) for source in sources]
        before = _serve(t, space, active, where, values, operation)
        for number, write in enumerate(writes):
            write(t, t.spread(before[:, number], active).view(dtype))

    return execute


def _vectors(d: Decoding, kind: str, operands: tuple[Operand, ...]) -> list[list[Any]]:
    return [[scalar_safe(d.source(item, kind)) for item in d.elements(operand)] for operand in operands]


def _serve(t: Threads, space: str, active: Array, addresses: Array, values: list[Array], operation: Any) -> Array:
    """Perform the operations; what memory held before each. Threads with one address take turns."""
    before = np.empty_like(values[0])
    size, element = values[0].shape[1] * values[0].itemsize, values[0].itemsize
    shared = space == "shared" or (space == "" and int(addresses[0]) >> 60 == SHARED_WINDOW >> 60)
    base = 0 if space else SHARED_WINDOW
    keys = t.shared.atomic_places(active, addresses - base, size) if shared else addresses
    _, group = np.unique(keys, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.r_[0, np.flatnonzero(np.diff(group[order])) + 1]
    turn = np.empty(len(keys), np.int64)
    turn[order] = np.arange(len(keys)) - np.repeat(starts, np.diff(np.r_[starts, len(keys)]))
    for number in range(int(turn.max()) + 1):
        now = np.flatnonzero(turn == number)
        places = keys[now]
        old = (
            t.shared.bytes.gather(places, size, element)
            if shared
            else t.memory.load(places, size, element, "global atomic")
        )
        before[now] = old
        if operation is None:
            new = np.where(old == values[0][now], values[1][now], old)
        else:
            new = operation(np.ascontiguousarray(old), np.ascontiguousarray(values[0][now]))
        if shared:
            t.shared.bytes.scatter(places, new)
        else:
            t.memory.store(places, new, "global atomic")
    return before
