"""The stand-in for the HIP runtime called through its C interface: memory, streams, events, errors.

Needs a C compiler and no HIP toolchain; launches are tested in ``hip/``.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import amdgpu_sim
import amdgpu_sim.hip
import simulated_device
from amdgpu_sim.hip.library import SONAMES, library_folder
from amdgpu_sim.hip.runtime import HANDLERS

SUCCESS, INVALID_VALUE, INVALID_HANDLE, NO_DEVICE, LAUNCH_FAILURE = 0, 1, 400, 100, 719
TO_DEVICE, TO_HOST, ON_DEVICE = 1, 2, 3


@pytest.fixture(params=SONAMES)
def hip(request: pytest.FixtureRequest) -> Iterator[ctypes.CDLL]:
    with amdgpu_sim.hip_device("gfx942"):
        yield ctypes.CDLL(str(library_folder() / request.param))


def allocate(hip: ctypes.CDLL, size: int) -> ctypes.c_void_p:
    pointer = ctypes.c_void_p()
    assert hip.hipMalloc(ctypes.byref(pointer), ctypes.c_size_t(size)) == SUCCESS
    return pointer


def copy(hip: ctypes.CDLL, target: Any, source: Any, size: int, kind: int) -> int:
    return int(hip.hipMemcpy(target, source, ctypes.c_size_t(size), kind))


def at(array: np.ndarray[Any, Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def test_allocations_are_aligned_and_poisoned(hip: ctypes.CDLL) -> None:
    pointer, host = allocate(hip, 100), np.zeros(25, np.float32)
    assert pointer.value is not None
    assert pointer.value % 256 == 0
    assert copy(hip, at(host), pointer, 100, TO_HOST) == SUCCESS
    assert np.isnan(host).all()
    assert hip.hipFree(pointer) == SUCCESS
    assert hip.hipFree(pointer) == INVALID_VALUE
    assert hip.hipFree(None) == SUCCESS
    assert allocate(hip, 0).value is None


def test_copies_and_fills(hip: ctypes.CDLL) -> None:
    first, second = allocate(hip, 64), allocate(hip, 64)
    source, target = np.arange(64, dtype=np.uint8), np.zeros(64, np.uint8)
    assert copy(hip, first, at(source), 64, TO_DEVICE) == SUCCESS
    assert copy(hip, second, first, 64, ON_DEVICE) == SUCCESS
    assert hip.hipMemsetAsync(ctypes.c_void_p(second.value + 16), 0x1AB, ctypes.c_size_t(8), None) == SUCCESS  # type: ignore[operator]
    assert copy(hip, at(target), second, 64, TO_HOST) == SUCCESS
    source[16:24] = 0xAB
    assert target.tolist() == source.tolist()
    for pointer in (first, second):
        hip.hipFree(pointer)


def test_copies_that_leave_an_allocation_or_go_the_wrong_way(hip: ctypes.CDLL) -> None:
    pointer, host = allocate(hip, 64), np.zeros(65, np.uint8)
    assert copy(hip, pointer, at(host), 65, TO_DEVICE) == INVALID_VALUE
    assert copy(hip, at(host), pointer, 65, TO_HOST) == INVALID_VALUE
    assert copy(hip, at(host), pointer, 64, TO_DEVICE) == INVALID_VALUE
    assert copy(hip, pointer, at(host), 64, 9) == INVALID_VALUE
    assert hip.hipMemset(pointer, 0, ctypes.c_size_t(65)) == INVALID_VALUE
    assert hip.hipPeekAtLastError() == INVALID_VALUE
    assert hip.hipGetLastError() == INVALID_VALUE
    assert hip.hipGetLastError() == SUCCESS
    hip.hipFree(pointer)


def test_registered_host_memory(hip: ctypes.CDLL) -> None:
    host, device = np.zeros(64, np.uint8), ctypes.c_void_p()
    assert hip.hipHostGetDevicePointer(ctypes.byref(device), at(host), 0) == INVALID_VALUE
    assert hip.hipHostRegister(at(host), ctypes.c_size_t(64), 0) == SUCCESS
    assert hip.hipHostGetDevicePointer(ctypes.byref(device), at(host), 0) == SUCCESS
    assert device.value == host.ctypes.data
    assert hip.hipHostUnregister(at(host)) == SUCCESS
    assert hip.hipHostUnregister(at(host)) == INVALID_VALUE


def test_streams_and_events(hip: ctypes.CDLL) -> None:
    stream, start, stop = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
    milliseconds = ctypes.c_float(-1)
    assert hip.hipStreamCreateWithFlags(ctypes.byref(stream), 1) == SUCCESS
    for event in (start, stop):
        assert hip.hipEventCreateWithFlags(ctypes.byref(event), 0) == SUCCESS
    assert hip.hipEventRecord(start, stream) == SUCCESS
    assert hip.hipEventElapsedTime(ctypes.byref(milliseconds), start, stop) == INVALID_HANDLE
    assert hip.hipEventRecord(stop, None) == SUCCESS
    assert hip.hipStreamWaitEvent(stream, stop, 0) == SUCCESS
    assert hip.hipEventSynchronize(stop) == SUCCESS
    assert hip.hipEventElapsedTime(ctypes.byref(milliseconds), start, stop) == SUCCESS
    assert 0 <= milliseconds.value < 60_000
    assert hip.hipStreamSynchronize(stream) == SUCCESS
    assert hip.hipStreamDestroy(stream) == SUCCESS
    assert hip.hipStreamSynchronize(stream) == INVALID_HANDLE
    assert hip.hipEventDestroy(start) == SUCCESS
    assert hip.hipEventQuery(start) == INVALID_HANDLE


def test_devices(hip: ctypes.CDLL) -> None:
    count = ctypes.c_int(-1)
    assert hip.hipGetDeviceCount(ctypes.byref(count)) == SUCCESS
    assert count.value == 1
    assert hip.hipSetDevice(0) == SUCCESS
    assert hip.hipSetDevice(1) == 101
    name = ctypes.create_string_buffer(b"x" * 15, 16)
    assert hip.hipDeviceGetName(name, 12, 0) == SUCCESS
    assert name.value == b"simulated g"
    assert hip.hipDeviceGetAttribute(ctypes.byref(count), 9998, 0) == INVALID_VALUE


def test_without_a_device(hip: ctypes.CDLL) -> None:
    code = """
