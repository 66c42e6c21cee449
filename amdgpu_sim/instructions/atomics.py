"""Global and buffer atomics: lanes are served one after another, in wave and lane order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from amdgpu_sim.decoding import Decoding, Execute, instruction
from amdgpu_sim.instructions.access import (
    CACHE_HINTS,
    count_load,
    count_store,
    define_loaded,
    require_defined,
)
from amdgpu_sim.instructions.vector_memory import Addressing, BufferAddressing, global_addressing
from amdgpu_sim.waves import Array, Waves

Combine = Callable[[Any, Any], Any]


def _packed_add(kind: str) -> Combine:
    from amdgpu_sim.conversions import bf16_bits_to_float, float_to_bf16_bits

    def add_bf16(old: Any, new: Any) -> Any:
        pair = np.array([old, new], np.uint32)
        low = bf16_bits_to_float((pair & 0xFFFF).astype(np.uint16)).sum(keepdims=True)
        high = bf16_bits_to_float((pair >> 16).astype(np.uint16)).sum(keepdims=True)
        return np.uint32(int(float_to_bf16_bits(low)[0]) | int(float_to_bf16_bits(high)[0]) << 16)

    def add_f16(old: Any, new: Any) -> Any:
        halves = np.array([old, new], np.uint32).view(np.float16).reshape(2, 2)
        return (halves[0] + halves[1]).view(np.uint32)[0]

    return add_bf16 if kind == "bf16" else add_f16


_OPERATIONS: dict[str, tuple[Any, Combine]] = {
    "add_f32": (np.float32, lambda a, b: a + b),
    "add_f64": (np.float64, lambda a, b: a + b),
    "max_f64": (np.float64, np.fmax),
    "min_f64": (np.float64, np.fmin),
    "max_num_f32 max_f32": (np.float32, np.fmax),
    "min_num_f32 min_f32": (np.float32, np.fmin),
    "pk_add_f16": (np.uint32, _packed_add("f16")),
    "pk_add_bf16": (np.uint32, _packed_add("bf16")),
    "add add_u32": (np.uint32, lambda a, b: a + b),
    "sub sub_u32": (np.uint32, lambda a, b: a - b),
    "and and_b32": (np.uint32, lambda a, b: a & b),
    "or or_b32": (np.uint32, lambda a, b: a | b),
    "xor xor_b32": (np.uint32, lambda a, b: a ^ b),
    "umax max_u32": (np.uint32, max),
    "umin min_u32": (np.uint32, min),
    "smax max_i32": (np.int32, max),
    "smin min_i32": (np.int32, min),
    "swap swap_b32": (np.uint32, lambda a, b: b),
    "add_x2 add_u64": (np.uint64, lambda a, b: a + b),
    "swap_x2 swap_b64": (np.uint64, lambda a, b: b),
}


def _returns(d: Decoding) -> bool:
    return bool(d.line.modifiers.get("glc") or d.line.modifiers.get("sc0")) or "RETURN" in str(
        d.line.modifiers.get("th")
    )


def _lane_values(w: Waves, register: int, where: Array, dtype: Any) -> Array:
    words = np.stack([w.v[register + n][where] for n in range(np.dtype(dtype).itemsize // 4)], axis=1)
    return np.ascontiguousarray(words).view(dtype)[:, 0]


def _atomic(
    d: Decoding, dtype: Any, addressing: Addressing, data: int, target: int | None, combine: Combine | None
) -> Execute:
    """``combine`` None means compare-and-swap: data holds the new value, then the expected one."""
    size = np.dtype(dtype).itemsize
    registers = size // 4
    span = d.span(data, registers * (1 if combine else 2))
    if span is None or span.kind != "v":
        raise d.unsupported("atomic data must be vector registers")
    d.instruction.wave_reads.append(span)
    d.instruction.category, d.instruction.bytes_per_lane = "global_atomic", size
    result = d.destination(target, registers, "v") if target is not None else None
    (count_load if target is not None else count_store)(d)

    def execute(w: Waves) -> None:
        addresses, where = addressing(w)
        w.machine.report.count_bytes("global_atomic", w, where, size)
        require_defined(w, span.index, span.count, where, "atomic operand")
        new = _lane_values(w, span.index, where, dtype)
        expected = new if combine else _lane_values(w, span.index + registers, where, dtype)
        previous = np.zeros(len(addresses), dtype)
        memory = w.machine.memory
        if len(np.unique(addresses)) == len(addresses):
            previous = memory.load(w, where, addresses, size).view(dtype)[:, 0]
            if combine is None:
                updated = np.where(previous == expected, new, previous)
            elif combine in (max, min):
                updated = (np.maximum if combine is max else np.minimum)(previous, new)
            elif dtype is np.uint32 and combine in (
                _OPERATIONS["pk_add_f16"][1],
                _OPERATIONS["pk_add_bf16"][1],
            ):
                updated = np.array([combine(a, b) for a, b in zip(previous, new, strict=True)], dtype)
            else:
                updated = combine(previous, new)
            memory.store(w, where, addresses, np.ascontiguousarray(updated).astype(dtype)[:, None].view(np.uint8))
        else:
            contents = memory.load(w, where, addresses, size).view(dtype)[:, 0]
            current = {int(a): v for a, v in zip(addresses, contents, strict=True)}
            for position, address in enumerate(addresses.tolist()):
                old = previous[position] = current[address]
                if combine is None:
                    current[address] = new[position] if old == expected[position] else old
                else:
                    current[address] = dtype(combine(old, new[position]))
            final = np.array([current[int(a)] for a in addresses], dtype)
            memory.store(w, where, addresses, final[:, None].view(np.uint8))
        if result is not None:
            words = np.ascontiguousarray(previous)[:, None].view(np.uint32)
            for column in range(registers):
                w.v[result + column][where] = words[:, column]
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

    @instruction(*(f"buffer_atomic_{name}" for name in names.split()))
    def _(d: Decoding) -> Execute:
        d.parse_operands()
        returns = _returns(d)
        d.ignore(*CACHE_HINTS)
        size = np.dtype(dtype).itemsize
        return _atomic(d, dtype, BufferAddressing(d, len(d.operands) - 2, size), 0, 0 if returns else None, combine)


for _names, (_dtype, _combine) in _OPERATIONS.items():
    _define(_names, _dtype, _combine)
_define("cmpswap cmpswap_b32", np.uint32, None)
_define("cmpswap_x2 cmpswap_b64", np.uint64, None)
