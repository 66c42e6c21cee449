"""Memory of a runtime library: allocations, copies, fills. Device memory is this process's memory."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from simulated_device.address_space import AddressSpace
from simulated_device.calls import as_int, common, write_word
from simulated_device.host_memory import HostRange
from simulated_device.status import CallError, Status

if TYPE_CHECKING:
    from simulated_device.runtime import Runtime

MemoryT = TypeVar("MemoryT", bound=AddressSpace[Any])
_ALIGNMENT = 256
_FREE_BYTES, _TOTAL_BYTES = 60 << 30, 64 << 30
# all bits set is NaN in every floating type: a kernel that reads what nothing wrote shows it
_UNWRITTEN = 0xFF
HOST_TO_HOST, HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE, ANY_DIRECTION = range(5)


def allocate(runtime: Runtime[Any], size: int, function: str) -> int:
    """A new allocation by ``function``; 0 for no bytes."""
    if size == 0:
        return 0
    if size < 0 or size > _TOTAL_BYTES:
        raise CallError(Status.OUT_OF_MEMORY)
    try:
        storage = np.full(size + _ALIGNMENT, _UNWRITTEN, np.uint8)
    except MemoryError:
        raise CallError(Status.OUT_OF_MEMORY) from None
    address = storage.ctypes.data + -storage.ctypes.data % _ALIGNMENT
    number = runtime.new_handle() // 16
    runtime.allocations[address] = HostRange(address, size, f"{function} (call {number})", storage)
    return int(address)


def visible(runtime: Runtime[Any], memory: MemoryT) -> MemoryT:
    """``memory`` with everything that a kernel of the current device may touch, apart from its own variables."""
    for allocation in runtime.held():
        memory.add_host(allocation.address, allocation.size, allocation.name)
    return memory


def holder(runtime: Runtime[Any], address: int) -> tuple[int, int] | None:
    """(begin, end) of the device memory that ``address`` lies in; None for host memory."""
    target = runtime.device.target
    ranges = [(allocation.address, allocation.size) for allocation in runtime.held()]
    for image in runtime.images.values():
        ranges += image.loaded_ranges(target)
    return next(((begin, begin + size) for begin, size in ranges if begin <= address < begin + size), None)


def _check(runtime: Runtime[Any], address: int, size: int, device: bool) -> None:
    """The range must not leave device memory that it begins in, and must begin in some if ``device``."""
    held = holder(runtime, address)
    if not address or (held is None and device) or (held is not None and address + size > held[1]):
        raise CallError(Status.INVALID_VALUE)


@common("{}MemcpyAsync", ignored=1)
@common("{}Memcpy")
def copy(runtime: Runtime[Any], destination: int, source: int, size: int, kind: int) -> None:
    """CallError INVALID_VALUE if a device range is none or leaves its allocation."""
    runtime.check_alive()
    direction = as_int(kind)
    if not HOST_TO_HOST <= direction <= ANY_DIRECTION:
        raise CallError(runtime.wrong_direction)
    if size < 0:
        raise CallError(Status.INVALID_VALUE)
    if size:
        _check(runtime, destination, size, direction in (HOST_TO_DEVICE, DEVICE_TO_DEVICE))
        _check(runtime, source, size, direction in (DEVICE_TO_HOST, DEVICE_TO_DEVICE))
        ctypes.memmove(destination, source, size)


@common("{}MallocAsync", ignored=1)
@common("{}Malloc")
def _malloc(runtime: Runtime[Any], pointer: int, size: int) -> None:
    write_word(pointer, allocate(runtime, size, f"{runtime.prefix}Malloc"))


@common("{}FreeAsync", ignored=1)
@common("{}Free")
def free(runtime: Runtime[Any], address: int) -> None:
    """Give back what :func:`allocate` returned, or null."""
    allocation = runtime.allocations.get(address)
    if address and (allocation is None or allocation.storage is None):
        raise CallError(Status.INVALID_VALUE)
    runtime.allocations.pop(address, None)


@common("{}MemsetAsync", ignored=1)
@common("{}Memset")
def _memset(runtime: Runtime[Any], destination: int, value: int, size: int) -> None:
    runtime.check_alive()
    if size:
        _check(runtime, destination, size, True)
        ctypes.memset(destination, value & 0xFF, size)


@common("{}MemGetInfo")
def _mem_get_info(runtime: Runtime[Any], free: int, total: int) -> None:
    write_word(free, _FREE_BYTES)
    write_word(total, _TOTAL_BYTES)
