"""The stand-in for the CUDA runtime called through its C interface. Needs a C compiler and no nvcc."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ptx_sim
import ptx_sim.cuda
import simulated_device
from ptx_sim.cuda.library import library_folder
from ptx_sim.cuda.runtime import RUNTIME

SUCCESS, INVALID_VALUE, INVALID_DIRECTION, INVALID_HANDLE = 0, 1, 21, 400
TO_DEVICE, TO_HOST, UNKNOWN_KIND = 1, 2, 9


@pytest.fixture
def cuda() -> Iterator[ctypes.CDLL]:
    with ptx_sim.cuda_device("sm_80"):
        yield ctypes.CDLL(str(library_folder() / "libcudart.so"))


def at(array: np.ndarray[Any, Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def test_copies_stay_in_their_allocation(cuda: ctypes.CDLL) -> None:
    pointer, host, size = ctypes.c_void_p(), np.zeros(17, np.float32), ctypes.c_size_t
    assert cuda.cudaMalloc(ctypes.byref(pointer), size(64)) == SUCCESS
    assert cuda.cudaMemcpy(at(host), pointer, size(64), TO_HOST) == SUCCESS
    assert np.isnan(host[:16]).all()
    assert cuda.cudaMemsetAsync(pointer, 0, size(64), None) == SUCCESS
    assert cuda.cudaMemcpy(pointer, at(host), size(68), TO_DEVICE) == INVALID_VALUE
    assert cuda.cudaMemcpy(pointer, at(host), size(64), UNKNOWN_KIND) == INVALID_DIRECTION
    assert cuda.cudaGetLastError() == INVALID_DIRECTION
    assert cuda.cudaGetLastError() == SUCCESS
    assert cuda.cudaFree(pointer) == SUCCESS
    assert cuda.cudaFree(pointer) == INVALID_VALUE


def test_streams_and_events(cuda: ctypes.CDLL) -> None:
    stream, start, stop, milliseconds = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_float(-1)
    assert cuda.cudaStreamCreateWithFlags(ctypes.byref(stream), 1) == SUCCESS
    for event in (start, stop):
        assert cuda.cudaEventCreate(ctypes.byref(event)) == SUCCESS
        assert cuda.cudaEventRecordWithFlags(event, stream, 0) == SUCCESS
    assert cuda.cudaEventElapsedTime(ctypes.byref(milliseconds), start, stop) == SUCCESS
    assert milliseconds.value >= 0
    assert cuda.cudaStreamDestroy(stream) == SUCCESS
    assert cuda.cudaStreamSynchronize(stream) == INVALID_HANDLE


@pytest.mark.parametrize(
    ("code", "name", "text"),
    [
        (0, "cudaSuccess", "no error"),
        (2, "cudaErrorMemoryAllocation", "out of memory"),
        (100, "cudaErrorNoDevice", "no CUDA-capable device is detected"),
        (209, "cudaErrorNoKernelImageForDevice", "no kernel image is available for execution on the device"),
        (12345, "cudaErrorUnknown", "unknown error"),
    ],
)
def test_names_of_errors(cuda: ctypes.CDLL, code: int, name: str, text: str) -> None:
    cuda.cudaGetErrorName.restype = cuda.cudaGetErrorString.restype = ctypes.c_char_p
    assert cuda.cudaGetErrorName(code).decode() == name
    assert cuda.cudaGetErrorString(code).decode() == text


def test_every_forwarded_call_is_implemented_with_its_number_of_words() -> None:
    source = Path(ptx_sim.cuda.__file__).with_name("libcudart.c").read_text()
    header = Path(simulated_device.__file__).with_name("runtime_calls.h").read_text()
    source += re.sub(r"INTERNAL\((\w+)\)", r"__cuda\1", re.sub(r"API\((\w+)\)", r"cuda\1", header))
    forwarded = {name: int(words) for words, name in re.findall(r"^FORWARD_(\d)\((\w+)\)$", source, re.MULTILINE)}
    assert len(forwarded) > 40
    assert {name: RUNTIME.handlers[name][1] for name in forwarded} == forwarded
