"""Integer arithmetic, logic and bit fields against Python's unbounded integers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from snippets import Array, compute

CORNERS = [
    0,
    1,
    2,
    3,
    7,
    31,
    32,
    33,
    0x7FFFFFFF,
    0x80000000,
    0x80000001,
    0xFFFFFFFF,
    0xFFFFFFFE,
    0x12345678,
    0xDEADBEEF,
]


def _pairs(dtype: str) -> tuple[Array, Array]:
    random = np.random.default_rng(0).integers(0, 2**64, 40, np.uint64)
    values = np.concatenate([np.array(CORNERS, np.uint64), random]).astype(f"u{np.dtype(dtype).itemsize}").view(dtype)
    return np.repeat(values, 3)[: 3 * len(values)], np.resize(np.roll(values, 5), 3 * len(values))


def _wrap(value: int, dtype: str) -> int:
    bits = 8 * np.dtype(dtype).itemsize
    value %= 1 << bits
    return value - (1 << bits) if np.dtype(dtype).kind == "i" and value >> (bits - 1) else value


def _towards_zero(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


BINARY: dict[str, tuple[str, Callable[[int, int], int]]] = {
    "add.s32": ("i4", lambda a, b: a + b),
    "add.u64": ("u8", lambda a, b: a + b),
    "add.u16": ("u2", lambda a, b: a + b),
    "add.sat.s32": ("i4", lambda a, b: max(-(2**31), min(2**31 - 1, a + b))),
    "sub.u32": ("u4", lambda a, b: a - b),
    "sub.s64": ("i8", lambda a, b: a - b),
    "mul.lo.s32": ("i4", lambda a, b: a * b),
    "mul.lo.u64": ("u8", lambda a, b: a * b),
    "mul.hi.u32": ("u4", lambda a, b: a * b >> 32),
    "mul.hi.s32": ("i4", lambda a, b: a * b >> 32),
    "mul.hi.u64": ("u8", lambda a, b: a * b >> 64),
    "mul.hi.s64": ("i8", lambda a, b: a * b >> 64),
    "mul24.lo.u32": ("u4", lambda a, b: (a & 0xFFFFFF) * (b & 0xFFFFFF)),
    "min.s32": ("i4", min),
    "max.u32": ("u4", max),
    "max.s64": ("i8", max),
    "and.b32": ("u4", lambda a, b: a & b),
    "or.b64": ("u8", lambda a, b: a | b),
    "xor.b16": ("u2", lambda a, b: a ^ b),
}


@pytest.mark.parametrize("name", BINARY)
def test_two_operands(name: str) -> None:
    dtype, expected = BINARY[name]
    a, b = _pairs(dtype)
    result = compute(f"{name} %d0, %x0, %x1;", dtype, a, b)
    assert result.tolist() == [_wrap(expected(x, y), dtype) for x, y in zip(a.tolist(), b.tolist(), strict=True)]


@pytest.mark.parametrize(("kind", "dtype"), [("s32", "i4"), ("u32", "u4"), ("s64", "i8"), ("u64", "u8")])
def test_division_truncates(kind: str, dtype: str) -> None:
    a, b = _pairs(dtype)
    b = np.where(b == 0, b.dtype.type(5), b)
    quotient, remainder = compute(f"div.{kind} %d0, %x0, %x1; rem.{kind} %d1, %x0, %x1;", [dtype, dtype], a, b)
    for x, y, q, r in zip(a.tolist(), b.tolist(), quotient.tolist(), remainder.tolist(), strict=True):
        assert q == _wrap(_towards_zero(x, y), dtype)
        assert r == x - _towards_zero(x, y) * y


@pytest.mark.parametrize(
    ("kind", "dtype", "wide"), [("s32", "i4", "i8"), ("u32", "u4", "u8"), ("u16", "u2", "u4"), ("s16", "i2", "i4")]
)
def test_wide_products(kind: str, dtype: str, wide: str) -> None:
    a, b = _pairs(dtype)
    product, total = compute(f"mul.wide.{kind} %d0, %x0, %x1; mad.wide.{kind} %d1, %x0, %x1, %d0;", [wide, wide], a, b)
    exact = [x * y for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert product.tolist() == exact
    assert total.tolist() == [_wrap(2 * x, wide) for x in exact]


def test_neg_abs_not() -> None:
    a, _ = _pairs("i4")
    negative, absolute, inverse = compute("neg.s32 %d0, %x0; abs.s32 %d1, %x0; not.b32 %d2, %x0;", ["i4"] * 3, a)
    assert negative.tolist() == [_wrap(-x, "i4") for x in a.tolist()]
    assert absolute.tolist() == [_wrap(abs(x), "i4") for x in a.tolist()]
    assert inverse.tolist() == [~x for x in a.tolist()]


@pytest.mark.parametrize(
    ("name", "dtype"), [("shl.b32", "u4"), ("shr.u32", "u4"), ("shr.s32", "i4"), ("shl.b64", "u8"), ("shr.s64", "i8")]
)
@pytest.mark.parametrize("constant", [None, 0, 5, 31, 40, 70])
def test_shifts_of_any_amount(name: str, dtype: str, constant: int | None) -> None:
    a, _ = _pairs(dtype)
    amounts = np.resize(np.array([0, 1, 5, 31, 32, 33, 63, 64, 255], np.uint32), len(a))
    by = "%x1" if constant is None else str(constant)
    result = compute(f"{name} %d0, %x0, {by};", dtype, a, amounts)
    for x, n, r in zip(a.tolist(), amounts.tolist(), result.tolist(), strict=True):
        n = n if constant is None else constant
        assert r == _wrap(x << n if "shl" in name else x >> n, dtype)


def test_funnel_shifts() -> None:
    low, high = _pairs("u4")
    by = np.resize(np.array([0, 1, 16, 31, 32, 33, 40], np.uint32), len(low))
    left, right = compute(
        "shf.l.wrap.b32 %d0, %x0, %x1, %x2; shf.r.clamp.b32 %d1, %x0, %x1, %x2;", ["u4", "u4"], low, high, by
    )
    for lo, hi, n, first, second in zip(*(x.tolist() for x in (low, high, by, left, right)), strict=True):
        both = hi << 32 | lo
        assert first == (both << (n & 31)) >> 32 & 0xFFFFFFFF
        assert second == both >> min(n, 32) & 0xFFFFFFFF


@pytest.mark.parametrize("table", [0xE8, 0x96, 0x00, 0xFF, 0x1B, 0xCA])
def test_lop3(table: int) -> None:
    a, b = _pairs("u4")
    c = np.roll(a, 7)
    result = compute(f"lop3.b32 %d0, %x0, %x1, %x2, {table};", "u4", a, b, c)
    for x, y, z, r in zip(*(v.tolist() for v in (a, b, c, result)), strict=True):
        assert all(r >> n & 1 == table >> (4 * (x >> n & 1) + 2 * (y >> n & 1) + (z >> n & 1)) & 1 for n in range(32))


@pytest.mark.parametrize(("kind", "dtype"), [("u32", "u4"), ("s32", "i4"), ("u64", "u8"), ("s64", "i8")])
def test_bit_field_extract(kind: str, dtype: str) -> None:
    bits = 8 * np.dtype(dtype).itemsize
    a, _ = _pairs(dtype)
    begin = np.resize(np.array([0, 3, 8, 20, 31, 40, 63], np.uint32), len(a))
    length = np.resize(np.array([0, 1, 8, 16, 32, 64, 5, 33], np.uint32), len(a))
    result = compute(f"bfe.{kind} %d0, %x0, %x1, %x2;", dtype, a, begin, length)
    for x, position, n, r in zip(*(v.tolist() for v in (a, begin, length, result)), strict=True):
        # the manual's definition: bits beyond the value or the field are the sign bit
        x %= 1 << bits
        sign_at = min(position + n - 1, bits - 1)
        sign = 0 if kind[0] == "u" or n == 0 else x >> sign_at & 1
        field = [x >> (position + i) & 1 if i < n and position + i < bits else sign for i in range(bits)]
        assert r == _wrap(sum(bit << i for i, bit in enumerate(field)), dtype)


def test_bit_field_insert() -> None:
    a, b = _pairs("u4")
    begin = np.resize(np.array([0, 3, 8, 20, 31], np.uint32), len(a))
    length = np.resize(np.array([0, 1, 8, 16, 32, 5, 33], np.uint32), len(a))
    result = compute("bfi.b32 %d0, %x0, %x1, %x2, %x3;", "u4", a, b, begin, length)
    for x, y, position, n, r in zip(*(v.tolist() for v in (a, b, begin, length, result)), strict=True):
        for i in range(32):
            assert r >> i & 1 == (x >> (i - position) & 1 if position <= i < position + n else y >> i & 1)


def test_permutation_of_bytes() -> None:
    a, b = _pairs("u4")
    selector = np.resize(np.array([0x3210, 0x7654, 0x5410, 0x7632, 0xBA98, 0x0000, 0xFDB9], np.uint32), len(a))
    result = compute("prmt.b32 %d0, %x0, %x1, %x2;", "u4", a, b, selector)
    for x, y, s, r in zip(*(v.tolist() for v in (a, b, selector, result)), strict=True):
        source = list(x.to_bytes(4, "little") + y.to_bytes(4, "little"))
        for i in range(4):
            control = s >> (4 * i) & 15
            byte = source[control & 7]
            assert r >> (8 * i) & 255 == (255 * (byte >> 7) if control & 8 else byte)


def test_counting_and_reversing() -> None:
    a, _ = _pairs("u8")
    zeros, ones, top = compute("clz.b64 %d0, %x0; popc.b64 %d1, %x0; bfind.u64 %d2, %x0;", ["u4"] * 3, a)
    assert zeros.tolist() == [64 - x.bit_length() for x in a.tolist()]
    assert ones.tolist() == [x.bit_count() for x in a.tolist()]
    assert top.tolist() == [(x.bit_length() - 1) % 2**32 for x in a.tolist()]
    reverse = compute("brev.b64 %d0, %x0;", "u8", a)
    assert reverse.tolist() == [int(f"{x:064b}"[::-1], 2) for x in a.tolist()]
