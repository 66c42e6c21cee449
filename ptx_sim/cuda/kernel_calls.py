"""Properties of devices, attributes of kernels and launches of the CUDA stand-in."""

from __future__ import annotations

import struct

from ptx_sim.cuda.properties import packed_properties
from ptx_sim.cuda.runtime import CudaRuntime, implements
from ptx_sim.errors import PtxError
from ptx_sim.memory import GlobalMemory
from ptx_sim.module import Kernel, Module
from simulated_device.calls import as_int, pointed_bytes, write_bytes, write_int, write_word
from simulated_device.device_calls import target_of
from simulated_device.images import Function
from simulated_device.memory_calls import visible
from simulated_device.status import CallError, Status
from simulated_device.stream_calls import event_record

# dynamic shared memory that a kernel may have without asking
_USUAL_SHARED = 48 << 10
_MAX_DYNAMIC_SHARED, _CARVEOUT = 8, 9

implements("cudaEventRecordWithFlags", ignored=1)(event_record)


def _kernel(runtime: CudaRuntime, function: Function[Module]) -> Kernel:
    return function.code(runtime.device.target).kernel(function.name)


@implements("cudaGetDeviceProperties")
def _get_device_properties(runtime: CudaRuntime, pointer: int, number: int) -> None:
    write_bytes(pointer, packed_properties(target_of(runtime, number)))


@implements("__cudaGetKernel")
def _get_kernel(runtime: CudaRuntime, pointer: int, function: int) -> None:
    write_word(pointer, function)


@implements("cudaFuncSetAttribute")
def _func_set_attribute(runtime: CudaRuntime, key: int, attribute: int, value: int) -> None:
    function, target = runtime.function(key), runtime.device.target
    if as_int(attribute) == _CARVEOUT:
        return
    if as_int(attribute) != _MAX_DYNAMIC_SHARED:
        raise PtxError(f"cudaFuncSetAttribute: attribute {as_int(attribute)} is not modelled")
    static = _kernel(runtime, function).program.static_shared
    if not 0 <= as_int(value) <= target.shared_bytes - static:
        raise CallError(Status.INVALID_VALUE)
    runtime.max_dynamic_shared[function] = as_int(value)


@implements("cudaFuncGetAttributes")
def _func_get_attributes(runtime: CudaRuntime, pointer: int, key: int) -> None:
    """The fields of cudaFuncAttributes up to the dynamic shared memory; registers are unknown and given as 0."""
    function = runtime.function(key)
    program = _kernel(runtime, function).program
    major, minor = runtime.device.target.capability
    version = 10 * major + minor
    data = struct.pack("<QQQiiiiii", program.static_shared, 0, program.local_bytes, 1024, 0, version, version, 0,
                       runtime.max_dynamic_shared.get(function, _USUAL_SHARED))  # fmt: skip
    write_bytes(pointer, data)


@implements("cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags", ignored=1)
@implements("cudaOccupancyMaxActiveBlocksPerMultiprocessor")
def _occupancy(runtime: CudaRuntime, pointer: int, key: int, threads: int, dynamic: int) -> None:
    """Bounded by threads and shared memory; registers are unknown before PTX is compiled."""
    target = runtime.device.target
    shared = _kernel(runtime, runtime.function(key)).program.shared_bytes(dynamic) + (1 << 10)
    if as_int(threads) <= 0:
        raise CallError(Status.INVALID_VALUE)
    write_int(
        pointer, min(target.threads_per_processor // as_int(threads), target.shared_bytes_per_processor // shared)
    )


@implements("cudaLaunchKernel", ignored=1)
def _launch_kernel(
    runtime: CudaRuntime, key: int, grid_x: int, grid_y: int, grid_z: int, block_x: int, block_y: int, block_z: int,
    arguments: int, shared: int,
) -> None:  # fmt: skip
    """Run a kernel to its end; ``arguments`` is an array of pointers."""
    runtime.check_alive()
    device, function = runtime.device, runtime.function(key)
    kernel = _kernel(runtime, function)
    grid, block = (grid_x, grid_y, grid_z), (block_x, block_y, block_z)
    if shared > runtime.max_dynamic_shared.get(function, _USUAL_SHARED):
        raise CallError(Status.INVALID_VALUE)
    if kernel.program.shared_bytes(shared) > device.target.shared_bytes or 0 in (*grid, *block):
        raise CallError(Status.INVALID_CONFIGURATION)
    values = pointed_bytes(arguments, [size for _, size in kernel.program.parameters])
    memory = visible(runtime, GlobalMemory())
    device.last_report = kernel.launch(grid, block, shared, values, memory=memory, **device.options)
    device.launches.append(function.name)
