"""Instructions that compute every thread's result from its own operands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ptx_sim.decoding import Decoding, Execute, Read
from ptx_sim.number_formats import F16, F32, F64, U16, U32, flush, from_bf16, to_bf16
from ptx_sim.syntax import Immediate, Symbol
from ptx_sim.threads import Threads
from ptx_sim.types import Array


def elementwise(
    d: Decoding, result: str, sources: Sequence[str], function: Callable[..., Any], first: int = 1
) -> Execute:
    """``destination = function(operands...)``; ``sources`` are the types of the operands from ``first`` on."""
    if len(d.operands) != first + len(sources):
        raise d.unsupported(f"{first + len(sources)} operands are expected")
    write = d.destination(0, result)
    operands = d.operands[first : first + len(sources)]
    reads = [d.source(operand, kind) for operand, kind in zip(operands, sources, strict=True)]
    if all(isinstance(operand, Immediate | Symbol) for operand in operands):
        return lambda t: write(t, t.constant(np.asarray(function(*(read(t) for read in reads)))[()]))
    return _execute(write, reads, function)


def _execute(write: Any, reads: Sequence[Read], function: Callable[..., Any]) -> Execute:
    if len(reads) == 1:
        (a,) = reads
        return lambda t: write(t, function(a(t)))
    if len(reads) == 2:
        a, b = reads
        return lambda t: write(t, function(a(t), b(t)))
    return lambda t: write(t, function(*(read(t) for read in reads)))


def floating(d: Decoding, kind: str, operands: int, function: Callable[..., Any], *, ftz: bool = False) -> Execute:
    """``destination = function(operands...)`` in a floating-point type, packed or not.

    ``function`` gets float32 (float64 for f64) and returns an array that is rounded to ``kind`` from there.
    """
    unpack, pack = _FORMATS[kind]

    def compute(*values: Any) -> Array:
        unpacked = [unpack(value) for value in values]
        if ftz:
            unpacked = [flush(value) for value in unpacked]
        result = function(*unpacked)
        return pack(flush(result) if ftz else result)

    direct = kind in ("f32", "f64") and not ftz
    return elementwise(d, kind, [kind] * operands, function if direct else compute)


def _halves(value: Any) -> Array:
    return np.atleast_1d(value).view(U16)


_FORMATS: dict[str, tuple[Callable[[Any], Array], Callable[[Array], Array]]] = {
    "f32": (lambda v: v, lambda v: v),
    "f64": (lambda v: v, lambda v: v),
    "f16": (lambda v: v.astype(F32), lambda v: v.astype(F16)),
    "f16x2": (lambda v: _halves(v).view(F16).astype(F32), lambda v: v.astype(F16).view(U32)),
    "bf16": (from_bf16, lambda v: to_bf16(v.astype(F32))),
    "bf16x2": (lambda v: from_bf16(_halves(v)), lambda v: to_bf16(v.astype(F32)).view(U32)),
}
FLOATING = frozenset(_FORMATS)


def fma(a: Array, b: Array, c: Array) -> Array:
    """a * b + c in float64: the product of narrower numbers is exact, their sum is rounded twice."""
    return np.multiply(a, b, dtype=F64) + c


def scalar_safe(function: Callable[[Threads], Array]) -> Callable[[Threads], Array]:
    """Make a reader return an array even of an immediate operand."""

    def read(t: Threads) -> Array:
        value = function(t)
        return value if value.ndim else t.constant(value)

    return read
