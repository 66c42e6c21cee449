"""cvt and mov between types, against ml_dtypes and numpy."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from snippets import Array, compute

VALUES = np.concatenate(
    [
        [
            0.0,
            -0.0,
            1.0,
            0.5,
            1.5,
            2.5,
            -0.5,
            -1.5,
            447.0,
            448.0,
            464.0,
            465.0,
            1e-3,
            2.0**-9,
            2.0**-10,
            57344.0,
            61441.0,
        ],
        [65504.0, 65520.0, 3e38, np.inf, -np.inf, np.nan, -7.9, 2147483648.0, -2147483648.0, 4294967296.0, 1e10],
        np.random.default_rng(0).normal(size=68) * 20,
        np.random.default_rng(1).normal(size=64) * 0.02,
    ]
).astype(np.float32)
HALVES = {"f16": np.dtype("f2"), "bf16": np.dtype(ml_dtypes.bfloat16)}
BYTES = {"e4m3": np.dtype(ml_dtypes.float8_e4m3fn), "e5m2": np.dtype(ml_dtypes.float8_e5m2)}


def _same(result: Array, expected: Array) -> None:
    np.testing.assert_array_equal(result.astype(np.float64), expected.astype(np.float64))


@pytest.mark.parametrize("kind", HALVES)
def test_narrowing_rounds_to_nearest_even(kind: str) -> None:
    single = compute(f"cvt.rn.{kind}.f32 %d0, %x0;", "u2", VALUES).view(HALVES[kind])
    with np.errstate(all="ignore"):
        expected = VALUES.astype(HALVES[kind])
    _same(single, expected)
    # the first operand is the upper half
    packed = compute(f"cvt.rn.{kind}x2.f32 %d0, %x0, %x1;", "u4", np.roll(VALUES, 1), VALUES).view(HALVES[kind])
    _same(packed[0::2], expected)
    _same(packed[1::2], np.roll(expected, 1))
    relu = compute(f"cvt.rn.relu.{kind}x2.f32 %d0, %x0, %x0;", "u4", VALUES).view(HALVES[kind])[::2]
    _same(relu, np.maximum(expected, HALVES[kind].type(0)))


@pytest.mark.parametrize("kind", HALVES)
def test_widening_and_rounding_towards_zero(kind: str) -> None:
    with np.errstate(all="ignore"):
        halves = VALUES.astype(HALVES[kind])
    _same(compute(f"cvt.f32.{kind} %d0, %x0;", "f4", halves.view("u2")), halves)
    cut = compute(f"cvt.rz.{kind}.f32 %d0, %x0;", "u2", VALUES).view(HALVES[kind]).astype(np.float64)
    wide, nearest = VALUES.astype(np.float64), halves.astype(np.float64)
    usual = np.flatnonzero(np.abs(wide) < 60000)
    assert (np.abs(cut) <= np.abs(wide))[usual].all()
    above = np.nextafter(np.abs(halves[usual]), HALVES[kind].type(np.inf)).astype(np.float64)
    assert (np.abs(wide[usual]) < above).all()
    assert (np.abs(cut[usual] - wide[usual]) <= above - np.abs(nearest[usual])).all()


@pytest.mark.parametrize("kind", BYTES)
def test_eight_bits_saturate(kind: str) -> None:
    largest = float(ml_dtypes.finfo(BYTES[kind]).max)
    expected = np.clip(VALUES, -largest, largest).astype(BYTES[kind])
    packed = compute(f"cvt.rn.satfinite.{kind}x2.f32 %d0, %x0, %x1;", "u2", np.roll(VALUES, 1), VALUES).view("u1")
    _same(packed[0::2].view(BYTES[kind]), expected)
    _same(packed[1::2].view(BYTES[kind]), np.roll(expected, 1))
    codes = np.arange(256, dtype=np.uint16)
    both = compute(f"cvt.rn.f16x2.{kind}x2 %d0, %x0;", "u4", codes | (codes[::-1] << np.uint16(8))).view("f2")
    _same(both[0::2], codes.astype(np.uint8).view(BYTES[kind]))
    _same(both[1::2], codes[::-1].astype(np.uint8).view(BYTES[kind]))


def test_tf32_has_ten_bits() -> None:
    result = compute("cvt.rna.tf32.f32 %d0, %x0;", "u4", VALUES[:20])
    assert not (result & 0x1FFF).any()
    wide = result.view(np.float32).astype(np.float64)
    assert (np.abs(wide - VALUES[:20]) <= np.abs(VALUES[:20]) * 2.0**-11).all()


@pytest.mark.parametrize(
    ("rounding", "function"), [("rni", np.rint), ("rzi", np.trunc), ("rmi", np.floor), ("rpi", np.ceil)]
)
def test_to_integers_saturates(rounding: str, function: np.ufunc) -> None:
    values = VALUES[~np.isnan(VALUES)]
    signed, unsigned = compute(
        f"cvt.{rounding}.s32.f32 %d0, %x0; cvt.{rounding}.u32.f32 %d1, %x0;", ["i4", "u4"], values
    )
    exact = function(values.astype(np.float64))
    assert signed.tolist() == np.clip(exact, -(2.0**31), 2.0**31 - 1).astype(np.int64).tolist()
    assert unsigned.tolist() == np.clip(exact, 0, 2.0**32 - 1).astype(np.int64).tolist()
    assert compute("cvt.rzi.s32.f32 %d0, %x0;", "i4", np.full(1, np.nan, np.float32)).tolist() == [0]
    _same(compute(f"cvt.{rounding}.f32.f32 %d0, %x0;", "f4", values), exact)


def test_from_integers() -> None:
    values = np.array([0, 1, -1, 16777217, -(2**31), 2**31 - 1], np.int32)
    _same(compute("cvt.rn.f32.s32 %d0, %x0;", "f4", values), values.astype(np.float32))
    _same(compute("cvt.rn.f32.u32 %d0, %x0;", "f4", values.view("u4")), values.view("u4").astype(np.float32))
    small = np.array([3, -5, 2047, 2049], np.int32)
    _same(compute("cvt.rn.f16.s32 %d0, %x0;", "u2", small).view("f2"), small.astype(np.float16))
    _same(compute("cvt.rn.f64.s64 %d0, %x0;", "f8", values.astype(np.int64)), values)


def test_integers_extend_and_truncate() -> None:
    values = np.array([-1, 5, -300, 70000], np.int32)
    assert compute("cvt.s64.s32 %d0, %x0;", "i8", values).tolist() == values.tolist()
    assert compute("cvt.u64.u32 %d0, %x0;", "u8", values.view("u4")).tolist() == values.view("u4").tolist()
    assert (
        compute("cvt.u32.u64 %d0, %x0;", "u4", values.astype(np.int64).view("u8")).tolist()
        == values.view("u4").tolist()
    )
    assert compute("cvt.s16.s32 %d0, %x0;", "i2", values).tolist() == values.astype(np.int16).tolist()
    assert compute("cvt.u8.u32 %d0, %x0;", "u1", values.view("u4")).tolist() == values.astype(np.uint8).tolist()
    assert compute("cvt.s32.s8 %d0, %x0;", "i4", values).tolist() == values.astype(np.int8).tolist()
    assert compute("cvt.sat.u8.s32 %d0, %x0;", "u1", values).tolist() == [0, 5, 0, 255]


def test_moves_pack_and_unpack() -> None:
    low, high = np.array([1, 0xFFFF], np.uint16), np.array([2, 0x8000], np.uint16)
    packed = compute("mov.b32 %d0, {%x0, %x1};", "u4", low, high)
    assert packed.tolist() == [0x20001, 0x8000FFFF]
    first, second = compute("mov.b32 {%d0, %d1}, %x0;", ["u2", "u2"], packed)
    assert (first.tolist(), second.tolist()) == (low.tolist(), high.tolist())
    wide = compute("mov.b64 %rd9, {%x0, 7}; mov.b64 {_, %r9}, %rd9; mov.u32 %d0, %r9;", "u4", packed)
    assert wide.tolist() == [7, 7]
