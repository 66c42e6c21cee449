"""LDS loads, stores, and transposing loads (``ds_`` instructions)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from amdgpu_sim.bank_conflicts import BankCounter
from amdgpu_sim.decoding import Decoding, Execute, instruction
from amdgpu_sim.instructions.access import (
    Access,
    count_lds,
    count_lds_store,
    define_loaded,
    parse_access,
    read_stored,
    undefined_rows,
    write_loaded,
)
from amdgpu_sim.operands import Reader
from amdgpu_sim.waves import Array, Waves


def lds_address(d: Decoding, number: int) -> Callable[[Waves], Array]:
    """Reader of the LDS address operand: (wave, lane), int64."""
    read: Reader = d.source(number, "u32")
    d.sink(number, "LDS address")
    return lambda w: np.broadcast_to(read(w).astype(np.int64), w.active.shape)


class LdsAccess:
    """The counted accesses of one LDS instruction: bounds, bytes, bank conflicts, definedness and races."""

    def __init__(self, d: Decoding, size: int) -> None:
        """``size``: bytes a lane of one access."""
        self._instruction, self._size = d.instruction, size
        self._write = d.instruction.category != "lds_read"
        self._banks = BankCounter(d.target, size, self._write)

    def offsets(self, w: Waves, where: Array, addresses: Array, what: str) -> Array:
        """Offsets in LDS of the lanes ``where``; counts the access."""
        category = self._instruction.category
        offsets: Array = w.machine.lds.offsets(w, where, addresses, self._size, what)
        w.machine.report.count_bytes(category, w, where, self._size)
        w.machine.report.count_lds_cycles(category, w, *self._banks(addresses, where))
        return offsets

    def load(self, w: Waves, where: Array, addresses: Array) -> tuple[Array, Array | None]:
        """Bytes of the lanes ``where`` and which words of them are undefined."""
        lds, offsets = w.machine.lds, self.offsets(w, where, addresses, "load")
        if in_flight := w.machine.loads_to_lds_in_flight(w, self._instruction):
            lds.check_arrived(w, where, offsets, self._size, in_flight)
        return lds.load(w, where, offsets, self._size)  # type: ignore[no-any-return]

    def store(self, w: Waves, where: Array, addresses: Array, values: Array, undefined: Array | None) -> None:
        """Store the rows of ``values``."""
        w.machine.lds.store(w, where, self.offsets(w, where, addresses, "store"), values, undefined)


def _define_load(name: str, access: Access) -> None:
    @instruction(*name.split())
    def _(d: Decoding) -> Execute:
        d.parse_operands()
        d.ignore("gds")
        d.instruction.category, d.instruction.bytes_per_lane = "lds_read", access.size
        address, offset = lds_address(d, 1), d.modifier("offset", 0)
        half = d.operands[0].half
        chosen = access if half is None else Access(access.size, access.signed, half)
        target = d.destination(0, access.registers, "v")
        count_lds(d)
        lds = LdsAccess(d, access.size)

        def execute(w: Waves) -> None:
            where = w.active
            data, undefined = lds.load(w, where, address(w) + offset)
            write_loaded(w, target, chosen, where, data)
            define_loaded(w, target, access.registers, where, undefined)

        d.instruction.propagate = execute
        return execute


def _define_store(name: str, access: Access) -> None:
    @instruction(*name.split())
    def _(d: Decoding) -> Execute:
        d.parse_operands()
        d.ignore("gds")
        d.instruction.category, d.instruction.bytes_per_lane = "lds_write", access.size
        address, offset = lds_address(d, 0), d.modifier("offset", 0)
        half = d.operands[1].half
        chosen = access if half is None else Access(access.size, False, half)
        source = _data(d, 1, access.registers)
        count_lds_store(d)
        lds = LdsAccess(d, access.size)

        def execute(w: Waves) -> None:
            where = w.active
            w.lds_stores[:, 0] += 1
            undefined = undefined_rows(w, source, access.registers, where)
            lds.store(w, where, address(w) + offset, read_stored(w, source, chosen, where), undefined)

        d.instruction.propagate = execute
        return execute


def _data(d: Decoding, number: int, registers: int) -> int:
    """Index of a data source of several registers."""
    span = d.span(number, registers)
    if span is None or span.kind != "v":
        raise d.unsupported(f"vector register expected, got {d.operands[number].text!r}")
    d.instruction.wave_reads.append(span)
    return span.index


for _name in ("u8", "i8", "u16", "i16", "b32", "b64", "b96", "b128",
              "u8_d16", "u8_d16_hi", "i8_d16", "i8_d16_hi", "u16_d16", "u16_d16_hi"):  # fmt: skip
    _define_load(f"ds_read_{_name} ds_load_{_name}", parse_access(_name))
for _name in ("b8", "b16", "b32", "b64", "b96", "b128", "b8_d16_hi", "b16_d16_hi"):
    _define_store(f"ds_write_{_name} ds_store_{_name}", parse_access(_name))


def _define_pair(suffix: tuple[str, str], size: int, unit: int) -> None:
    access = Access(size, False, None)
    load_names = [f"ds_read2{suffix[0]}_b{size * 8}", f"ds_load_2addr{suffix[1]}_b{size * 8}"]
    store_names = [f"ds_write2{suffix[0]}_b{size * 8}", f"ds_store_2addr{suffix[1]}_b{size * 8}"]

    @instruction(*load_names)
    def _(d: Decoding) -> Execute:
        d.parse_operands()
        d.instruction.category, d.instruction.bytes_per_lane = "lds_read", 2 * size
        address = lds_address(d, 1)
        places = [d.modifier(f"offset{n}", 0) * unit for n in (0, 1)]
        target = d.destination(0, 2 * access.registers, "v")
        count_lds(d)
        halves = [LdsAccess(d, size) for _ in places]

        def execute(w: Waves) -> None:
            where, base = w.active, address(w)
            loaded = [lds.load(w, where, base + place) for lds, place in zip(halves, places, strict=True)]
            for number, (data, undefined) in enumerate(loaded):
                register = target + number * access.registers
                write_loaded(w, register, access, where, data)
                define_loaded(w, register, access.registers, where, undefined)

        d.instruction.propagate = execute
        return execute

    @instruction(*store_names)
    def _(d: Decoding) -> Execute:
        d.parse_operands()
        d.instruction.category, d.instruction.bytes_per_lane = "lds_write", 2 * size
        address = lds_address(d, 0)
        places = [d.modifier(f"offset{n}", 0) * unit for n in (0, 1)]
        sources = [_data(d, n, access.registers) for n in (1, 2)]
        count_lds_store(d)
        halves = [LdsAccess(d, size) for _ in places]

        def execute(w: Waves) -> None:
            where, base = w.active, address(w)
            w.lds_stores[:, 0] += 1
            for lds, place, source in zip(halves, places, sources, strict=True):
                undefined = undefined_rows(w, source, access.registers, where)
                lds.store(w, where, base + place, read_stored(w, source, access, where), undefined)

        d.instruction.propagate = execute
        return execute


for _size in (4, 8):
    _define_pair(("", ""), _size, _size)
    _define_pair(("st64", "_stride64"), _size, 64 * _size)


def transpose_source(element_bits: int) -> tuple[Array, Array]:
    """For ds_read_b64_tr: lane (within 16) and element that each (lane, element) of the result takes.

    The 16 lanes hold 16 rows of 64 bits; the result is the transpose of the matrix that they form when every
    ``elements`` lanes make one row.
    """
    elements = 64 // element_bits
    lane, element = np.meshgrid(np.arange(16), np.arange(elements), indexing="ij")
    lanes_per_row = 16 // elements
    return element * lanes_per_row + lane // elements, lane % elements


def _define_transpose(element_bits: int) -> None:
    @instruction(f"ds_read_b64_tr_b{element_bits}")
    def _(d: Decoding) -> Execute:
        d.parse_operands()
        d.instruction.category, d.instruction.bytes_per_lane = "lds_read", 8
        address, offset = lds_address(d, 1), d.modifier("offset", 0)
        target = d.destination(0, 2, "v")
        count_lds(d)
        lanes, elements = transpose_source(element_bits)
        lds = LdsAccess(d, 8)
        dtype: Any = np.uint16 if element_bits == 16 else np.uint8
        access = Access(8, False, None)

        def execute(w: Waves) -> None:
            where = w.active
            if not w.full:
                raise w.machine.unsupported_state("transposing LDS load with inactive lanes")
            data, undefined = lds.load(w, where, address(w) + offset)
            tiles = data.view(dtype).reshape(-1, 16, 64 // element_bits)
            moved = np.ascontiguousarray(tiles[:, lanes, elements])
            write_loaded(w, target, access, where, moved.view(np.uint8).reshape(-1, 8))
            if undefined is not None:
                undefined = np.repeat(undefined.reshape(-1, 32).any(1), 16)[:, None].repeat(2, 1)
            define_loaded(w, target, 2, where, undefined)

        d.instruction.propagate = execute
        return execute


_define_transpose(16)
_define_transpose(8)
