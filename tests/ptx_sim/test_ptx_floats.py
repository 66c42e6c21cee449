"""Floating-point arithmetic against float64, rounded once; comparisons and selections with NaN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from snippets import Array, compute

F64 = np.float64
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, 3.0, np.inf, -np.inf, np.nan, 1e-3, -77.25, 1000.5]
FORMATS = {"f16": np.dtype("f2"), "bf16": np.dtype(ml_dtypes.bfloat16), "f32": np.dtype("f4"), "f64": np.dtype("f8")}


def _operands(kind: str, count: int) -> list[Array]:
    generator = np.random.default_rng(1)
    values = [np.concatenate([np.roll(SPECIAL, 5 * n), generator.normal(size=116) * 4]) for n in range(count)]
    with np.errstate(all="ignore"):
        return [v.astype(FORMATS[kind]) for v in values]


def _bits(values: Array) -> Array:
    return values.view("u2") if values.itemsize == 2 else values


def _run(instruction: str, kind: str, operands: list[Array]) -> Array:
    names = ", ".join(f"%x{n}" for n in range(len(operands)))
    result: Array = compute(f"{instruction} %d0, {names};", "u2" if kind in ("f16", "bf16") else FORMATS[kind].str[1:],
                     *(_bits(o) for o in operands))  # fmt: skip
    return result.view(FORMATS[kind]) if kind in ("f16", "bf16") else result


ARITHMETIC: dict[str, tuple[int, Callable[..., Any]]] = {
    "add": (2, lambda a, b: a + b),
    "sub": (2, lambda a, b: a - b),
    "mul": (2, lambda a, b: a * b),
    "fma.rn": (3, lambda a, b, c: a * b + c),
    "neg": (1, lambda a: -a),
    "abs": (1, np.abs),
    "min": (2, np.fmin),
    "max": (2, np.fmax),
    "min.NaN": (2, np.minimum),
    "max.NaN": (2, np.maximum),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic_rounds_once(name: str, kind: str) -> None:
    count, function = ARITHMETIC[name]
    operands = _operands(kind, count)
    with np.errstate(all="ignore"):
        expected = function(*(o.astype(F64) for o in operands)).astype(FORMATS[kind])
    result = _run(f"{name}.{kind}", kind, operands)
    np.testing.assert_array_equal(result.astype(F64), expected.astype(F64))


@pytest.mark.parametrize("kind", ["f16", "bf16"])
@pytest.mark.parametrize("name", ["add", "mul", "fma.rn", "max.NaN", "min", "neg", "abs"])
def test_packed_is_two_halves(name: str, kind: str) -> None:
    count, function = ARITHMETIC[name]
    operands = _operands(kind, count)
    names = ", ".join(f"%x{n}" for n in range(count))
    packed = compute(f"{name}.{kind}x2 %d0, {names};", "u4", *(o.view("u4") for o in operands))
    with np.errstate(all="ignore"):
        expected = function(*(o.astype(F64) for o in operands)).astype(FORMATS[kind])
    np.testing.assert_array_equal(packed.view(FORMATS[kind]).astype(F64), expected.astype(F64))


@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_division_roots_and_reciprocals(kind: str) -> None:
    a, b = _operands(kind, 2)
    for instruction, operands, function in (
        ("div.rn", [a, b], lambda x, y: x / y),
        ("sqrt.rn", [a], np.sqrt),
        ("rcp.rn", [a], lambda x: 1 / x),
    ):
        with np.errstate(all="ignore"):
            expected = function(*(o.astype(F64) for o in operands)).astype(FORMATS[kind])
        np.testing.assert_array_equal(_run(f"{instruction}.{kind}", kind, operands), expected)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("ex2", np.exp2),
        ("lg2", np.log2),
        ("rcp", lambda x: 1 / x),
        ("rsqrt", lambda x: 1 / np.sqrt(x)),
        ("sqrt", np.sqrt),
    ],
)
def test_approximations(name: str, function: Callable[[Any], Any]) -> None:
    (a,) = _operands("f32", 1)
    with np.errstate(all="ignore"):
        expected = function(a.astype(F64)).astype(np.float32)
    result = _run(f"{name}.approx.f32", "f32", [a])
    # the manual allows 2 units in the last place and more; the first two are zeros
    np.testing.assert_allclose(result[2:], expected[2:], rtol=2.0**-21, atol=2.0**-21)


def test_ftz_flushes_operands_and_results() -> None:
    tiny = np.array([1e-40, -1e-40, 2.0**-126, 1.0], np.float32)
    kept = compute("mul.f32 %d0, %x0, 0f3F800000;", "f4", tiny)
    np.testing.assert_array_equal(kept, tiny)
    flushed = compute("mul.ftz.f32 %d0, %x0, 0f3F800000;", "f4", tiny)
    np.testing.assert_array_equal(flushed, np.array([0, 0, 2.0**-126, 1], np.float32))
    result = compute("mul.ftz.f32 %d0, %x0, 0f3F000000;", "f4", tiny)
    np.testing.assert_array_equal(result, np.array([0, 0, 0, 0.5], np.float32))


def test_directed_rounding() -> None:
    a = np.array([1.0, -1.0, 1.0, -1.0], np.float32)
    b = np.array([2.0**-30, 2.0**-30, -(2.0**-30), -(2.0**-30)], np.float32)
    up, down = np.nextafter(np.float32(1), np.float32(2)), np.nextafter(np.float32(1), np.float32(0))
    assert compute("add.rz.f32 %d0, %x0, %x1;", "f4", a, b).tolist() == [1.0, -down, down, -1.0]
    assert compute("add.rm.f32 %d0, %x0, %x1;", "f4", a, b).tolist() == [1.0, -1.0, down, -up]
    assert compute("add.rp.f32 %d0, %x0, %x1;", "f4", a, b).tolist() == [up, -down, 1.0, -1.0]
    assert compute("fma.rn.sat.f32 %d0, %x0, %x1, %x0;", "f4", a, b).tolist() == [1.0, 0.0, 1.0, 0.0]


def test_relu_keeps_nan() -> None:
    a = np.array([-1.0, 2.0, np.nan, -0.5], np.float16)
    one, zero = np.ones(4, np.float16), np.zeros(4, np.float16)
    result = compute("fma.rn.relu.f16 %d0, %x0, %x1, %x2;", "u2", *(x.view("u2") for x in (a, one, zero))).view("f2")
    np.testing.assert_array_equal(result, np.array([0, 2, np.nan, 0], np.float16))


COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: (a != b) & ~np.isnan(a) & ~np.isnan(b),
    "lt": lambda a, b: a < b,
    "ge": lambda a, b: a >= b,
    "neu": lambda a, b: a != b,
    "leu": lambda a, b: ~(a > b),
    "gtu": lambda a, b: ~(a <= b),
    "equ": lambda a, b: (a == b) | np.isnan(a) | np.isnan(b),
    "num": lambda a, b: ~np.isnan(a) & ~np.isnan(b),
    "nan": lambda a, b: np.isnan(a) | np.isnan(b),
}


@pytest.mark.parametrize("name", COMPARISONS)
@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
def test_comparisons_with_nan(name: str, kind: str) -> None:
    a, b = _operands(kind, 2)
    b = np.where(np.arange(len(a)) % 4 == 0, a, b).astype(FORMATS[kind])
    result = compute(f"setp.{name}.{kind} %p1, %x0, %x1; selp.u32 %d0, 1, 0, %p1;", "u4", _bits(a), _bits(b))
    assert result.astype(bool).tolist() == COMPARISONS[name](a.astype(F64), b.astype(F64)).tolist()


def test_comparison_joined_with_a_predicate() -> None:
    a = np.array([1, 2, 3, 4], np.int32)
    body = """setp.gt.s32 %p1, %x0, 1;
