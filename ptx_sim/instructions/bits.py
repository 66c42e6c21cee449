"""Logic, shifts, bit fields and permutations."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptx_sim.decoding import Decoding, Execute, instruction
from ptx_sim.instructions.elementwise import elementwise
from ptx_sim.syntax import Immediate, integer
from ptx_sim.types import DTYPES, UNSIGNED, Array, is_signed, size_of

U32, U64 = np.uint32, np.uint64


@instruction("and", "or", "xor")
def _(d: Decoding) -> Execute:
    kind = d.type()
    function = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}[d.opcode]
    return elementwise(d, kind, [kind, kind], function)


@instruction("not")
def _(d: Decoding) -> Execute:
    kind = d.type()
    return elementwise(d, kind, [kind], np.invert)


@instruction("cnot")
def _(d: Decoding) -> Execute:
    kind = d.type()
    return elementwise(d, kind, [kind], lambda a: (a == 0).astype(DTYPES[kind]))


@instruction("lop3")
def _(d: Decoding) -> Execute:
    kind = d.type()
    table = d.operand(4)
    if not isinstance(table, Immediate) or len(d.operands) != 5:
        raise d.unsupported("four operands and a constant table are expected")
    rows = [row for row in range(8) if integer(table.text) >> row & 1]

    def function(a: Any, b: Any, c: Any) -> Any:
        result = a & ~a
        for row in rows:
            result = result | ((a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c))
        return result

    d.operands = d.operands[:4]
    return elementwise(d, kind, [kind] * 3, function)


def _shift(value: Any, amount: Any, left: bool) -> Array:
    """Shift; amounts beyond the width shift everything out."""
    bits = value.dtype.itemsize * 8
    dtype = value.dtype
    shifted = amount >= bits
    safe = np.where(shifted, 0, amount).astype(dtype)
    result = value << safe if left else value >> safe
    rest = value >> dtype.type(bits - 1) if dtype.kind == "i" and not left else dtype.type(0)
    return np.where(shifted, rest, result)


@instruction("shl", "shr")
def _(d: Decoding) -> Execute:
    kind, left = d.type(), d.opcode == "shl"
    amount = d.operand(2)
    if isinstance(amount, Immediate) and 0 <= integer(amount.text) < 8 * size_of(kind):
        by = DTYPES[kind].type(integer(amount.text))
        d.operands = d.operands[:2]
        return elementwise(d, kind, [kind], (lambda a: a << by) if left else (lambda a: a >> by))
    return elementwise(d, kind, [kind, "u32"], lambda a, n: _shift(a, n, left))


@instruction("shf")
def _(d: Decoding) -> Execute:
    kind, left, wrap = d.type(), d.choice("l", "r") == "l", d.choice("clamp", "wrap") == "wrap"

    def function(low: Any, high: Any, amount: Any) -> Any:
        both = np.asarray(low).astype(U64) | (np.asarray(high).astype(U64) << U64(32))
        by = (amount & U32(31) if wrap else np.minimum(amount, U32(32))).astype(U64)
        return ((both << by) >> U64(32) if left else both >> by).astype(U32)

    return elementwise(d, kind, ["u32", "u32", "u32"], function)


@instruction("bfe")
def _(d: Decoding) -> Execute:
    kind = d.type()
    bits, unsigned = 8 * size_of(kind), UNSIGNED[size_of(kind)]

    def function(value: Any, begin: Any, length: Any) -> Any:
        begin, length = (np.asarray(v & U32(255)).astype(np.int64) for v in (begin, length))
        if is_signed(kind):
            # the sign bit is that of the field, or of the value if the field passes its end
            top = np.minimum(begin + length, bits)
            up = (bits - np.clip(top, 1, bits)).astype(unsigned)
            moved = (value.view(unsigned) << up).view(DTYPES[kind])
            width = np.clip(top - np.minimum(begin, bits - 1), 1, bits)
            field = moved >> (bits - width).astype(DTYPES[kind])
            return np.where(length == 0, DTYPES[kind].type(0), field)
        moved = _shift(value, begin.astype(unsigned), False)
        mask = np.where(length >= bits, ~unsigned.type(0), _shift(unsigned.type(1), length, True) - unsigned.type(1))
        return moved & mask.astype(unsigned)

    return elementwise(d, kind, [kind, "u32", "u32"], function)


@instruction("bfi")
def _(d: Decoding) -> Execute:
    kind = d.type()
    dtype = DTYPES[kind]

    def function(field: Any, value: Any, begin: Any, length: Any) -> Any:
        begin, length = np.asarray(begin & U32(255)), np.asarray(length & U32(255))
        ones = _shift(dtype.type(1), length, True) - dtype.type(1)
        mask = _shift(np.asarray(ones).astype(dtype), begin, True)
        return (value & ~mask) | (_shift(np.asarray(field), begin, True) & mask)

    return elementwise(d, kind, [kind, kind, "u32", "u32"], function)


@instruction("prmt")
def _(d: Decoding) -> Execute:
    kind = d.type()
    if d.modifiers:
        raise d.unsupported("only the plain mode of prmt is modelled")

    def function(low: Any, high: Any, selector: Any) -> Any:
        both = np.asarray(low).astype(U64) | (np.asarray(high).astype(U64) << U64(32))
        result: Any = U32(0)
        for byte in range(4):
            control = np.asarray((selector >> U32(4 * byte)) & U32(15)).astype(U64)
            chosen = ((both >> ((control & U64(7)) * U64(8))) & U64(255)).astype(U32)
            sign = np.where(chosen & U32(128), U32(255), U32(0))
            result = result | (np.where(control & U64(8), sign, chosen) << U32(8 * byte))
        return result

    return elementwise(d, kind, ["u32", "u32", "u32"], function)


def _leading_zeros(value: Array) -> Array:
    bits = 8 * value.dtype.itemsize
    spread = value
    for by in (1, 2, 4, 8, 16, 32):
        if by < bits:
            spread = spread | (spread >> value.dtype.type(by))
    return (bits - np.bitwise_count(spread).astype(np.int64)).astype(U32)


@instruction("clz")
def _(d: Decoding) -> Execute:
    kind = d.type()
    return elementwise(d, "u32", [kind], _leading_zeros)


@instruction("popc")
def _(d: Decoding) -> Execute:
    kind = d.type()
    return elementwise(d, "u32", [kind], lambda a: np.bitwise_count(a).astype(U32))


@instruction("bfind")
def _(d: Decoding) -> Execute:
    kind, amount = d.type(), d.flag("shiftamt")
    if is_signed(kind):
        raise d.unsupported("bfind of signed integers")
    bits = 8 * size_of(kind)

    def function(value: Array) -> Array:
        zeros = _leading_zeros(value)
        place = zeros if amount else U32(bits - 1) - zeros
        return np.where(value == 0, U32(0xFFFFFFFF), place)

    return elementwise(d, "u32", [kind], function)


@instruction("brev")
def _(d: Decoding) -> Execute:
    kind = d.type()
    size, dtype = size_of(kind), DTYPES[kind]

    def function(value: Array) -> Array:
        bits = np.unpackbits(np.ascontiguousarray(value).view(np.uint8).reshape(-1, size), 1, bitorder="little")
        return np.packbits(bits[:, ::-1], 1, bitorder="little").reshape(-1).view(dtype)

    return elementwise(d, kind, [kind], function)
