"""Modules loaded by hand: from files, from memory, from bundles; their functions, variables and launches."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import amdgpu_sim
from amdgpu_sim.hip.library import SONAMES, library_folder

pytestmark = pytest.mark.hip
SUCCESS, INVALID_VALUE, NO_BINARY, NO_FILE, INVALID_HANDLE, NOT_FOUND = 0, 1, 209, 301, 400, 500
Array = np.ndarray[Any, Any]
Build = Callable[..., Path]
ELF, BUNDLE = ("--cuda-device-only", "--no-gpu-bundle-output"), ("--cuda-device-only", "--gpu-bundle-output")


@pytest.fixture
def hip() -> Iterator[ctypes.CDLL]:
    with amdgpu_sim.hip_device("gfx942"):
        yield ctypes.CDLL(str(library_folder() / SONAMES[0]))


def handle() -> ctypes.c_void_p:
    return ctypes.c_void_p()


def evaluate(hip: ctypes.CDLL, module: ctypes.c_void_p, packed: bool) -> tuple[Array, Array]:
    """Launch the kernel of device_globals.hip; (input, output)."""
    function, x, y = handle(), np.linspace(-1, 1, 64, dtype=np.float32), np.zeros(64, np.float32)
    assert hip.hipModuleGetFunction(ctypes.byref(function), module, b"evaluate") == SUCCESS
    arguments = [ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data), ctypes.c_int(64)]
    pointers = (ctypes.c_void_p * 3)(*(ctypes.addressof(argument) for argument in arguments))
    raw = b"".join(bytes(argument) for argument in arguments)
    buffer, size = ctypes.create_string_buffer(raw, len(raw)), ctypes.c_size_t(len(raw))
    extra = (ctypes.c_void_p * 5)(1, ctypes.addressof(buffer), 2, ctypes.addressof(size), 3)
    for array in (x, y):
        assert hip.hipHostRegister(ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(256), 0) == SUCCESS
    how = (None, extra) if packed else (pointers, None)
    assert hip.hipModuleLaunchKernel(function, 1, 1, 1, 64, 1, 1, 0, None, *how) == SUCCESS
    for array in (x, y):
        assert hip.hipHostUnregister(ctypes.c_void_p(array.ctypes.data)) == SUCCESS
    return x, y


@pytest.mark.parametrize("flags", [ELF, BUNDLE])
@pytest.mark.parametrize("packed", [False, True])
def test_launch_from_a_module(flags: tuple[str, ...], packed: bool, hip: ctypes.CDLL, build: Build) -> None:
    path, module = build("device_globals.hip", *flags, targets=("gfx942",)), handle()
    offset, size = handle(), ctypes.c_size_t()
    if packed:
        assert hip.hipModuleLoad(ctypes.byref(module), str(path).encode()) == SUCCESS
    else:
        image = ctypes.create_string_buffer(path.read_bytes())
        assert hip.hipModuleLoadData(ctypes.byref(module), image) == SUCCESS
    assert hip.hipModuleGetGlobal(ctypes.byref(offset), ctypes.byref(size), module, b"offset") == SUCCESS
    assert size.value == 4
    value = ctypes.c_float(100)
    assert hip.hipMemcpyHtoD(offset, ctypes.byref(value), ctypes.c_size_t(4)) == SUCCESS
    x, y = evaluate(hip, module, packed)
    exact, largest = (
        np.polyval([4, 0.5, -2, 1], x.astype(np.float64)) + 100,
        np.polyval([4, 0.5, 2, 1], np.abs(x)) + 100,
    )
    # Four products and five sums in float32, none of them larger than the sum of the terms' magnitudes.
    assert (np.abs(y - exact) <= 9 * 2.0**-24 * largest).all()
    assert hip.hipModuleUnload(module) == SUCCESS
    assert hip.hipModuleUnload(module) == INVALID_HANDLE


def test_what_is_not_there(hip: ctypes.CDLL, build: Build) -> None:
    module, other = handle(), handle()
    assert hip.hipModuleLoad(ctypes.byref(module), b"/nowhere") == NO_FILE
    path = build("device_globals.hip", *ELF, targets=("gfx1201",))
    assert hip.hipModuleLoad(ctypes.byref(module), str(path).encode()) == NO_BINARY
    path = build("device_globals.hip", *ELF, targets=("gfx942",))
    assert hip.hipModuleLoad(ctypes.byref(module), str(path).encode()) == SUCCESS
    assert hip.hipModuleGetFunction(ctypes.byref(other), module, b"nothing") == NOT_FOUND
    assert hip.hipModuleGetGlobal(ctypes.byref(other), None, module, b"nothing") == NOT_FOUND
    assert hip.hipModuleGetFunction(ctypes.byref(other), other, b"evaluate") == INVALID_HANDLE


def test_packed_arguments_must_be_complete(hip: ctypes.CDLL, build: Build) -> None:
    path, module, function = build("device_globals.hip", *ELF, targets=("gfx942",)), handle(), handle()
    assert hip.hipModuleLoad(ctypes.byref(module), str(path).encode()) == SUCCESS
    assert hip.hipModuleGetFunction(ctypes.byref(function), module, b"evaluate") == SUCCESS
    buffer, size = ctypes.create_string_buffer(20), ctypes.c_size_t(16)
    for extra in ([1, ctypes.addressof(buffer), 2, ctypes.addressof(size), 3], [1, ctypes.addressof(buffer), 3], [9]):
        given = (ctypes.c_void_p * len(extra))(*extra)
        assert hip.hipModuleLaunchKernel(function, 1, 1, 1, 64, 1, 1, 0, None, None, given) == INVALID_VALUE


def test_images_that_are_none_are_reported(hip: ctypes.CDLL) -> None:
    device = amdgpu_sim.hip_device("gfx942")
    module, image = handle(), ctypes.create_string_buffer(b"no code object at all")
    assert hip.hipModuleLoadData(ctypes.byref(module), image) != SUCCESS
    with pytest.raises(amdgpu_sim.AssemblyError, match="not an offload bundle"):
        device.close()
