"""setp, set, selp and slct."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ptx_sim.decoding import Decoding, Execute, instruction
from ptx_sim.instructions.elementwise import elementwise
from ptx_sim.number_formats import F16, F32, flush, from_bf16
from ptx_sim.syntax import Negated
from ptx_sim.threads import Threads
from ptx_sim.types import DTYPES, is_float

_ORDERED: dict[str, Callable[[Any, Any], Any]] = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal,
}  # fmt: skip
_FLOATS = ("f16", "bf16", "f32", "f64")


def _either_nan(a: Any, b: Any) -> Any:
    return np.isnan(a) | np.isnan(b)


def _float_comparison(name: str) -> Callable[[Any, Any], Any]:
    if name in ("num", "nan"):
        return _either_nan if name == "nan" else lambda a, b: ~_either_nan(a, b)
    if name.endswith("u"):
        ordered = _ORDERED[name[:-1]]
        return lambda a, b: ordered(a, b) | _either_nan(a, b)
    ordered = _ORDERED[name]
    # numpy's != holds for NaN
    return (lambda a, b: ordered(a, b) & ~_either_nan(a, b)) if name == "ne" else ordered


def _comparison(d: Decoding, kind: str) -> Callable[[Any, Any], Any]:
    names = (*_ORDERED, *(f"{n}u" for n in ("eq", "ne", "lt", "le", "gt", "ge")), "num", "nan")
    name, ftz = d.choice(*names), d.flag("ftz")
    if not name or (name not in _ORDERED and kind not in _FLOATS):
        raise d.unsupported("no comparison that is modelled")
    if kind not in _FLOATS:
        return _ORDERED[name]
    compare = _float_comparison(name)
    if kind == "bf16":
        return lambda a, b: compare(from_bf16(a), from_bf16(b))
    return (lambda a, b: compare(flush(a), flush(b))) if ftz else compare


_JOIN: dict[str, Any] = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}


@instruction("setp")
def _(d: Decoding) -> Execute:
    kind = d.type()
    packed = kind if kind.endswith("x2") else ""
    if packed:
        return _packed_setp(d, packed)
    compare, join = _comparison(d, kind), d.choice("and", "or", "xor")
    first, second = d.pair(0)
    a, b = d.source(1, kind), d.source(2, kind)
    write = d.destination(first, "pred")
    if not join and second is None:
        d.operands = (first, *d.operands[1:])
        return elementwise(d, "pred", [kind, kind], compare)
    other = d.destination(second, "pred") if second is not None else None
    with_ = d.source(3, "pred") if join else None

    def execute(t: Threads) -> None:
        result = compare(a(t), b(t)) & np.ones(t.count, bool)
        negated = ~result
        if with_ is not None:
            joined = with_(t)
            result, negated = _JOIN[join](result, joined), _JOIN[join](negated, joined)
        write(t, result)
        if other is not None:
            other(t, negated)

    return execute


def _packed_setp(d: Decoding, kind: str) -> Execute:
    half = "f16" if kind == "f16x2" else "bf16"
    compare = _comparison(d, half)
    first, second = d.pair(0)
    if second is None or len(d.operands) != 3:
        raise d.unsupported("a packed comparison has two destinations and two sources")
    a, b = d.source(1, kind), d.source(2, kind)
    low, high = d.destination(first, "pred"), d.destination(second, "pred")
    dtype = DTYPES[half]

    def execute(t: Threads) -> None:
        both = compare(np.atleast_1d(a(t)).view(dtype), np.atleast_1d(b(t)).view(dtype)).reshape(-1, 2)
        both = np.broadcast_to(both, (t.count, 2))
        low(t, np.ascontiguousarray(both[:, 0]))
        high(t, np.ascontiguousarray(both[:, 1]))

    return execute


@instruction("set")
def _(d: Decoding) -> Execute:
    result = d.type()
    kind = d.type()
    if result.endswith("x2") or kind.endswith("x2"):
        half = "f16" if kind == "f16x2" else "bf16"
        compare = _comparison(d, half)
        ones = np.uint16(0xFFFF if result not in ("f16x2", "bf16x2") else 0x3C00 if result == "f16x2" else 0x3F80)

        def packed(a: Any, b: Any) -> Any:
            both = compare(np.atleast_1d(a).view(DTYPES[half]), np.atleast_1d(b).view(DTYPES[half]))
            return np.where(both, ones, np.uint16(0)).view(np.uint32)

        return elementwise(d, "b32", [kind, kind], packed)
    compare = _comparison(d, kind)
    dtype = DTYPES[result]
    one: Any = F16(1) if result == "f16" else F32(1) if is_float(result) else dtype.type(0) - dtype.type(1)
    return elementwise(d, result, [kind, kind], lambda a, b: np.where(compare(a, b), one, dtype.type(0)).astype(dtype))


@instruction("selp")
def _(d: Decoding) -> Execute:
    kind = d.type()
    dtype = DTYPES[kind]
    if isinstance(d.operand(3), Negated):
        raise d.unsupported("a negated predicate operand")
    return elementwise(d, kind, [kind, kind, "pred"], lambda a, b, p: np.where(p, a, b).astype(dtype, copy=False))


@instruction("slct")
def _(d: Decoding) -> Execute:
    kind = d.type()
    control, ftz = d.type(), d.flag("ftz")
    return elementwise(
        d,
        kind,
        [kind, kind, control],
        lambda a, b, c: np.where((flush(c) if ftz else c) >= 0, a, b).astype(DTYPES[kind]),
    )
