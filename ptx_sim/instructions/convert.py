"""cvt: between integers, floating-point types and packed types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ptx_sim.decoding import Decoding, Execute, instruction
from ptx_sim.instructions.elementwise import elementwise
from ptx_sim.number_formats import (
    F16,
    F32,
    F64,
    U8,
    U16,
    U32,
    flush,
    from_bf16,
    from_float8,
    to_bf16,
    to_f16,
    to_f32,
    to_float8,
    to_tf32,
)
from ptx_sim.types import DTYPES, Array, is_float

_INTEGRAL: dict[str, Any] = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


@instruction("cvt")
def _(d: Decoding) -> Execute:
    d.category = "convert"
    if "pack" in d.modifiers:
        raise d.unsupported("cvt.pack is not modelled")
    result, kind = d.type(), d.type()
    if result.endswith("x2") or kind.endswith("x2"):
        return _packed(d, result, kind)
    integral = d.choice(*_INTEGRAL)
    rounding = d.choice("rn", "rz", "rm", "rp", "rna", default="rn")
    ftz, sat, relu = d.flag("ftz"), d.flag("sat", "satfinite"), d.flag("relu")
    source_float, result_float = _floating(kind), _floating(result)
    if not source_float and not result_float:
        return elementwise(d, result, [kind], lambda a: _integer(a, result, sat))
    if not source_float:
        return elementwise(
            d, result, [kind], _clamped(lambda a: _narrow(_from_integer(a, result), result, rounding), sat)
        )
    if not result_float:
        name = integral or "rzi"
        return elementwise(d, result, [kind], lambda a: _to_integer(_widen(a, kind, ftz), result, _INTEGRAL[name]))

    def function(value: Any) -> Array:
        wide = _widen(value, kind, ftz)
        if integral:
            wide = _INTEGRAL[integral](wide)
        if sat:
            wide = np.where(np.isnan(wide), 0, np.clip(wide, 0, 1)).astype(wide.dtype)
        if relu:
            wide = np.maximum(wide, wide.dtype.type(0))
        narrowed = _narrow(wide, result, rounding)
        return flush(narrowed) if ftz and result == "f32" else narrowed

    return elementwise(d, result, [kind], function)


def _floating(kind: str) -> bool:
    return is_float(kind) or kind in ("bf16", "tf32")


def _clamped(function: Callable[[Any], Array], sat: bool) -> Callable[[Any], Array]:
    return (lambda a: np.clip(function(a), 0, 1)) if sat else function


def _widen(value: Array, kind: str, ftz: bool) -> Array:
    if kind == "bf16":
        return from_bf16(value)
    if kind == "f16":
        return value.astype(F32)
    return flush(value) if ftz and kind == "f32" else value


def _narrow(value: Array, result: str, rounding: str) -> Array:
    """A float32 or float64 value in the type ``result``."""
    if result == "f64":
        return value.astype(F64)
    if result == "f32":
        return value if value.dtype == F32 else to_f32(value, rounding)
    if result == "f16":
        return to_f16(value, rounding)
    if result == "tf32":
        return to_tf32(value, rounding != "rn").view(U32)
    return to_bf16(value.astype(F32), rounding)


def _from_integer(value: Array, result: str) -> Array:
    # float64 holds every 32-bit integer; 64-bit ones go to float32 in one rounding
    if value.dtype.itemsize == 8 and result == "f32":
        single: Array = value.astype(F32)
        return single
    wide: Array = value.astype(F64)
    return wide


def _integer(value: Array, result: str, sat: bool) -> Array:
    dtype = DTYPES[result]
    if sat:
        info = np.iinfo(dtype)
        low = max(info.min, int(np.iinfo(value.dtype).min))
        high = min(info.max, int(np.iinfo(value.dtype).max))
        value = np.clip(value, value.dtype.type(low), value.dtype.type(high))
    return value.astype(dtype)


def _to_integer(value: Array, result: str, rounding: Any) -> Array:
    """Rounded and saturated; NaN becomes 0 (the largest value of a 64-bit integer)."""
    info = np.iinfo(DTYPES[result])
    rounded = rounding(np.asarray(value, F64))
    below, above = rounded <= info.min, rounded >= info.max
    inside = np.where(below | above | np.isnan(rounded), 0.0, rounded).astype(DTYPES[result])
    return np.where(below, info.min, np.where(above, info.max, inside)).astype(DTYPES[result])


def _packed(d: Decoding, result: str, kind: str) -> Execute:
    rounding, relu = d.choice("rn", "rz", default="rn"), d.flag("relu")
    d.flag("satfinite")
    if kind in ("e4m3x2", "e5m2x2") and result == "f16x2":
        return elementwise(
            d, "u32", ["u16"], lambda a: from_float8(np.atleast_1d(a).view(U8), kind[:4]).astype(F16).view(U32)
        )
    if result in ("e4m3x2", "e5m2x2") and kind in ("f16x2", "bf16x2"):
        return elementwise(d, "u16", ["u32"], lambda a: to_float8(_unpacked(a, kind), result[:4]).view(U16))
    if kind != "f32":
        raise d.unsupported("this conversion is not modelled")
    narrow: dict[str, Callable[[Array], Array]] = {
        "f16x2": lambda v: to_f16(v, rounding).view(U16),
        "bf16x2": lambda v: to_bf16(v, rounding),
        "e4m3x2": lambda v: to_float8(v, "e4m3"),
        "e5m2x2": lambda v: to_float8(v, "e5m2"),
    }
    if result not in narrow:
        raise d.unsupported("this conversion is not modelled")
    whole = "u16" if result[0] == "e" else "u32"

    def function(upper: Any, lower: Any) -> Array:
        halves = np.stack(np.broadcast_arrays(lower, upper), -1)
        if relu:
            halves = np.maximum(halves, F32(0))
        return narrow[result](halves).view(DTYPES[whole])[..., 0]

    return elementwise(d, whole, ["f32", "f32"], function)


def _unpacked(value: Any, kind: str) -> Array:
    halves = np.atleast_1d(value).view(U16)
    return halves.view(F16).astype(F32) if kind == "f16x2" else from_bf16(halves)
