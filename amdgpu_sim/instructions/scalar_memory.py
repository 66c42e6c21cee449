"""Scalar loads from global memory."""

from __future__ import annotations

import numpy as np

from amdgpu_sim.decoding import Decoding, Execute, instruction
from amdgpu_sim.instructions.access import CACHE_HINTS, count_scalar_load
from amdgpu_sim.waves import Waves


def _define_load(names: str, dwords: int) -> None:
    @instruction(*names.split())
    def _(d: Decoding) -> Execute:
        d.parse_operands()
        d.ignore(*CACHE_HINTS)
        d.instruction.category, d.instruction.bytes_per_lane = "scalar_load", 4 * dwords
        base, offset = d.source(1, "u64"), d.source(2, "u32")
        d.sink(1, "scalar load address", 2)
        d.sink(2, "scalar load offset")
        extra = np.uint64(d.modifier("offset", 0) & (2**64 - 1))
        target = d.destination(0, dwords, "s")
        count_scalar_load(d)

        def execute(w: Waves) -> None:
            address = (base(w) + offset(w).astype(np.uint64) + extra) & ~np.uint64(3)
            where = np.ones((w.count, 1), bool)
            flat = np.broadcast_to(address, (w.count, 1))[:, 0]
            words = w.machine.memory.load(w, where, flat, 4 * dwords).view(np.uint32)
            w.s[target : target + dwords, :, 0] = words.T
            w.machine.report.count_bytes("scalar_load", w, where, 4 * dwords)

        return execute


for _dwords in (1, 2, 3, 4, 8, 16):
    _old = f" s_load_dword{'' if _dwords == 1 else f'x{_dwords}'}" if _dwords != 3 else ""
    _define_load(f"s_load_b{32 * _dwords}{_old}", _dwords)
