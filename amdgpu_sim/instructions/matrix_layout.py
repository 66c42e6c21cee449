"""Shared pieces of the matrix instructions: element types and how registers unpack into numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from amdgpu_sim.conversions import bf16_bits_to_float, float8
from amdgpu_sim.decoding import Decoding, Span
from amdgpu_sim.waves import Array, Waves

ELEMENT_BYTES = {"f16": 2, "bf16": 2, "fp8": 1, "bf8": 1, "f32": 4, "xf32": 4, "i8": 1, "f64": 8, "u8": 1}


def unpack(words: Array, element: str, flavour: str) -> Array:
    """Registers (n, wave, lane) as numbers (wave, lane, elements), in register order; float32, int64 or
    float64."""
    packed = np.ascontiguousarray(np.moveaxis(words, 0, -1))
    if element == "f16":
        return packed.view(np.float16).astype(np.float32)
    if element == "bf16":
        return bf16_bits_to_float(packed.view(np.uint16))
    if element in ("fp8", "bf8"):
        return float8(element, flavour).decode(packed.view(np.uint8))
    if element == "f32":
        return packed.view(np.float32)
    if element == "xf32":
        # 10 mantissa bits enter the multiplier
        return ((packed + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)
    if element == "f64":
        return packed.view(np.float64)
    return packed.view(np.int8 if element == "i8" else np.uint8).astype(np.int64)


def multiply(a: Array, b: Array) -> Array:
    """Batched product (..., M, K) @ (..., K, N) in the precision of the arguments (float64 for integers)."""
    if a.dtype == np.int64:
        return (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int64)
    return np.asarray(a @ b)


def register_rows(d: Decoding, number: int, count: int) -> int:
    """First register of matrix operand ``number`` of ``count`` vector registers; records it as read by
    all lanes."""
    operand = d.operands[number]
    if operand.kind != "v" or operand.width != count:
        raise d.unsupported(f"operand {operand.text!r}: {count} vector registers expected")
    d.instruction.wave_reads.append(Span("v", operand.index, count))
    return operand.index


def accumulator(d: Decoding, number: int, count: int, dtype: Any) -> Any:
    """Reader of the accumulator operand: (count, wave, lane) of ``dtype``, or the inline constant."""
    operand = d.operands[number]
    if operand.kind == "const":
        constant = dtype(operand.value)
        return lambda w: constant
    first = register_rows(d, number, count)

    def read(w: Waves) -> Array:
        words = w.v[first : first + count]
        if np.dtype(dtype).itemsize == 8:
            pairs = words[0::2].astype(np.uint64) | (words[1::2].astype(np.uint64) << np.uint64(32))
            return pairs.view(dtype)
        return words.view(dtype)

    return read
