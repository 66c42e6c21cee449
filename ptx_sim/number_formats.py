"""Formats that numpy lacks: bfloat16, TF32 and the 8-bit floats, and directed rounding."""

from __future__ import annotations

from functools import cache

import numpy as np

from ptx_sim.types import Array

F16, F32, F64, U8, U16, U32 = np.float16, np.float32, np.float64, np.uint8, np.uint16, np.uint32
# (mantissa bits, exponent bias, largest finite value) of each 8-bit float
_FLOAT8 = {"e4m3": (3, 7, 448.0), "e5m2": (2, 15, 57344.0)}


def from_bf16(bits: Array) -> Array:
    """bfloat16 bits to float32."""
    wide: Array = bits.astype(U32) << U32(16)
    return wide.view(F32)


def to_bf16(value: Array, rounding: str = "rn") -> Array:
    """float32 to bfloat16 bits; ``rounding`` "rn" (to nearest even) or "rz"."""
    bits = value.view(U32)
    half = U32(0x7FFF) + ((bits >> U32(16)) & U32(1)) if rounding == "rn" else U32(0)
    return np.where(np.isnan(value), U32(0x7FFF), (bits + half) >> U32(16)).astype(U16)


def to_f16(value: Array, rounding: str = "rn") -> Array:
    """float32 to float16; ``rounding`` "rn" or "rz"."""
    nearest = value.astype(F16)
    if rounding == "rn":
        return nearest
    over = np.abs(nearest.astype(F64)) > np.abs(value)
    return np.where(over, np.nextafter(nearest, F16(0)), nearest)


def to_f32(value: Array, rounding: str = "rn") -> Array:
    """float64 to float32; ``rounding`` "rn", "rz", "rm" (down) or "rp" (up)."""
    nearest = value.astype(F32)
    if rounding == "rn":
        return nearest
    above, below = nearest.astype(F64) > value, nearest.astype(F64) < value
    down, up = np.nextafter(nearest, F32(-np.inf)), np.nextafter(nearest, F32(np.inf))
    if rounding == "rm":
        return np.where(above, down, nearest)
    if rounding == "rp":
        return np.where(below, up, nearest)
    return np.where(above & (value >= 0), down, np.where(below & (value < 0), up, nearest))


def to_tf32(value: Array, ties_away: bool = True) -> Array:
    """float32 to float32 with 10 bits of mantissa, to nearest, ties away from zero or to even."""
    bits = value.view(U32)
    half = U32(0x1000) if ties_away else U32(0xFFF) + ((bits >> U32(13)) & U32(1))
    rounded = (bits + half) & U32(0xFFFFE000)
    return np.where(np.isfinite(value), rounded, bits).astype(U32).view(F32)


def flush(value: Array) -> Array:
    """float32 with subnormal numbers replaced by zeros of their sign."""
    tiny = np.abs(value) < F32(2.0**-126)
    return np.where(tiny, np.copysign(F32(0), value), value)


@cache
def _decoded(name: str) -> Array:
    mantissa_bits, bias, _ = _FLOAT8[name]
    code = np.arange(256)
    exponent, mantissa = (code & 0x7F) >> mantissa_bits, code & ((1 << mantissa_bits) - 1)
    fraction = mantissa / (1 << mantissa_bits)
    value = np.where(exponent == 0, fraction * 2.0 ** (1 - bias), (1 + fraction) * 2.0 ** (exponent - bias))
    if name == "e4m3":
        value[(code & 0x7F) == 0x7F] = np.nan
    else:
        value[(code & 0x7F) == 0x7C] = np.inf
        value[(code & 0x7F) > 0x7C] = np.nan
    return np.where(code < 128, value, -value).astype(F32)


def from_float8(bits: Array, name: str) -> Array:
    """Codes of "e4m3" or "e5m2" (uint8) to float32."""
    return _decoded(name).take(bits)


def to_float8(value: Array, name: str) -> Array:
    """float32 to codes of "e4m3" or "e5m2": to nearest even, saturated to the largest finite value; NaN is 0x7F."""
    mantissa_bits, bias, largest = _FLOAT8[name]
    magnitude = np.minimum(np.abs(value.astype(F64)), largest)
    _, exponent = np.frexp(np.where(magnitude > 0, magnitude, 1.0))
    quantum = np.ldexp(1.0, np.maximum(exponent - 1, 1 - bias) - mantissa_bits)
    rounded = np.minimum(np.rint(magnitude / quantum) * quantum, largest)
    finite = _decoded(name)[:128]
    codes = np.searchsorted(finite[np.isfinite(finite)], rounded).astype(U8)
    return np.where(np.isnan(value), U8(0x7F), codes | (np.signbit(value).astype(U8) << U8(7))).astype(U8)
