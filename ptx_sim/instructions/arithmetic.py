"""add, sub, mul, mad, fma, div, rem, neg, abs, min, max in integers and floating point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ptx_sim.decoding import Decoding, Execute, instruction
from ptx_sim.instructions.elementwise import FLOATING, elementwise, floating, fma
from ptx_sim.number_formats import F32, F64, to_f32
from ptx_sim.types import DTYPES, Array, is_signed, size_of

_ROUNDINGS = ("rn", "rz", "rm", "rp")


def _saturate(function: Callable[..., Any]) -> Callable[..., Any]:
    """Clamp to [0, 1]; NaN becomes 0."""

    def saturated(*values: Any) -> Array:
        result = function(*values)
        return np.where(np.isnan(result), 0, np.clip(result, 0, 1)).astype(result.dtype)

    return saturated


def _relu(function: Callable[..., Any]) -> Callable[..., Any]:
    """Negative results become 0; NaN stays."""
    return lambda *values: np.maximum(function(*values), F32(0))


def _float(d: Decoding, kind: str, operands: int, function: Callable[..., Any], exact: Callable[..., Any]) -> Execute:
    """Rounded arithmetic: ``function`` rounds to nearest in the type, ``exact`` computes in float64."""
    rounding, ftz = d.choice(*_ROUNDINGS, default="rn"), d.flag("ftz")
    if rounding != "rn" and kind != "f32":
        raise d.unsupported(f".{rounding} of .{kind}")
    chosen = function if rounding == "rn" else lambda *values: to_f32(exact(*(v.astype(F64) for v in values)), rounding)
    if d.flag("sat"):
        chosen = _saturate(chosen)
    if d.flag("relu"):
        chosen = _relu(chosen)
    return floating(d, kind, operands, chosen, ftz=ftz)


@instruction("add", "sub")
def _(d: Decoding) -> Execute:
    kind = d.type()
    function: Any = np.add if d.opcode == "add" else np.subtract
    if kind in FLOATING:
        return _float(d, kind, 2, function, function)
    if d.flag("sat"):
        wide = lambda a, b: np.clip(function(a.astype(np.int64), b.astype(np.int64)), -(2**31), 2**31 - 1)  # noqa: E731
        return elementwise(d, kind, [kind, kind], lambda a, b: wide(a, b).astype(np.int32))
    return elementwise(d, kind, [kind, kind], function)


def high_half(a: Any, b: Any, kind: str) -> Any:
    """The upper half of the product of two integers."""
    size = size_of(kind)
    if size < 8:
        wide = np.int64 if is_signed(kind) else np.uint64
        return (np.multiply(a, b, dtype=wide) >> wide(8 * size)).astype(DTYPES[kind])
    product = np.multiply(np.asarray(a).astype(object), np.asarray(b).astype(object)) >> 64
    return np.asarray(product & (2**64 - 1)).astype(np.uint64).view(DTYPES[kind])


def _wide(kind: str) -> str:
    return kind[0] + str(16 * size_of(kind))


def _low24(value: Any) -> Any:
    return (value << value.dtype.type(8)) >> value.dtype.type(8)


@instruction("mul", "mad", "mul24", "mad24")
def _(d: Decoding) -> Execute:
    kind = d.type()
    if kind in FLOATING and d.opcode == "mul":
        return _float(d, kind, 2, np.multiply, np.multiply)
    if kind in FLOATING:
        return _fma(d, kind)
    part = d.choice("lo", "hi", "wide", default="lo")
    result = _wide(kind) if part == "wide" else kind
    dtype = DTYPES[result]

    def product(a: Any, b: Any) -> Any:
        if d.opcode.endswith("24"):
            a, b = _low24(a), _low24(b)
        if part == "hi":
            return high_half(a, b, kind)
        return np.multiply(a, b, dtype=dtype)

    if d.opcode.startswith("mul"):
        return elementwise(d, result, [kind, kind], product)
    return elementwise(d, result, [kind, kind, result], lambda a, b, c: product(a, b) + c)


def _fma32(a: Array, b: Array, c: Array) -> Array:
    return fma(a, b, c).astype(F32)


def _fma(d: Decoding, kind: str) -> Execute:
    return _float(d, kind, 3, _fma32 if kind == "f32" else fma, fma)


@instruction("fma")
def _(d: Decoding) -> Execute:
    return _fma(d, d.type())


def _divide(a: Any, b: Any) -> Array:
    """Integer division towards zero; by zero all bits are set."""
    a, b = np.broadcast_arrays(a, b)
    safe = np.where(b == 0, b.dtype.type(1), b)
    quotient = a // safe
    if a.dtype.kind == "i":
        # numpy rounds down
        quotient = quotient + ((quotient < 0) & (quotient * safe != a)).astype(a.dtype)
    return np.where(b == 0, a.dtype.type(0) - a.dtype.type(1) if a.dtype.kind == "i" else ~a.dtype.type(0), quotient)


def _remainder(a: Any, b: Any) -> Array:
    return np.where(b == 0, a, a - _divide(a, b) * b).astype(a.dtype)


@instruction("div")
def _(d: Decoding) -> Execute:
    kind = d.type()
    d.flag("approx", "full")
    if kind in FLOATING:
        return _float(d, kind, 2, np.divide, np.divide)
    return elementwise(d, kind, [kind, kind], _divide)


@instruction("rem")
def _(d: Decoding) -> Execute:
    kind = d.type()
    return elementwise(d, kind, [kind, kind], _remainder)


@instruction("neg")
def _(d: Decoding) -> Execute:
    kind = d.type()
    if kind in FLOATING:
        return floating(d, kind, 1, np.negative, ftz=d.flag("ftz"))
    return elementwise(d, kind, [kind], np.negative)


@instruction("abs")
def _(d: Decoding) -> Execute:
    kind = d.type()
    if kind in FLOATING:
        return floating(d, kind, 1, np.abs, ftz=d.flag("ftz"))
    return elementwise(d, kind, [kind], np.abs)


@instruction("min", "max")
def _(d: Decoding) -> Execute:
    kind, least = d.type(), d.opcode == "min"
    relu = d.flag("relu")
    if kind not in FLOATING:
        chosen: Any = np.minimum if least else np.maximum
        if relu:
            return elementwise(d, kind, [kind, kind], lambda a, b: np.maximum(chosen(a, b), a.dtype.type(0)))
        return elementwise(d, kind, [kind, kind], chosen)
    ftz = d.flag("ftz")
    with_nan, without = (np.minimum, np.fmin) if least else (np.maximum, np.fmax)
    chosen = with_nan if d.flag("NaN") else without
    return floating(d, kind, len(d.operands) - 1, _relu(chosen) if relu else _folded(chosen), ftz=ftz)


def _folded(function: Any) -> Any:
    return lambda first, *others: function(first, _folded(function)(*others)) if others else first


@instruction("ex2", "lg2", "rcp", "rsqrt", "sqrt", "sin", "cos", "tanh")
def _(d: Decoding) -> Execute:
    kind = d.type()
    d.flag("approx")
    d.category = "transcendental"
    return _float(d, kind, 1, _TRANSCENDENTAL[d.opcode], _TRANSCENDENTAL[d.opcode])


_TRANSCENDENTAL: dict[str, Callable[[Array], Array]] = {
    "ex2": np.exp2,
    "lg2": np.log2,
    "rcp": lambda a: a.dtype.type(1) / a,
    "rsqrt": lambda a: a.dtype.type(1) / np.sqrt(a),
    "sqrt": np.sqrt,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
}


@instruction("copysign")
def _(d: Decoding) -> Execute:
    kind = d.type()
    return elementwise(d, kind, [kind, kind], lambda a, b: np.copysign(b, a))


@instruction("testp")
def _(d: Decoding) -> Execute:
    kind, test = d.type(), d.choice("finite", "infinite", "number", "notanumber", "normal", "subnormal")
    tiny = np.finfo(DTYPES[kind]).tiny
    tests: dict[str, Callable[[Array], Any]] = {
        "finite": np.isfinite,
        "infinite": np.isinf,
        "number": lambda a: ~np.isnan(a),
        "notanumber": np.isnan,
        "normal": lambda a: np.isfinite(a) & (np.abs(a) >= tiny),
        "subnormal": lambda a: (a != 0) & (np.abs(a) < tiny),
    }
    if not test:
        raise d.unsupported("no test that is modelled")
    return elementwise(d, "pred", [kind], tests[test])
