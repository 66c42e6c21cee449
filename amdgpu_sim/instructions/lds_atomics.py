"""LDS atomics: lanes are served one after another, in wave and lane order. Atomics do not race with each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from amdgpu_sim.decoding import Decoding, Execute, instruction
from amdgpu_sim.errors import UninitialisedReadError
from amdgpu_sim.instructions.access import (
    Access,
    count_lds_store,
    data_registers,
    define_loaded,
    require_defined,
    write_loaded,
)
from amdgpu_sim.instructions.atomics import OPERATIONS, Combine, lane_values, serve
from amdgpu_sim.instructions.lds import LdsAccess, lds_address
from amdgpu_sim.waves import Waves

# name of the operation of the global atomics -> the operation part of the ds_ mnemonics (gfx9, then gfx11 and gfx12)
_NAMES = {
    "add add_u32": "add_u32", "sub sub_u32": "sub_u32", "and and_b32": "and_b32", "or or_b32": "or_b32",
    "xor xor_b32": "xor_b32", "umax max_u32": "max_u32", "umin min_u32": "min_u32", "smax max_i32": "max_i32",
    "smin min_i32": "min_i32", "inc inc_u32": "inc_u32", "dec dec_u32": "dec_u32", "add_f32": "add_f32",
    "max_num_f32 max_f32": "max_f32 max_num_f32", "min_num_f32 min_f32": "min_f32 min_num_f32",
    "add_f64": "add_f64", "max_f64": "max_f64", "min_f64": "min_f64", "add_x2 add_u64": "add_u64",
    "pk_add_f16": "pk_add_f16", "pk_add_bf16": "pk_add_bf16",
}  # fmt: skip


def _atomic(d: Decoding, dtype: Any, combine: Combine | None, returns: bool, expected_first: bool) -> Execute:
    """``combine`` None means compare-and-swap, with the expected value before the new one if ``expected_first``."""
    d.parse_operands()
    size = np.dtype(dtype).itemsize
    registers = size // 4
    d.instruction.category, d.instruction.bytes_per_lane = "lds_atomic", size
    first = int(returns)
    address, offset = lds_address(d, first), d.modifier("offset", 0)
    data = [data_registers(d, first + 1 + n, registers, "atomic data").index for n in range(1 if combine else 2)]
    result = d.destination(0, registers, "v") if returns else None
    count_lds_store(d)
    lds = LdsAccess(d, size)

    def execute(w: Waves) -> None:
        where = w.active
        w.lds_stores[:, 0] += 1
        for register in data:
            require_defined(w, register, registers, where, "atomic operand")
        values = [lane_values(w, register, where, dtype) for register in data]
        new, expected = (values[1], values[0]) if expected_first else (values[0], values[-1])
        offsets = lds.offsets(w, where, address(w) + offset, "atomic")
        contents, undefined = w.machine.lds.fetch(offsets, size)
        if undefined is not None:
            slot, lane = (int(x[undefined.any(1).argmax()]) for x in np.nonzero(where))
            raise UninitialisedReadError("LDS that an atomic updates was never written", slot, lane)
        previous, final = serve(offsets, contents.view(dtype)[:, 0], new, expected, combine)
        w.machine.lds.store(w, where, offsets, final[:, None].view(np.uint8), atomic=True)
        if result is not None:
            write_loaded(w, result, Access(size, False, None), where, previous[:, None].view(np.uint8))
            define_loaded(w, result, registers, where, None)

    d.instruction.propagate = execute
    return execute


def _define(names: list[str], dtype: Any, combine: Combine | None, returns: bool, expected_first: bool = False) -> None:
    @instruction(*names)
    def _(d: Decoding) -> Execute:
        return _atomic(d, dtype, combine, returns, expected_first)


for _operation, _suffixes in _NAMES.items():
    _dtype, _combine = OPERATIONS[_operation]
    for _suffix in _suffixes.split():
        _head, _, _tail = _suffix.rpartition("_")
        _define([f"ds_{_suffix}"], _dtype, _combine, returns=False)
        _define([f"ds_{_head}_rtn_{_tail}"], _dtype, _combine, returns=True)
for _bits, _dtype in ((32, np.uint32), (64, np.uint64)):
    _define([f"ds_wrxchg_rtn_b{_bits}", f"ds_storexchg_rtn_b{_bits}"], _dtype, lambda a, b: b, returns=True)
    for _returns, _mark in ((False, ""), (True, "_rtn")):
        _define([f"ds_cmpst{_mark}_b{_bits}"], _dtype, None, _returns, expected_first=True)
        _define([f"ds_cmpstore{_mark}_b{_bits}"], _dtype, None, _returns)
