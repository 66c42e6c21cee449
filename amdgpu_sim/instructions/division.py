"""The three steps around the reciprocal of the division sequence, in float32 and float64.

Source: AMD's instruction set manuals, V_DIV_SCALE, V_DIV_FMAS and V_DIV_FIXUP.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from amdgpu_sim.decoding import Decoding, Execute, instruction
from amdgpu_sim.instructions.vector import result_writer, vector
from amdgpu_sim.instructions.vector_double import fma64
from amdgpu_sim.instructions.vector_float import fma
from amdgpu_sim.waves import VCC, Array, Waves


@dataclass(frozen=True)
class Division:
    """The numbers in which the sequences of the two formats differ.

    Exponents are biased. ``far`` is the difference from which a quotient may overflow, ``small`` the
    numerator's exponent up to which digits may be lost, ``shift`` the power of two that values are scaled by.
    """

    kind: str
    dtype: type[np.floating[Any]]
    bits: type[np.unsignedinteger[Any]]
    digits: int
    bias: int
    far: int
    small: int
    shift: int
    fma: Callable[[Array, Array, Array], Array]

    @property
    def least(self) -> int:
        """The exponent of the smallest normal number."""
        return 1 - self.bias

    def exponent(self, value: Array) -> Array:
        """Biased exponents; int64."""
        return (value.view(self.bits) >> self.bits(self.digits)).astype(np.int64) & (2 * self.bias + 1)


SINGLE = Division("f32", np.float32, np.uint32, 23, 127, 96, 23, 64, fma)
DOUBLE = Division("f64", np.float64, np.uint64, 52, 1023, 768, 53, 128, fma64)


def div_scale(form: Division, subject: Array, denominator: Array, numerator: Array) -> tuple[Array, Array]:
    """v_div_scale: scales ``subject`` (numerator or denominator) where the quotient needs it.

    Where both the quotient and the reciprocal would be denormal, the denominator is scaled down: the choice
    that keeps the division sequence exact. Returns the scaled value and the flag that tells v_div_fmas to
    scale the result back.
    """
    exponent_n, exponent_d = form.exponent(numerator), form.exponent(denominator)
    tiny_d = np.abs(denominator) < form.dtype(2.0**form.least)
    difference = exponent_n - exponent_d
    zero = (numerator == 0) | (denominator == 0)
    too_big = difference >= form.far
    inverse_tiny = exponent_d >= 2 * form.bias - 1
    quotient_tiny = difference <= form.least
    small_n = exponent_n <= form.small
    is_denominator = subject == denominator
    is_numerator = subject == numerator
    flag = ~zero & (too_big | quotient_tiny | tiny_d)
    up = (
        (too_big & is_denominator)
        | (~too_big & tiny_d)
        | (~too_big & ~tiny_d & ~inverse_tiny & quotient_tiny & is_numerator)
        | (~too_big & ~tiny_d & ~inverse_tiny & ~quotient_tiny & small_n)
    )
    down = ~too_big & ~tiny_d & inverse_tiny & (~quotient_tiny | is_denominator)
    power = np.where(up, form.shift, np.where(down, -form.shift, 0))
    return np.where(zero, form.dtype(np.nan), np.ldexp(subject, power)).astype(form.dtype), flag


def div_fixup(quotient: Array, denominator: Array, numerator: Array) -> Array:
    """v_div_fixup: the quotient, or the exact answer of the special cases of numerator / denominator."""
    special = ~np.isfinite(denominator) | ~np.isfinite(numerator) | (denominator == 0) | (numerator == 0)
    sign = np.signbit(denominator) ^ np.signbit(numerator)
    signed = np.where(sign, -np.abs(quotient), np.abs(quotient))
    return np.where(special | np.isnan(quotient), numerator / denominator, signed)


def _define(form: Division, category: str) -> None:
    @instruction(f"v_div_scale_{form.kind}")
    def _(d: Decoding) -> Execute:
        d.parse_operands()
        d.instruction.category = category
        subject, denominator, numerator = (d.source(n, form.kind) for n in (2, 3, 4))
        write = result_writer(d, 0, form.kind)
        register = d.operands[1].index
        d.destination(1, d.target.wave_size // 32, "s")

        def execute(w: Waves) -> None:
            shape = w.active.shape
            values = [np.ascontiguousarray(np.broadcast_to(r(w), shape)) for r in (subject, denominator, numerator)]
            scaled, flag = div_scale(form, *values)
            write(w, scaled)
            w.set_lane_mask(register, flag)

        return execute

    @instruction(f"v_div_fmas_{form.kind}")
    def _(d: Decoding) -> Execute:
        d.parse_operands()
        d.instruction.category = category
        a, b, c = (d.source(n, form.kind) for n in (1, 2, 3))
        d.read_also("s", VCC, d.target.wave_size // 32)
        write = result_writer(d, 0, form.kind)

        def execute(w: Waves) -> None:
            result, addend = form.fma(a(w), b(w), c(w)), c(w)
            scale = np.where(np.abs(addend) >= 2.0, form.shift, -form.shift)
            write(w, np.where(w.lane_mask(VCC), np.ldexp(result, scale), result))

        return execute

    kind = form.kind
    vector(f"v_div_fixup_{kind}", kind, f"{kind} {kind} {kind}", div_fixup, category)


_define(SINGLE, "valu")
_define(DOUBLE, "valu_double")
