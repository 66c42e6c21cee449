"""Scalar loads from global memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from amdgpu_sim.decoding import Decoding, Execute, instruction
from amdgpu_sim.instructions.access import CACHE_HINTS, count_scalar_load
from amdgpu_sim.waves import Waves


def _define_load(names: str, dwords: int, narrow: type[np.number[Any]] | None = None) -> None:
    """Loads of ``dwords`` words, or of one ``narrow`` integer that is extended to a word."""
    size = 4 * dwords if narrow is None else np.dtype(narrow).itemsize

    @instruction(*names.split())
    def _(d: Decoding) -> Execute:
        d.parse_operands()
        d.ignore(*CACHE_HINTS)
        d.instruction.category, d.instruction.bytes_per_lane = "scalar_load", size
        base, offset = d.source(1, "u64"), d.source(2, "u32")
        d.sink(1, "scalar load address", 2)
        d.sink(2, "scalar load offset")
        extra = np.uint64(d.modifier("offset", 0) & (2**64 - 1))
        target = d.destination(0, dwords, "s")
        count_scalar_load(d)

        def execute(w: Waves) -> None:
            address = (base(w) + offset(w).astype(np.uint64) + extra) & ~np.uint64(min(size, 4) - 1)
            where = np.ones((w.count, 1), bool)
            flat = np.broadcast_to(address, (w.count, 1))[:, 0]
            loaded = w.machine.memory.load(w, where, flat, size)
            words = loaded.view(np.uint32) if narrow is None else loaded.view(narrow).astype(np.int32).view(np.uint32)
            w.s[target : target + dwords, :, 0] = words.T
            w.machine.report.count_bytes("scalar_load", w, where, size)

        return execute


for _dwords in (1, 2, 3, 4, 8, 16):
    _old = f" s_load_dword{'' if _dwords == 1 else f'x{_dwords}'}" if _dwords != 3 else ""
    _define_load(f"s_load_b{32 * _dwords}{_old}", _dwords)
_NARROW: dict[str, type[np.number[Any]]] = {"u8": np.uint8, "i8": np.int8, "u16": np.uint16, "i16": np.int16}
for _name, _type in _NARROW.items():
    _define_load(f"s_load_{_name}", 1, _type)
