"""Global, buffer and flat atomics: lanes are served one after another, in wave and lane order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from amdgpu_sim.conversions import bf16_bits_to_float, float_to_bf16_bits
from amdgpu_sim.decoding import Decoding, Execute, instruction
from amdgpu_sim.instructions.access import (
    CACHE_HINTS,
    Access,
    count_flat_load,
    count_flat_store,
    count_load,
    count_store,
    data_registers,
    define_loaded,
    require_defined,
    write_loaded,
)
from amdgpu_sim.instructions.flat_memory import FlatAddressing
from amdgpu_sim.instructions.vector_memory import Addressing, BufferAddressing, global_addressing
from amdgpu_sim.waves import Array, Waves

Combine = Callable[[Any, Any], Any]


def _add_bf16(old: Array, new: Array) -> Array:
    a, b = (np.ascontiguousarray(x).view(np.uint16) for x in (old, new))
    return float_to_bf16_bits(bf16_bits_to_float(a) + bf16_bits_to_float(b)).astype(np.uint16).view(np.uint32)


def _add_f16(old: Array, new: Array) -> Array:
    a, b = (np.ascontiguousarray(x).view(np.float16) for x in (old, new))
    return (a + b).view(np.uint32)


OPERATIONS: dict[str, tuple[Any, Combine]] = {
    "add_f32": (np.float32, lambda a, b: a + b),
    "add_f64": (np.float64, lambda a, b: a + b),
    "max_f64": (np.float64, np.fmax),
    "min_f64": (np.float64, np.fmin),
    "max_num_f32 max_f32": (np.float32, np.fmax),
    "min_num_f32 min_f32": (np.float32, np.fmin),
    "pk_add_f16": (np.uint32, _add_f16),
    "pk_add_bf16": (np.uint32, _add_bf16),
    "add add_u32": (np.uint32, lambda a, b: a + b),
    "sub sub_u32": (np.uint32, lambda a, b: a - b),
    "and and_b32": (np.uint32, lambda a, b: a & b),
    "or or_b32": (np.uint32, lambda a, b: a | b),
    "xor xor_b32": (np.uint32, lambda a, b: a ^ b),
    "umax max_u32": (np.uint32, np.maximum),
    "umin min_u32": (np.uint32, np.minimum),
    "smax max_i32": (np.int32, np.maximum),
    "smin min_i32": (np.int32, np.minimum),
    "inc inc_u32": (np.uint32, lambda a, b: np.where(a >= b, np.uint32(0), a + np.uint32(1))),
    "dec dec_u32": (np.uint32, lambda a, b: np.where((a == 0) | (a > b), b, a - np.uint32(1))),
    "swap swap_b32": (np.uint32, lambda a, b: b),
    "add_x2 add_u64": (np.uint64, lambda a, b: a + b),
    "swap_x2 swap_b64": (np.uint64, lambda a, b: b),
}


def _returns(d: Decoding) -> bool:
    return bool(d.line.modifiers.get("glc") or d.line.modifiers.get("sc0")) or "RETURN" in str(
        d.line.modifiers.get("th")
    )


def lane_values(w: Waves, register: int, where: Array, dtype: Any) -> Array:
    """The data of the lanes ``where`` as ``dtype``."""
    words = np.stack([w.v[register + n][where] for n in range(np.dtype(dtype).itemsize // 4)], axis=1)
    return np.ascontiguousarray(words).view(dtype)[:, 0]


def serve(places: Array, contents: Array, new: Array, expected: Array, combine: Combine | None) -> tuple[Array, Array]:
    """What each lane finds at its place, and what is left there after the last lane.

    All arrays have one item a lane; ``contents`` is what memory holds before. ``combine`` None: a lane's ``new``
    replaces what it finds if that is ``expected``.
    """

    def step(old: Array, chosen: Array | slice) -> Array:
        if combine is None:
            return np.where(old == expected[chosen], new[chosen], old)
        return np.asarray(combine(old, new[chosen])).astype(contents.dtype)

    _, first, group, size = np.unique(places, return_index=True, return_inverse=True, return_counts=True)
    if len(first) == len(places):
        return np.ascontiguousarray(contents), np.ascontiguousarray(step(contents, slice(None)))
    # in round n, the n-th lane of every place is served
    order = np.argsort(group, kind="stable")
    begin = np.concatenate([[0], np.cumsum(size)[:-1]])
    current, previous = contents[first].copy(), np.empty_like(contents)
    for turn in range(int(size.max())):
        waiting = np.flatnonzero(size > turn)
        lanes = order[begin[waiting] + turn]
        previous[lanes] = current[waiting]
        current[waiting] = step(current[waiting], lanes)
    return previous, current[group]


def _atomic(
    d: Decoding, dtype: Any, addressing: Addressing, data: int, target: int | None, combine: Combine | None
) -> Execute:
    """``combine`` None means compare-and-swap: data holds the new value, then the expected one."""
    size = np.dtype(dtype).itemsize
    registers = size // 4
    span = data_registers(d, data, registers * (1 if combine else 2), "atomic data")
    d.instruction.category, d.instruction.bytes_per_lane = "global_atomic", size
    result = d.destination(target, registers, "v") if target is not None else None
    if d.mnemonic.startswith("flat_"):
        (count_flat_load if target is not None else count_flat_store)(d)
    else:
        (count_load if target is not None else count_store)(d)

    def execute(w: Waves) -> None:
        addresses, where = addressing(w)
        w.machine.report.count_bytes("global_atomic", w, where, size)
        require_defined(w, span.index, span.count, where, "atomic operand")
        new = lane_values(w, span.index, where, dtype)
        expected = new if combine else lane_values(w, span.index + registers, where, dtype)
        with w.machine.memory.exclusive:
            contents = w.machine.memory.load(w, where, addresses, size).view(dtype)[:, 0]
            previous, final = serve(addresses, contents, new, expected, combine)
            w.machine.memory.store(w, where, addresses, final[:, None].view(np.uint8))
        if result is not None:
            write_loaded(w, result, Access(size, False, None), where, previous[:, None].view(np.uint8))
            define_loaded(w, result, registers, where, None)

    d.instruction.propagate = execute
    return execute


def _define(names: str, dtype: Any, combine: Combine | None) -> None:
    @instruction(*(f"global_atomic_{name}" for name in names.split()))
    def _(d: Decoding) -> Execute:
        d.parse_operands()
        returns = _returns(d)
        d.ignore(*CACHE_HINTS)
        first = 1 if returns else 0
        return _atomic(d, dtype, global_addressing(d, first, first + 2), first + 1, 0 if returns else None, combine)

    @instruction(*(f"flat_atomic_{name}" for name in names.split()))
    def _(d: Decoding) -> Execute:
        d.parse_operands()
        returns = _returns(d)
        d.ignore(*CACHE_HINTS)
        first = 1 if returns else 0
        return _atomic(d, dtype, FlatAddressing(d, first), first + 1, 0 if returns else None, combine)

    @instruction(*(f"buffer_atomic_{name}" for name in names.split()))
    def _(d: Decoding) -> Execute:
        d.parse_operands()
        returns = _returns(d)
        d.ignore(*CACHE_HINTS)
        size = np.dtype(dtype).itemsize
        return _atomic(d, dtype, BufferAddressing(d, len(d.operands) - 2, size), 0, 0 if returns else None, combine)


for _names, (_dtype, _combine) in OPERATIONS.items():
    _define(_names, _dtype, _combine)
_define("cmpswap cmpswap_b32", np.uint32, None)
_define("cmpswap_x2 cmpswap_b64", np.uint64, None)
