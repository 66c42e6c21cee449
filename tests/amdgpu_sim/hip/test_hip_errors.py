"""Mistakes in HIP programs: the call fails, and the exception with the assembly line reaches Python."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np
import pytest
import torch

import amdgpu_sim

pytestmark = pytest.mark.hip
LAUNCH_FAILURE, INVALID_VALUE, INVALID_CONFIGURATION, INVALID_FUNCTION, NO_BINARY = 719, 1, 9, 98, 209
Load = Callable[..., ctypes.CDLL]


@pytest.mark.parametrize("target", list(amdgpu_sim.TARGETS))
def test_overrun_names_the_assembly_and_the_source_line(target: str, load: Load) -> None:
    device = amdgpu_sim.hip_device(target)
    library = load("mistakes.hip")
    assert library.overrun(100, 100) == 0
    device.close()
    device = amdgpu_sim.hip_device(target)
    assert library.overrun(100, 130) == LAUNCH_FAILURE
    message = r"store of 4 bytes.* 0 bytes past the end of hipMalloc .*400 bytes\n.*global_store.*mistakes\.hip:6"
    with pytest.raises(amdgpu_sim.OutOfBoundsError, match=message):
        device.close()


def test_failed_launch_blocks_the_device_until_it_is_raised(load: Load) -> None:
    with amdgpu_sim.hip_device("gfx942") as device:
        library = load("mistakes.hip")
        assert library.use_after_free(64) == LAUNCH_FAILURE
        assert library.synchronise() == LAUNCH_FAILURE
        assert library.overrun(64, 64) == LAUNCH_FAILURE
        with pytest.raises(amdgpu_sim.OutOfBoundsError, match="global_load"):
            device.raise_pending()
        device.raise_pending()
        assert library.synchronise() == 0
        assert library.overrun(64, 64) == 0


def test_error_is_not_lost_behind_an_exception_of_the_caller(load: Load) -> None:
    def caller() -> None:
        with amdgpu_sim.hip_device("gfx942"):
            raise RuntimeError(f"HIP error {load('mistakes.hip').overrun(64, 65)}")

    with pytest.raises(amdgpu_sim.OutOfBoundsError) as caught:
        caller()
    assert "HIP error 719" in str(caught.value.__context__)


def test_launch_of_an_unknown_kernel(load: Load) -> None:
    with amdgpu_sim.hip_device("gfx942"):
        assert load("mistakes.hip").launch_unknown_kernel() == INVALID_FUNCTION


def test_image_without_the_architecture(load: Load) -> None:
    with amdgpu_sim.hip_device("gfx1201"):
        library = load("mistakes.hip", targets=("gfx942",))
        assert library.overrun(64, 64) == NO_BINARY
        library.error_text.restype = library.error_name.restype = ctypes.c_char_p
        assert b"no kernel image" in library.error_text(NO_BINARY)
        assert library.error_name(NO_BINARY) == b"hipErrorNoBinaryForGpu"


@pytest.mark.parametrize(("block", "lds"), [(0, 0), (1025, 0), (64, 65537)])
def test_launch_configuration_that_no_device_can_run(block: int, lds: int, load: Load) -> None:
    with amdgpu_sim.hip_device("gfx942"):
        library = load("mistakes.hip")
        assert library.launch(block, lds) == INVALID_CONFIGURATION
        assert library.launch(64, 65536) == 0


def test_copy_beyond_an_allocation(load: Load) -> None:
    with amdgpu_sim.hip_device("gfx942"):
        assert load("mistakes.hip").copy_too_much(10) == INVALID_VALUE


def test_overrun_of_device_variables(load: Load) -> None:
    with amdgpu_sim.hip_device("gfx942") as device:
        library = load("mistakes.hip")
        assert library.fill_variable(4) == 0
        assert library.fill_variable(64) == LAUNCH_FAILURE
        with pytest.raises(amdgpu_sim.OutOfBoundsError, match=r"store of 4 bytes.*section \.bss"):
            device.raise_pending()


@pytest.mark.parametrize("target", ["gfx942", "gfx1201"])
def test_missing_barrier_is_a_race(target: str, load: Load) -> None:
    x, sums = np.arange(256, dtype=np.int32), np.zeros(1, np.int32)
    with amdgpu_sim.hip_device(target) as device:
        reduce = load("reduction.hip").reduce
        x_pointer, sums_pointer = ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(sums.ctypes.data)
        assert reduce(x_pointer, sums_pointer, 256, 1, 256, 0) == LAUNCH_FAILURE
        with pytest.raises(amdgpu_sim.LdsRaceError, match=r"reduction\.hip"):
            device.raise_pending()
        assert reduce(x_pointer, sums_pointer, 256, 1, 256, 1) == 0


def test_host_memory_is_out_of_bounds_unless_allowed(load: Load) -> None:
    x, y = torch.arange(64, dtype=torch.int32), np.zeros(64, np.int32)
    with amdgpu_sim.hip_device("gfx942") as device:
        library = load("host_memory.hip", targets=("gfx942",))
        copy = library.copy_on_device
        pointers = ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(y.ctypes.data)
        with device.allow(x, y):
            assert copy(*pointers, 64) == 0
            assert y.tolist() == x.tolist()
            y[:] = 0
            assert library.copy_by_configuration(*pointers, 64) == 0
            assert y.tolist() == x.tolist()
        assert copy(*pointers, 64) == LAUNCH_FAILURE
        with pytest.raises(amdgpu_sim.OutOfBoundsError):
            device.raise_pending()
