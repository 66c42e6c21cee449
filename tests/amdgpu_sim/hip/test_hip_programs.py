"""HIP C++ programs with their host code, built by clang, executed on every simulated target."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import amdgpu_sim

pytestmark = pytest.mark.hip
TARGETS = list(amdgpu_sim.TARGETS)
Array = np.ndarray[Any, Any]
Load = Callable[..., ctypes.CDLL]


def pointer(array: Array | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if array is None else array.ctypes.data)


@pytest.mark.parametrize("target", TARGETS)
def test_matrix_product(target: str, load: Load) -> None:
    m, n, k = 64, 96, 48
    random = np.random.default_rng(1)
    a, b = (random.standard_normal(shape).astype(np.float16) for shape in ((m, k), (k, n)))
    c, milliseconds = np.zeros((m, n), np.float32), ctypes.c_float(-1)
    with amdgpu_sim.hip_device(target) as device:
        library = load("matrix_product.hip")
        assert library.matrix_product(pointer(a), pointer(b), pointer(c), m, n, k, ctypes.byref(milliseconds)) == 0
    exact = a.astype(np.float64) @ b.astype(np.float64)
    # products of float16 are exact in float32; each of the k sums rounds once
    bound = k * 2.0**-24 * (np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64)))
    assert (np.abs(c - exact) <= bound).all()
    assert milliseconds.value > 0
    report = device.last_report
    assert report is not None
    tile, depth = (32, 8) if device.target.wave_size == 64 else (16, 16)
    assert report.by_category()["matrix"] == m * n // tile**2 * k // depth


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("block", [64, 256, 1024])
def test_reduction_with_dynamic_lds(target: str, block: int, load: Load) -> None:
    x = np.random.default_rng(block).integers(-1000, 1000, 5000, dtype=np.int32)
    blocks = 3
    sums = np.zeros(blocks, np.int32)
    with amdgpu_sim.hip_device(target, seed=3):
        assert load("reduction.hip").reduce(pointer(x), pointer(sums), len(x), blocks, block, 1) == 0
    padded = np.pad(x, (0, -len(x) % (blocks * block))).reshape(-1, blocks, block)
    assert (sums == padded.sum((0, 2))).all()


@pytest.mark.parametrize("target", TARGETS)
def test_constants_variables_and_relocations(target: str, load: Load) -> None:
    x = np.linspace(-2, 2, 100, dtype=np.float32)
    y, counted = np.zeros(100, np.float32), np.zeros(3, np.uint32)
    first, second = np.array([1, -2, 0.5, 4], np.float32), np.array([0.5, 0.25, -1, 2], np.float32)
    offset = np.array([3], np.float32)
    with amdgpu_sim.hip_device(target):
        library = load("device_globals.hip")
        sizes = ctypes.c_size_t(), ctypes.c_size_t()
        assert library.variable_sizes(ctypes.byref(sizes[0]), ctypes.byref(sizes[1])) == 0
        assert (sizes[0].value, sizes[1].value) == (16, 4)
        for number, (table, shift) in enumerate([(first, np.float32(0.25)), (second, offset[0])], 1):
            given = (pointer(table), pointer(offset)) if number == 2 else (pointer(None), pointer(None))
            assert library.evaluate_with(pointer(x), pointer(y), 100, *given, pointer(counted)) == 0
            expected = np.polyval(table[::-1].astype(np.float64), x.astype(np.float64)) + shift
            # Horner's four steps round at most twice each, on values no larger than this sum
            size = np.polyval(np.abs(table[::-1]).astype(np.float64), np.abs(x).astype(np.float64)) + abs(shift)
            assert (np.abs(y - expected) <= 9 * 2.0**-24 * size).all()
            assert counted.tolist() == [7, number, 9]


def test_launch_options_reach_the_simulator(load: Load) -> None:
    x, sums = np.arange(4096, dtype=np.int32), np.zeros(4, np.int32)
    with amdgpu_sim.hip_device("gfx942", processes=2, lockstep=False) as device:
        assert load("reduction.hip").reduce(pointer(x), pointer(sums), len(x), 4, 128, 1) == 0
    assert sums.tolist() == x.reshape(-1, 4, 128).sum((0, 2)).tolist()
    assert device.options == {"processes": 2, "lockstep": False}


def test_device_properties(load: Load) -> None:
    for target in TARGETS:
        numbers, architecture = (ctypes.c_longlong * 14)(), ctypes.create_string_buffer(256)
        with amdgpu_sim.hip_device(target) as device:
            assert load("properties.hip", targets=("gfx942",)).properties(numbers, architecture) == 0
        assert architecture.value.decode() == target
        assert list(numbers[0::2]) == list(numbers[1::2])
        assert numbers[0] == device.target.compute_units
        assert numbers[2] == device.target.wave_size
        assert numbers[4] == device.target.lds_bytes
        assert numbers[6] == device.target.generation


def test_function_attributes_and_occupancy(load: Load) -> None:
    blocks, attributes = ctypes.c_int(), (ctypes.c_int32 * 14)()
    with amdgpu_sim.hip_device("gfx942"):
        library = load("reduction.hip")
        assert library.reduction_occupancy(1024, ctypes.byref(blocks), attributes) == 0
        # 16 waves of at most 32 fit twice; 4 KiB of 64 KiB would fit 16 times
        assert blocks.value == 2
        assert attributes[7] == 1024
        assert library.reduction_occupancy(20000, ctypes.byref(blocks), attributes) == 1


def test_two_devices_nest_and_programs_outlive_them(load: Load) -> None:
    x, sums = np.arange(128, dtype=np.int32), np.zeros(1, np.int32)
    with amdgpu_sim.hip_device("gfx942") as outer:
        library = load("reduction.hip")
        with amdgpu_sim.hip_device("gfx1201") as inner:
            assert library.reduce(pointer(x), pointer(sums), 128, 1, 128, 1) == 0
        reports = [inner.last_report, outer.last_report]
        assert library.reduce(pointer(x), pointer(sums), 128, 1, 128, 1) == 0
        reports.append(outer.last_report)
    assert [report and report.waves for report in reports] == [4, None, 2]
    assert library.reduce(pointer(x), pointer(sums), 128, 1, 128, 1) == 100  # hipErrorNoDevice
