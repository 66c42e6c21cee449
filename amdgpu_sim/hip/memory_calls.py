"""Memory of the HIP stand-in: allocations, copies, fills. Device memory is this process's memory."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np

from amdgpu_sim.hip.errors import HipError, Status
from amdgpu_sim.hip.runtime import HipRuntime, implements, write_word
from amdgpu_sim.memory import GlobalMemory
from amdgpu_sim.waves import Array

_ALIGNMENT = 256
_FREE_BYTES, _TOTAL_BYTES = 60 << 30, 64 << 30
# all bits set is NaN in every floating type: a kernel that reads what nothing wrote shows it
_UNWRITTEN = 0xFF
_HOST_TO_HOST, _HOST_TO_DEVICE, _DEVICE_TO_HOST, _DEVICE_TO_DEVICE, _DEFAULT = range(5)


@dataclass(frozen=True)
class Allocation:
    """``size`` bytes at ``address`` that kernels may touch; ``storage`` keeps them alive (None: not ours)."""

    address: int
    size: int
    name: str
    storage: Array | None


def allocate(runtime: HipRuntime, size: int, function: str) -> int:
    """A new allocation by ``function``; 0 for no bytes."""
    if size == 0:
        return 0
    if size < 0 or size > _TOTAL_BYTES:
        raise HipError(Status.OUT_OF_MEMORY)
    try:
        storage = np.full(size + _ALIGNMENT, _UNWRITTEN, np.uint8)
    except MemoryError:
        raise HipError(Status.OUT_OF_MEMORY) from None
    address = storage.ctypes.data + -storage.ctypes.data % _ALIGNMENT
    number = runtime.new_handle() // 16
    runtime.allocations[address] = Allocation(address, size, f"{function} (call {number})", storage)
    return int(address)


def global_memory(runtime: HipRuntime) -> GlobalMemory:
    """Everything that a kernel of the current device may touch, apart from its own code object."""
    memory = GlobalMemory()
    for allocation in [*runtime.allocations.values(), *runtime.device.allowed]:
        memory.add_host(allocation.address, allocation.size, allocation.name)
    return memory


def _holder(runtime: HipRuntime, address: int) -> tuple[int, int] | None:
    """(begin, end) of the device memory that ``address`` lies in; None for host memory."""
    for allocation in [*runtime.allocations.values(), *runtime.device.allowed]:
        if allocation.address <= address < allocation.address + allocation.size:
            return allocation.address, allocation.address + allocation.size
    for image in runtime.device.images():
        for variable in image.variables.values():
            if variable.address <= address < variable.address + variable.size:
                return variable.address, variable.address + variable.size
    return None


def _check(runtime: HipRuntime, address: int, size: int, device: bool) -> None:
    """The range must not leave device memory that it begins in, and must begin in some if ``device``."""
    held = _holder(runtime, address)
    if not address or (held is None and device) or (held is not None and address + size > held[1]):
        raise HipError(Status.INVALID_VALUE)


def copy(runtime: HipRuntime, destination: int, source: int, size: int, kind: int) -> None:
    """``hipMemcpy``: HipError INVALID_VALUE if a device range is none or leaves its allocation."""
    runtime.check_alive()
    if not _HOST_TO_HOST <= kind <= _DEFAULT or size < 0:
        raise HipError(Status.INVALID_VALUE)
    if size:
        _check(runtime, destination, size, kind in (_HOST_TO_DEVICE, _DEVICE_TO_DEVICE))
        _check(runtime, source, size, kind in (_DEVICE_TO_HOST, _DEVICE_TO_DEVICE))
        ctypes.memmove(destination, source, size)


@implements("hipMalloc")
def _malloc(runtime: HipRuntime, pointer: int, size: int) -> None:
    write_word(pointer, allocate(runtime, size, "hipMalloc"))


@implements("hipMallocManaged", "hipHostMalloc", "hipMallocAsync")
def _malloc_with_option(runtime: HipRuntime, pointer: int, size: int, option: int) -> None:
    write_word(pointer, allocate(runtime, size, "hipMallocManaged, hipHostMalloc or hipMallocAsync"))


@implements("hipFree", "hipHostFree")
def _free(runtime: HipRuntime, address: int) -> None:
    allocation = runtime.allocations.get(address)
    if address and (allocation is None or allocation.storage is None):
        raise HipError(Status.INVALID_VALUE)
    runtime.allocations.pop(address, None)


@implements("hipFreeAsync")
def _free_async(runtime: HipRuntime, address: int, stream: int) -> None:
    _free(runtime, address)


@implements("hipHostRegister")
def _host_register(runtime: HipRuntime, address: int, size: int, flags: int) -> None:
    if not address or size <= 0 or address in runtime.allocations:
        raise HipError(Status.INVALID_VALUE)
    runtime.allocations[address] = Allocation(address, size, "hipHostRegister", None)


@implements("hipHostUnregister")
def _host_unregister(runtime: HipRuntime, address: int) -> None:
    allocation = runtime.allocations.get(address)
    if allocation is None or allocation.storage is not None:
        raise HipError(Status.INVALID_VALUE)
    del runtime.allocations[address]


@implements("hipHostGetDevicePointer")
def _host_get_device_pointer(runtime: HipRuntime, pointer: int, address: int, flags: int) -> None:
    if _holder(runtime, address) is None:
        raise HipError(Status.INVALID_VALUE)
    write_word(pointer, address)


@implements("hipMemGetInfo")
def _mem_get_info(runtime: HipRuntime, free: int, total: int) -> None:
    write_word(free, _FREE_BYTES)
    write_word(total, _TOTAL_BYTES)


@implements("hipMemcpy")
def _memcpy(runtime: HipRuntime, destination: int, source: int, size: int, kind: int) -> None:
    copy(runtime, destination, source, size, kind & 0xFFFFFFFF)


@implements("hipMemcpyAsync", "hipMemcpyWithStream")
def _memcpy_async(runtime: HipRuntime, destination: int, source: int, size: int, kind: int, stream: int) -> None:
    copy(runtime, destination, source, size, kind & 0xFFFFFFFF)


@implements("hipMemcpyHtoD")
def _memcpy_to_device(runtime: HipRuntime, destination: int, source: int, size: int) -> None:
    copy(runtime, destination, source, size, _HOST_TO_DEVICE)


@implements("hipMemcpyDtoH")
def _memcpy_to_host(runtime: HipRuntime, destination: int, source: int, size: int) -> None:
    copy(runtime, destination, source, size, _DEVICE_TO_HOST)


@implements("hipMemcpyDtoD")
def _memcpy_on_device(runtime: HipRuntime, destination: int, source: int, size: int) -> None:
    copy(runtime, destination, source, size, _DEVICE_TO_DEVICE)


@implements("hipMemset")
def _memset(runtime: HipRuntime, destination: int, value: int, size: int) -> None:
    runtime.check_alive()
    if size:
        _check(runtime, destination, size, True)
        ctypes.memset(destination, value & 0xFF, size)


@implements("hipMemsetAsync")
def _memset_async(runtime: HipRuntime, destination: int, value: int, size: int, stream: int) -> None:
    _memset(runtime, destination, value, size)


def _variable_address(runtime: HipRuntime, symbol: int, size: int, offset: int) -> int:
    address, held = runtime.device.variable(symbol)
    if offset < 0 or size < 0 or offset + size > held:
        raise HipError(Status.INVALID_VALUE)
    return address + offset


@implements("hipMemcpyToSymbol")
def _memcpy_to_symbol(runtime: HipRuntime, symbol: int, source: int, size: int, offset: int, kind: int) -> None:
    copy(runtime, _variable_address(runtime, symbol, size, offset), source, size, kind & 0xFFFFFFFF)


@implements("hipMemcpyToSymbolAsync")
def _memcpy_to_symbol_async(
    runtime: HipRuntime, symbol: int, source: int, size: int, offset: int, kind: int, stream: int
) -> None:
    _memcpy_to_symbol(runtime, symbol, source, size, offset, kind)


@implements("hipMemcpyFromSymbol")
def _memcpy_from_symbol(runtime: HipRuntime, target: int, symbol: int, size: int, offset: int, kind: int) -> None:
    copy(runtime, target, _variable_address(runtime, symbol, size, offset), size, kind & 0xFFFFFFFF)


@implements("hipMemcpyFromSymbolAsync")
def _memcpy_from_symbol_async(
    runtime: HipRuntime, target: int, symbol: int, size: int, offset: int, kind: int, stream: int
) -> None:
    _memcpy_from_symbol(runtime, target, symbol, size, offset, kind)


@implements("hipGetSymbolAddress")
def _get_symbol_address(runtime: HipRuntime, pointer: int, symbol: int) -> None:
    write_word(pointer, runtime.device.variable(symbol)[0])


@implements("hipGetSymbolSize")
def _get_symbol_size(runtime: HipRuntime, pointer: int, symbol: int) -> None:
    write_word(pointer, runtime.device.variable(symbol)[1])
