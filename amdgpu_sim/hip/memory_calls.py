"""HIP's own memory calls: host memory, copies in a fixed direction, device variables by symbol."""

from __future__ import annotations

from amdgpu_sim.hip.runtime import HipRuntime, implements
from simulated_device.calls import write_word
from simulated_device.host_memory import HostRange
from simulated_device.memory_calls import (
    DEVICE_TO_DEVICE,
    DEVICE_TO_HOST,
    HOST_TO_DEVICE,
    allocate,
    copy,
    free,
    holder,
)
from simulated_device.status import CallError, Status

implements("hipHostFree")(free)
implements("hipMemcpyWithStream", ignored=1)(copy)


@implements("hipMallocManaged", "hipHostMalloc", ignored=1)
def _malloc_with_flags(runtime: HipRuntime, pointer: int, size: int) -> None:
    write_word(pointer, allocate(runtime, size, "hipMallocManaged or hipHostMalloc"))


@implements("hipHostRegister", ignored=1)
def _host_register(runtime: HipRuntime, address: int, size: int) -> None:
    if not address or size <= 0 or address in runtime.allocations:
        raise CallError(Status.INVALID_VALUE)
    runtime.allocations[address] = HostRange(address, size, "hipHostRegister")


@implements("hipHostUnregister")
def _host_unregister(runtime: HipRuntime, address: int) -> None:
    allocation = runtime.allocations.get(address)
    if allocation is None or allocation.storage is not None:
        raise CallError(Status.INVALID_VALUE)
    del runtime.allocations[address]


@implements("hipHostGetDevicePointer", ignored=1)
def _host_get_device_pointer(runtime: HipRuntime, pointer: int, address: int) -> None:
    if holder(runtime, address) is None:
        raise CallError(Status.INVALID_VALUE)
    write_word(pointer, address)


@implements("hipMemcpyHtoD")
def _memcpy_to_device(runtime: HipRuntime, destination: int, source: int, size: int) -> None:
    copy(runtime, destination, source, size, HOST_TO_DEVICE)


@implements("hipMemcpyDtoH")
def _memcpy_to_host(runtime: HipRuntime, destination: int, source: int, size: int) -> None:
    copy(runtime, destination, source, size, DEVICE_TO_HOST)


@implements("hipMemcpyDtoD")
def _memcpy_on_device(runtime: HipRuntime, destination: int, source: int, size: int) -> None:
    copy(runtime, destination, source, size, DEVICE_TO_DEVICE)


def _variable_address(runtime: HipRuntime, symbol: int, size: int, offset: int) -> int:
    address, held = runtime.variable(symbol)
    if offset < 0 or size < 0 or offset + size > held:
        raise CallError(Status.INVALID_VALUE)
    return address + offset


@implements("hipMemcpyToSymbolAsync", ignored=1)
@implements("hipMemcpyToSymbol")
def _memcpy_to_symbol(runtime: HipRuntime, symbol: int, source: int, size: int, offset: int, kind: int) -> None:
    copy(runtime, _variable_address(runtime, symbol, size, offset), source, size, kind)


@implements("hipMemcpyFromSymbolAsync", ignored=1)
@implements("hipMemcpyFromSymbol")
def _memcpy_from_symbol(runtime: HipRuntime, target: int, symbol: int, size: int, offset: int, kind: int) -> None:
    copy(runtime, target, _variable_address(runtime, symbol, size, offset), size, kind)


@implements("hipGetSymbolSize")
def _get_symbol_size(runtime: HipRuntime, pointer: int, symbol: int) -> None:
    write_word(pointer, runtime.variable(symbol)[1])
