"""ldmatrix and stmatrix: 8 x 8 matrices of 16-bit elements between shared memory and the registers of a warp."""

from __future__ import annotations

import numpy as np

from ptx_sim.decoding import Decoding, Execute, instruction
from ptx_sim.instructions.moves import take_space
from ptx_sim.memory import SHARED_WINDOW
from ptx_sim.shared_memory import WARP
from ptx_sim.threads import Threads
from ptx_sim.types import Array


def _form(d: Decoding) -> tuple[int, bool]:
    if not (d.flag("sync") and d.flag("aligned") and d.flag("m8n8")):
        raise d.unsupported("only .sync.aligned.m8n8 is modelled")
    count = int(d.choice("x1", "x2", "x4", default="x0")[1:])
    if not count or not d.flag("b16"):
        raise d.unsupported("only .x1, .x2 and .x4 of .b16 are modelled")
    return count, d.flag("trans")


def _rows(t: Threads, addresses: Array, count: int, what: str) -> tuple[Array, Array, Array | None]:
    """(threads that give a row's address, addresses, warps): the first 8 * count threads of each warp."""
    warps = t.whole_warps(what)
    chosen = np.arange(t.count // WARP) if warps is None else warps
    threads = (chosen[:, None] * WARP + np.arange(8 * count)).reshape(-1)
    return threads, addresses[threads], warps


def _whole(t: Threads, values: Array, warps: Array | None) -> Array:
    """A register from values (warps, WARP)."""
    if warps is None:
        return np.ascontiguousarray(values).reshape(-1)
    register = np.zeros((t.count // WARP, WARP), values.dtype)
    register[warps] = values
    return register.reshape(-1)


@instruction("ldmatrix")
def _(d: Decoding) -> Execute:
    count, transposed = _form(d)
    space = take_space(d)
    address, _ = d.address(1)
    d.category, d.access_bytes = "shared_load", 16
    writes = [d.destination(item, "b32") for item in d.elements(d.operand(0))]
    if len(writes) != count:
        raise d.unsupported(f"{count} destinations are expected")
    base = 0 if space else SHARED_WINDOW

    def execute(t: Threads) -> None:
        threads, addresses, warps = _rows(t, address(t), count, "ldmatrix")
        rows = t.shared.load(threads, addresses - base, 16, 2)
        matrices = rows.reshape(-1, count, 8, 8)
        if transposed:
            matrices = matrices.transpose(0, 1, 3, 2)
        words = np.ascontiguousarray(matrices).view(np.uint32).reshape(-1, count, WARP)
        for number, write in enumerate(writes):
            write(t, _whole(t, words[:, number], warps))

    return execute


@instruction("stmatrix")
def _(d: Decoding) -> Execute:
    count, transposed = _form(d)
    space = take_space(d)
    address, _ = d.address(0)
    d.category, d.access_bytes = "shared_store", 16
    reads = [d.source(item, "b32") for item in d.elements(d.operand(1))]
    if len(reads) != count:
        raise d.unsupported(f"{count} sources are expected")
    base = 0 if space else SHARED_WINDOW

    def execute(t: Threads) -> None:
        threads, addresses, warps = _rows(t, address(t), count, "stmatrix")
        words = np.stack([read(t).reshape(-1, WARP) for read in reads], 1)
        if warps is not None:
            words = words[warps]
        matrices = words.view(np.uint16).reshape(-1, count, 8, 8)
        if transposed:
            matrices = matrices.transpose(0, 1, 3, 2)
        t.shared.store(threads, addresses - base, np.ascontiguousarray(matrices).reshape(-1, 8))

    return execute
