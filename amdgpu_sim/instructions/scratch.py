"""Private (scratch) memory: one byte array a lane, reached by ``scratch_`` and, on gfx90a, buffer
instructions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from amdgpu_sim.decoding import Decoding, Execute, instruction
from amdgpu_sim.errors import OutOfBoundsError
from amdgpu_sim.instructions.access import (
    LOAD_NAMES,
    STORE_NAMES,
    Access,
    begin_access,
    count_load,
    count_store,
    data_registers,
    define_loaded,
    parse_access,
    read_stored,
    undefined_rows,
    write_loaded,
)
from amdgpu_sim.memory import undefined_bytes, undefined_registers
from amdgpu_sim.waves import Array, Waves

# first word of the private segment's buffer resource in the entry state
SCRATCH_MARK = 0x5C4A7C00


def _places(w: Waves, offsets: Array, size: int, what: str) -> tuple[Array, Array, Array]:
    slots, lanes = np.nonzero(w.active)
    picked = offsets[w.active]
    limit = w.scratch.shape[2]
    bad = (picked < 0) | (picked + size > limit)
    if bad.any():
        first = int(bad.argmax())
        message = f"scratch {what} of {size} bytes at {int(picked[first])}: a lane has {limit} bytes"
        raise OutOfBoundsError(message, int(slots[first]), int(lanes[first]))
    return slots[:, None], lanes[:, None], picked[:, None] + np.arange(size)


def scratch_load(w: Waves, offsets: Array, access: Access, target: int) -> None:
    """Load from the private memory of the active lanes."""
    place = _places(w, offsets, access.size, "load")
    w.machine.report.count_bytes("scratch_load", w, w.active, access.size)
    write_loaded(w, target, access, w.active, np.ascontiguousarray(w.scratch[place]))
    define_loaded(w, target, access.registers, w.active, undefined_registers(w.scratch_undefined[place]))


def scratch_store(w: Waves, offsets: Array, access: Access, source: int) -> None:
    """Store to the private memory of the active lanes."""
    place = _places(w, offsets, access.size, "store")
    w.machine.report.count_bytes("scratch_store", w, w.active, access.size)
    w.scratch[place] = read_stored(w, source, access, w.active)
    undefined = undefined_rows(w, source, access.registers, w.active)
    w.scratch_undefined[place] = False if undefined is None else undefined_bytes(undefined, access.size)


def _offsets(d: Decoding, vector: int, scalar: int) -> Callable[[Waves], Array]:
    """Lane offsets from the optional vector and scalar operands and the immediate."""
    immediate = d.modifier("offset", 0)
    parts = []
    for number in (vector, scalar):
        if d.operands[number].kind != "off":
            parts.append(d.source(number, "i32"))
            d.sink(number, "scratch address")

    def offsets(w: Waves) -> Array:
        total = np.full((1, 1), immediate, np.int64)
        for part in parts:
            total = total + part(w)
        return np.broadcast_to(total, w.active.shape)

    return offsets


def _define_load(name: str, access: Access) -> None:
    @instruction(f"scratch_load_{name}")
    def _(d: Decoding) -> Execute:
        begin_access(d, "scratch_load", access.size)
        offsets = _offsets(d, 1, 2)
        target = d.destination(0, access.registers, "v")
        count_load(d)

        def execute(w: Waves) -> None:
            scratch_load(w, offsets(w), access, target)

        d.instruction.propagate = execute
        return execute


def _define_store(name: str, access: Access) -> None:
    @instruction(f"scratch_store_{name}")
    def _(d: Decoding) -> Execute:
        begin_access(d, "scratch_store", access.size)
        offsets = _offsets(d, 0, 2)
        source = data_registers(d, 1, access.registers).index
        count_store(d)

        def execute(w: Waves) -> None:
            scratch_store(w, offsets(w), access, source)

        d.instruction.propagate = execute
        return execute


for _name in LOAD_NAMES:
    _define_load(_name, parse_access(_name))
for _name in STORE_NAMES:
    _define_store(_name, parse_access(_name))
