"""Flat loads, stores and atomics: 64-bit addresses that lie in global memory or in the LDS aperture.

The apertures are where the kernel driver puts them for gfx9 and later (amdkfd: LDS at 1 << 48, scratch at
2 << 48); kernels learn their bases from ``src_shared_base`` and ``src_private_base``. Addresses in the scratch
aperture, and atomics in the LDS aperture, are not modelled.
"""

from __future__ import annotations

import numpy as np

from amdgpu_sim.bank_conflicts import BankCounter
from amdgpu_sim.decoding import Decoding, Execute, instruction
from amdgpu_sim.errors import UnsupportedStateError
from amdgpu_sim.instructions.access import (
    LOAD_NAMES,
    STORE_NAMES,
    Access,
    begin_access,
    count_flat_load,
    count_flat_store,
    data_registers,
    define_loaded,
    parse_access,
    read_stored,
    require_defined,
    write_loaded,
)
from amdgpu_sim.waves import Array, Waves

_LDS, _SCRATCH = np.uint64(1), np.uint64(2)
_SHIFT = np.uint64(48)


class FlatAddressing:
    """The lanes of a flat access, by the memory that they reach."""

    def __init__(self, d: Decoding, number: int) -> None:
        """Read operand ``number``, the 64-bit address, and the offset."""
        self._offset = np.uint64(d.modifier("offset", 0) & (2**64 - 1))
        self._address = d.source(number, "u64")
        d.sink(number, "flat address", 2)

    def split(self, w: Waves) -> tuple[Array, Array, Array]:
        """Addresses (wave, lane) and the masks of the lanes in global memory and in LDS."""
        addresses = np.broadcast_to(self._address(w) + self._offset, w.active.shape)
        aperture = addresses >> _SHIFT
        if (w.active & (aperture == _SCRATCH)).any():
            raise UnsupportedStateError("flat access to the scratch aperture is not modelled")
        in_lds = w.active & (aperture == _LDS)
        return addresses, w.active & ~in_lds, in_lds

    def __call__(self, w: Waves) -> tuple[Array, Array]:
        """Global addresses of the active lanes, for atomics."""
        addresses, where, in_lds = self.split(w)
        if in_lds.any():
            raise UnsupportedStateError("flat atomics on LDS are not modelled")
        return addresses[where], where


def _lds_addresses(addresses: Array) -> Array:
    return (addresses & np.uint64(0xFFFFFFFF)).astype(np.int64)


def _define_load(name: str, access: Access) -> None:
    size = access.size

    @instruction(f"flat_load_{name}")
    def _(d: Decoding) -> Execute:
        begin_access(d, "global_load", size)
        addressing, banks = FlatAddressing(d, 1), BankCounter(d.target, size, False)
        target = d.destination(0, access.registers, "v")
        count_flat_load(d)

        def execute(w: Waves) -> None:
            addresses, in_global, in_lds = addressing.split(w)
            data = w.machine.memory.load(w, in_global, addresses[in_global], size)
            w.machine.report.count_bytes("global_load", w, in_global, size)
            write_loaded(w, target, access, in_global, data)
            define_loaded(w, target, access.registers, in_global, None)
            if in_lds.any():
                places = _lds_addresses(addresses)
                offsets = w.machine.lds.offsets(w, in_lds, places, size, "flat load")
                data, undefined = w.machine.lds.load(w, in_lds, offsets, size)
                w.machine.report.count_bytes("lds_read", w, in_lds, size)
                w.machine.report.count_lds_cycles("lds_read", w, *banks(places, in_lds))
                write_loaded(w, target, access, in_lds, data)
                define_loaded(w, target, access.registers, in_lds, undefined)

        d.instruction.propagate = execute
        return execute


def _define_store(name: str, access: Access) -> None:
    size = access.size

    @instruction(f"flat_store_{name}")
    def _(d: Decoding) -> Execute:
        begin_access(d, "global_store", size)
        addressing, banks = FlatAddressing(d, 0), BankCounter(d.target, size, True)
        span = data_registers(d, 1, access.registers)
        count_flat_store(d)

        def execute(w: Waves) -> None:
            addresses, in_global, in_lds = addressing.split(w)
            require_defined(w, span.index, span.count, w.active, "stored value")
            data = read_stored(w, span.index, access, in_global)
            w.machine.memory.store(w, in_global, addresses[in_global], data)
            w.machine.report.count_bytes("global_store", w, in_global, size)
            if in_lds.any():
                places = _lds_addresses(addresses)
                offsets = w.machine.lds.offsets(w, in_lds, places, size, "flat store")
                data = read_stored(w, span.index, access, in_lds)
                w.machine.lds.store(w, in_lds, offsets, data, sequence=-1)
                w.machine.report.count_bytes("lds_write", w, in_lds, size)
                w.machine.report.count_lds_cycles("lds_write", w, *banks(places, in_lds))

        d.instruction.propagate = execute
        return execute


for _name in LOAD_NAMES:
    _define_load(_name, parse_access(_name))
for _name in STORE_NAMES:
    _define_store(_name, parse_access(_name))
