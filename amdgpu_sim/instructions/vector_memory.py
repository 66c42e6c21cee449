"""Global and buffer loads and stores, with their LDS-direct forms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from amdgpu_sim.bank_conflicts import BankCounter
from amdgpu_sim.decoding import Decoding, Execute, Span, instruction
from amdgpu_sim.errors import UnsupportedStateError
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
    require_defined,
    write_loaded,
)
from amdgpu_sim.instructions.scratch import SCRATCH_MARK, scratch_load, scratch_store
from amdgpu_sim.waves import M0, Array, Waves

# addresses of the lanes that access memory, and the mask (wave, lane) of those lanes
Addressing = Callable[[Waves], tuple[Array, Array]]


def global_addressing(d: Decoding, address: int, base: int) -> Addressing:
    """Addresses of a global instruction: 64-bit vector address, or scalar base plus 32-bit vector offset."""
    offset = np.uint64(d.modifier("offset", 0) & (2**64 - 1))
    if d.operands[base].kind == "off":
        vector = d.source(address, "u64")
        d.sink(address, "global address", 2)
        return lambda w: ((np.broadcast_to(vector(w), w.active.shape) + offset)[w.active], w.active)
    place, scalar = d.source(address, "u32"), d.source(base, "u64")
    d.sink(address, "global address")
    d.sink(base, "global address", 2)
    return lambda w: ((scalar(w) + place(w).astype(np.uint64) + offset)[w.active], w.active)


class BufferAddressing:
    """Addresses of a buffer instruction: raw buffers (no stride, no swizzle), range-checked by the
    descriptor."""

    def __init__(self, d: Decoding, resource: int, access_size: int) -> None:
        """Read the modifiers and operands; the resource is operand number ``resource``."""
        offen, idxen = bool(d.modifier("offen")), bool(d.modifier("idxen"))
        if idxen:
            raise d.unsupported("structured buffers (idxen) are not modelled")
        self.offset, self.size = d.modifier("offset", 0), access_size
        self.vector = d.source(resource - 1, "u32") if offen else None
        if offen:
            d.sink(resource - 1, "buffer offset")
        span = d.span(resource, 4)
        if span is None or span.kind != "s":
            raise d.unsupported("buffer resource must be four scalar registers")
        self.resource = span.index
        d.instruction.sinks.append((Span("s", span.index, 4), "buffer resource"))
        self.scalar = d.source(resource + 1, "u32")
        d.sink(resource + 1, "buffer scalar offset")

    def is_scratch(self, w: Waves) -> bool:
        """Whether the resource is the private segment that the kernel started with."""
        return bool((w.s[self.resource] == SCRATCH_MARK).all())

    def lane_offsets(self, w: Waves) -> Array:
        """Byte offset of every lane inside the buffer, (wave, lane)."""
        vector = self.vector(w).astype(np.int64) if self.vector else np.zeros((1, 1), np.int64)
        return np.broadcast_to(vector + self.offset, w.active.shape)

    def __call__(self, w: Waves) -> tuple[Array, Array]:
        """Addresses of the lanes that are active and inside the range, and the mask of those."""
        low, high, records = (w.s[self.resource + n].astype(np.int64) for n in range(3))
        if (high >> 16 & 0x3FFF).any():
            raise UnsupportedStateError("buffer resource with a stride")
        offsets = self.lane_offsets(w)
        scalar = self.scalar(w).astype(np.int64)
        inside = w.active & (offsets + self.size <= records)
        address = low + ((high & 0xFFFF) << 32) + scalar + offsets
        return address[inside].astype(np.uint64), inside


def _load(d: Decoding, access: Access, addressing: Addressing, number: int = 0) -> Execute:
    half = d.operands[number].half
    chosen = access if half is None else Access(access.size, access.signed, half)
    target = d.destination(number, access.registers, "v")
    count_load(d)

    def execute(w: Waves) -> None:
        if isinstance(addressing, BufferAddressing) and addressing.is_scratch(w):
            scratch_load(w, addressing.lane_offsets(w), chosen, target)
            return
        addresses, where = addressing(w)
        data = w.machine.memory.load(w, where, addresses, access.size)
        w.machine.report.count_bytes("global_load", w, where, access.size)
        active = w.active
        if where is not active and len(addresses) != int(active.sum()):
            filled = np.zeros((int(active.sum()), access.size), np.uint8)
            filled[where[active]] = data
            data = filled
        write_loaded(w, target, chosen, active, data)
        define_loaded(w, target, access.registers, active, None)

    d.instruction.propagate = execute
    return execute


def _store(d: Decoding, access: Access, addressing: Addressing, number: int) -> Execute:
    half = d.operands[number].half
    chosen = access if half is None else Access(access.size, False, half)
    source = data_registers(d, number, access.registers).index
    count_store(d)

    def execute(w: Waves) -> None:
        if isinstance(addressing, BufferAddressing) and addressing.is_scratch(w):
            scratch_store(w, addressing.lane_offsets(w), chosen, source)
            return
        addresses, where = addressing(w)
        require_defined(w, source, access.registers, where, "stored value")
        w.machine.memory.store(w, where, addresses, read_stored(w, source, chosen, where))
        w.machine.report.count_bytes("global_store", w, where, access.size)

    d.instruction.propagate = execute
    return execute


def _load_to_lds(d: Decoding, access: Access, addressing: Addressing) -> Execute:
    """Memory to LDS without registers: lane n writes to M0 + offset + n * size."""
    offset = d.modifier("offset", 0)
    lane = np.arange(d.target.wave_size)
    d.instruction.sinks.append((Span("s", M0), "LDS base in m0"))
    d.instruction.lds_store = 1
    count_load(d)
    banks = BankCounter(d.target, access.size, True)

    def execute(w: Waves) -> None:
        addresses, where = addressing(w)
        active = w.active
        data = np.zeros((int(active.sum()), access.size), np.uint8)
        data[where[active]] = w.machine.memory.load(w, where, addresses, access.size)
        place = np.broadcast_to(w.s[M0].astype(np.int64) + offset + lane * access.size, active.shape)
        offsets = w.machine.lds.offsets(w, active, place, access.size, "direct store")
        w.machine.report.count_bytes("global_load", w, where, access.size)
        w.machine.report.count_lds_cycles("lds_write", w, *banks(place, active))
        w.lds_stores[:, 1] += 1
        w.machine.lds.store(w, active, offsets, data, sequence=1)

    return execute


def _define_load(name: str, access: Access) -> None:
    @instruction(f"global_load_{name}")
    def _(d: Decoding) -> Execute:
        begin_access(d, "global_load", access.size)
        return _load(d, access, global_addressing(d, 1, 2))

    @instruction(f"buffer_load_{name}")
    def _(d: Decoding) -> Execute:
        begin_access(d, "global_load", access.size)
        resource = len(d.operands) - 2
        if d.modifier("lds"):
            return _load_to_lds(d, access, BufferAddressing(d, resource, access.size))
        return _load(d, access, BufferAddressing(d, resource, access.size))


def _define_store(name: str, access: Access) -> None:
    @instruction(f"global_store_{name}")
    def _(d: Decoding) -> Execute:
        begin_access(d, "global_store", access.size)
        return _store(d, access, global_addressing(d, 0, 2), 1)

    @instruction(f"buffer_store_{name}")
    def _(d: Decoding) -> Execute:
        begin_access(d, "global_store", access.size)
        return _store(d, access, BufferAddressing(d, len(d.operands) - 2, access.size), 0)


for _name in LOAD_NAMES:
    _define_load(_name, parse_access(_name))
for _name in STORE_NAMES:
    _define_store(_name, parse_access(_name))


def _define_global_to_lds(name: str, access: Access) -> None:
    @instruction(f"global_load_lds_{name}")
    def _(d: Decoding) -> Execute:
        begin_access(d, "global_load", access.size)
        return _load_to_lds(d, access, global_addressing(d, 0, 1))


for _name in ("dword", "dwordx3", "dwordx4"):
    _define_global_to_lds(_name, parse_access(_name))