import ctypes
from amdgpu_sim.hip import library
library.load_library()
hip, count = ctypes.CDLL(str(library.library_folder() / library.SONAMES[0])), ctypes.c_int(-1)
print(hip.hipGetDeviceCount(ctypes.byref(count)), count.value, hip.hipSetDevice(0))
"""
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.split() == [str(NO_DEVICE), "0", str(NO_DEVICE)]


def test_exceptions_inside_calls_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(runtime: Any) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setitem(HANDLERS, "hipDeviceSynchronize", (broken, 0))
    with amdgpu_sim.hip_device("gfx942") as device:
        hip = ctypes.CDLL(str(library_folder() / SONAMES[0]))
        assert hip.hipDeviceSynchronize() == LAUNCH_FAILURE
        with pytest.raises(ZeroDivisionError, match="planted"):
            device.raise_pending()
        hip.hipDeviceSynchronize()
        hip.hipDeviceSynchronize()
        with pytest.raises(amdgpu_sim.SimulatorError, match=r"further errors.*ZeroDivisionError"):
            device.close()


def test_every_forwarded_call_is_implemented_with_its_number_of_words() -> None:
    """A call that only C knows would fail as an exception of the simulator, not as a HIP error."""
    source = Path(amdgpu_sim.hip.__file__).with_name("libamdhip64.c").read_text()
    header = Path(simulated_device.__file__).with_name("runtime_calls.h").read_text()
    source += re.sub(r"INTERNAL\((\w+)\)", r"__hip\1", re.sub(r"API\((\w+)\)", r"hip\1", header))
    forwarded = {name: int(words) for words, name in re.findall(r"^FORWARD_(\d)\((\w+)\)$", source, re.MULTILINE)}
    assert len(forwarded) > 60
    assert {name: HANDLERS[name][1] for name in forwarded} == forwarded
    called = set(re.findall(r"(?:call|dispatch|error_text)\((?:TEXT\()?\"?((?:__)?hip\w+)", source))
    assert set(HANDLERS) == set(forwarded) | called


def test_compiler_failure_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "false")
    library_folder.cache_clear()
    try:
        with pytest.raises(amdgpu_sim.SimulatorError, match="building the HIP stand-in failed: false"):
            library_folder()
    finally:
        library_folder.cache_clear()


def test_unknown_target_is_refused() -> None:
    with pytest.raises(ValueError, match="gfx1201"):
        amdgpu_sim.hip_device("gfx906")
