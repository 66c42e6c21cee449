"""Memory of the CUDA stand-in: allocations, copies, fills. Device memory is this process's memory."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np

from ptx_sim.cuda.errors import CudaError, Status
from ptx_sim.cuda.runtime import CudaRuntime, as_int, implements, write_word
from ptx_sim.memory import GlobalMemory
from ptx_sim.types import Array

_ALIGNMENT = 256
_TOTAL_BYTES = 64 << 30
# all bits set is NaN in every floating type: a kernel that reads what nothing wrote shows it
_UNWRITTEN = 0xFF
_DEFAULT_KIND = 4


@dataclass(frozen=True)
class Allocation:
    """``size`` bytes at ``address`` that kernels may touch; ``storage`` keeps them alive (None: not ours)."""

    address: int
    size: int
    name: str
    storage: Array | None


def global_memory(runtime: CudaRuntime) -> GlobalMemory:
    """Everything that a kernel of the current device may touch, apart from its module's variables."""
    memory = GlobalMemory()
    for allocation in [*runtime.allocations.values(), *runtime.device.allowed]:
        memory.add_host(allocation.address, allocation.size, allocation.name)
    return memory


def _check_device_range(runtime: CudaRuntime, address: int, size: int) -> None:
    """CudaError unless the range lies in device memory."""
    held = [*runtime.allocations.values(), *runtime.device.allowed]
    if not any(a.address <= address and address + size <= a.address + a.size for a in held):
        raise CudaError(Status.INVALID_VALUE)


@implements("cudaMalloc", "cudaMallocAsync")
def _malloc(runtime: CudaRuntime, pointer: int, size: int) -> None:
    if not 0 <= size <= _TOTAL_BYTES:
        raise CudaError(Status.MEMORY_ALLOCATION)
    storage = np.full(size + _ALIGNMENT, _UNWRITTEN, np.uint8)
    address = storage.ctypes.data + -storage.ctypes.data % _ALIGNMENT
    number = runtime.new_handle() // 16
    runtime.allocations[address] = Allocation(address, size, f"cudaMalloc (call {number})", storage)
    write_word(pointer, address)


@implements("cudaFree", "cudaFreeAsync")
def _free(runtime: CudaRuntime, address: int) -> None:
    if address and address not in runtime.allocations:
        raise CudaError(Status.INVALID_VALUE)
    runtime.allocations.pop(address, None)


@implements("cudaMemcpy", "cudaMemcpyAsync")
def _memcpy(runtime: CudaRuntime, destination: int, source: int, size: int, kind: int) -> None:
    runtime.check_alive()
    if not 0 <= as_int(kind) <= _DEFAULT_KIND:
        raise CudaError(Status.INVALID_MEMCPY_DIRECTION)
    if size:
        ctypes.memmove(destination, source, size)


@implements("cudaMemset", "cudaMemsetAsync")
def _memset(runtime: CudaRuntime, address: int, value: int, size: int) -> None:
    runtime.check_alive()
    if size:
        _check_device_range(runtime, address, size)
        ctypes.memset(address, as_int(value) & 0xFF, size)


@implements("cudaMemGetInfo")
def _mem_get_info(runtime: CudaRuntime, free: int, total: int) -> None:
    write_word(free, _TOTAL_BYTES)
    write_word(total, _TOTAL_BYTES)
