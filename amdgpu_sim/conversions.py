"""Bit-exact conversions between float32 and the narrow formats: bfloat16 and the two kinds of 8-bit
floats."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from amdgpu_sim.waves import Array


def bf16_bits_to_float(bits: Array) -> Array:
    """Widen 16-bit patterns to float32."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def float_to_bf16_bits(value: Array) -> Array:
    """Round float32 to nearest-even bfloat16; returns the pattern as uint32. NaN becomes a quiet NaN."""
    bits = np.ascontiguousarray(value, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(value), (bits >> np.uint32(16)) | np.uint32(0x40), rounded)


class Float8:
    """An 8-bit float format: exponent and mantissa bits, bias, and whether it is a "fnuz" format.

    fnuz formats have no infinity and no negative zero, and 0x80 is their only NaN. The OCP e5m2 has
    infinities; the OCP e4m3 has none and NaN 0x7F/0xFF.
    """

    def __init__(self, exponent_bits: int, mantissa_bits: int, fnuz: bool) -> None:
        """Tabulate the values of all 256 codes."""
        self.exponent_bits, self.mantissa_bits, self.fnuz = exponent_bits, mantissa_bits, fnuz
        self.bias = (1 << (exponent_bits - 1)) - (0 if fnuz else 1)
        codes = np.arange(256)
        exponent = (codes >> mantissa_bits) & ((1 << exponent_bits) - 1)
        mantissa = (codes & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
        magnitude = np.where(
            exponent == 0, np.ldexp(mantissa, 1 - self.bias), np.ldexp(1 + mantissa, exponent - self.bias)
        )
        values = np.where(codes >= 128, -magnitude, magnitude)
        if fnuz:
            values[0x80] = np.nan
        elif exponent_bits == 5:
            values[[0x7C, 0xFC]] = np.inf, -np.inf
            values[[0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF]] = np.nan
        else:
            values[[0x7F, 0xFF]] = np.nan
        self.table: Array = values.astype(np.float32)
        finite = self.table[:128][np.isfinite(self.table[:128])]
        self.largest = float(finite.max())

    def decode(self, codes: Array) -> Array:
        """float32 values of uint8 codes."""
        return self.table[codes]

    def encode(self, value: Array, saturate: bool) -> Array:
        """Codes (uint8) of float32 values, rounded to nearest even.

        Beyond the largest finite value: that value if ``saturate``, else infinity where the format
        has one, else NaN.
        """
        value = np.asarray(value, np.float32)
        magnitude = np.abs(value).astype(np.float64)
        _, exponent = np.frexp(np.where(np.isfinite(magnitude) & (magnitude > 0), magnitude, 2.0**-100))
        step_exponent = np.maximum(exponent - 1, 1 - self.bias) - self.mantissa_bits
        steps = np.rint(np.ldexp(np.where(np.isfinite(magnitude), magnitude, 0.0), -step_exponent))
        # steps carries into the exponent field by plain addition because the encoding is monotonic
        codes = steps + (step_exponent + self.mantissa_bits - (1 - self.bias)) * (1 << self.mantissa_bits)
        top = int(np.flatnonzero(self.table[:128] == np.float32(self.largest))[0])
        codes = codes.astype(np.int64)
        infinity = 0x7C if self.exponent_bits == 5 else 0x7F
        nan = 0x80 if self.fnuz else 0x7F
        over = (codes > top) | np.isinf(value)
        beyond = top if saturate else (nan if self.fnuz else infinity)
        codes = np.where(over, beyond, codes)
        sign = np.signbit(value) & ~((codes == 0) & self.fnuz)
        codes = np.where(sign & (codes != 0x80), codes | 0x80, codes)
        return np.where(np.isnan(value), nan, codes).astype(np.uint8)


@lru_cache(maxsize=4)
def float8(name: str, flavour: str) -> Float8:
    """The format that "fp8" (e4m3) or "bf8" (e5m2) means under ``flavour`` "fnuz" or "ocp"."""
    return Float8(*((4, 3) if name == "fp8" else (5, 2)), fnuz=flavour == "fnuz")
