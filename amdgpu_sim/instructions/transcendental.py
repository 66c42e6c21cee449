"""Transcendental instructions and the three steps of the division sequence.

Hardware is accurate to about one unit in the last place; here results are rounded correctly. Denormals are
flushed on both sides for the instructions that do not support them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from amdgpu_sim.decoding import Decoding, Execute, instruction
from amdgpu_sim.instructions.scalar import scalar_writer
from amdgpu_sim.instructions.vector import flush, result_writer, vector
from amdgpu_sim.instructions.vector_float import fma
from amdgpu_sim.waves import VCC, Array, Waves

F16, F32, F64 = np.float16, np.float32, np.float64


def _flushed(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda a: flush(function(flush(a)).astype(F32))


_SINGLE: dict[str, Callable[[Array], Array]] = {
    "exp": _flushed(np.exp2),
    "log": _flushed(np.log2),
    "rcp": _flushed(lambda a: F32(1) / a),
    "rsq": _flushed(lambda a: 1 / np.sqrt(a.astype(F64))),
    "sqrt": _flushed(np.sqrt),
}


def _define_scalar(name: str, function: Callable[[Array], Array]) -> None:
    """gfx12 computes these on a scalar register, too."""

    @instruction(f"v_s_{name}_f32")
    def _(d: Decoding) -> Execute:
        d.parse_operands()
        d.instruction.category = "transcendental"
        read, write = d.source(1, "f32"), scalar_writer(d, 0, "f32")
        return lambda w: write(w, function(read(w)))


for _name, _function in _SINGLE.items():
    vector(f"v_{_name}_f32", "f32", "f32", _function, "transcendental")
    _define_scalar(_name, _function)
vector("v_rcp_iflag_f32", "f32", "f32", _SINGLE["rcp"], "transcendental")
vector("v_sin_f32", "f32", "f32", lambda a: np.sin(2 * np.pi * (a.astype(F64) % 1)).astype(F32), "transcendental")
vector("v_cos_f32", "f32", "f32", lambda a: np.cos(2 * np.pi * (a.astype(F64) % 1)).astype(F32), "transcendental")
vector("v_exp_f16", "f16", "f16", lambda a: np.exp2(a.astype(F32)).astype(F16), "transcendental")
vector("v_log_f16", "f16", "f16", lambda a: np.log2(a.astype(F32)).astype(F16), "transcendental")
vector("v_rcp_f16", "f16", "f16", lambda a: (1 / a.astype(F32)).astype(F16), "transcendental")
vector("v_rcp_f64", "f64", "f64", lambda a: 1 / a, "transcendental")


def _exponent(value: Array) -> Array:
    return (value.view(np.uint32) >> np.uint32(23) & np.uint32(0xFF)).astype(np.int64)


def div_scale(subject: Array, denominator: Array, numerator: Array) -> tuple[Array, Array]:
    """v_div_scale_f32: scales ``subject`` (numerator or denominator) where the quotient needs it.

    Where both the quotient and the reciprocal would be denormal, the denominator is scaled down: the choice
    that keeps the division sequence exact. Returns the scaled value and the flag that tells v_div_fmas_f32 to
    scale the result back.
    """
    exponent_n, exponent_d = _exponent(numerator), _exponent(denominator)
    tiny_d = np.abs(denominator) < F32(2.0**-126)
    difference = exponent_n - exponent_d
    zero = (numerator == 0) | (denominator == 0)
    too_big = difference >= 96
    inverse_tiny = exponent_d >= 253
    quotient_tiny = difference <= -126
    small_n = exponent_n <= 23
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
    scaled = np.where(up, np.ldexp(subject, 64), np.where(down, np.ldexp(subject, -64), subject))
    return np.where(zero, F32(np.nan), scaled).astype(F32), flag


@instruction("v_div_scale_f32")
def _(d: Decoding) -> Execute:
    d.parse_operands()
    subject, denominator, numerator = (d.source(n, "f32") for n in (2, 3, 4))
    write = result_writer(d, 0, "f32")
    register = d.operands[1].index
    d.destination(1, d.target.wave_size // 32, "s")

    def execute(w: Waves) -> None:
        shape = w.active.shape
        values = [np.ascontiguousarray(np.broadcast_to(r(w), shape)) for r in (subject, denominator, numerator)]
        scaled, flag = div_scale(*values)
        write(w, scaled)
        w.set_lane_mask(register, flag)

    return execute


@instruction("v_div_fmas_f32")
def _(d: Decoding) -> Execute:
    d.parse_operands()
    a, b, c = (d.source(n, "f32") for n in (1, 2, 3))
    d.read_also("s", VCC, d.target.wave_size // 32)
    write = result_writer(d, 0, "f32")

    def execute(w: Waves) -> None:
        result, addend = fma(a(w), b(w), c(w)), c(w)
        scale = np.where(np.abs(addend) >= 2.0, 64, -64)
        write(w, np.where(w.lane_mask(VCC), np.ldexp(result, scale), result))

    return execute


def div_fixup(quotient: Array, denominator: Array, numerator: Array) -> Array:
    """v_div_fixup_f32: the quotient, or the exact answer of the special cases of numerator / denominator."""
    special = ~np.isfinite(denominator) | ~np.isfinite(numerator) | (denominator == 0) | (numerator == 0)
    sign = np.signbit(denominator) ^ np.signbit(numerator)
    signed = np.where(sign, -np.abs(quotient), np.abs(quotient))
    return np.where(special | np.isnan(quotient), numerator / denominator, signed)


vector("v_div_fixup_f32", "f32", "f32 f32 f32", div_fixup)