setp.lt.and.s32 %p2|%p3, %x0, 4, %p1;
selp.u32 %d0, 1, 0, %p2; selp.u32 %d1, 1, 0, %p3;"""
    both, other = compute(body, ["u4", "u4"], a)
    assert both.tolist() == [0, 1, 1, 0]
    assert other.tolist() == [0, 0, 0, 1]


def test_packed_comparison() -> None:
    a = np.array([1, 5, 3, 2], np.float16).view("u4")
    b = np.array([2, 4, 3, 9], np.float16).view("u4")
    low, high = compute(
        "setp.lt.f16x2 %p1|%p2, %x0, %x1; selp.u32 %d0,1,0,%p1; selp.u32 %d1,1,0,%p2;", ["u4", "u4"], a, b
    )
    assert (low.tolist(), high.tolist()) == ([1, 0], [0, 1])


def test_integer_comparisons_are_signed_or_not() -> None:
    a, b = np.array([-1, 5], np.int32), np.array([1, 5], np.int32)
    signed = compute("setp.lt.s32 %p1, %x0, %x1; selp.u32 %d0, 1, 0, %p1;", "u4", a, b)
    unsigned = compute("setp.lo.u32 %p1, %x0, %x1; selp.u32 %d0, 1, 0, %p1;", "u4", a, b)
    assert (signed.tolist(), unsigned.tolist()) == ([1, 0], [0, 0])
