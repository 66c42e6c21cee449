"""Device queries, streams and events of the CUDA stand-in. Every call has ended when it returns."""

from __future__ import annotations

import ctypes
import struct

from ptx_sim.cuda.errors import CudaError, Status
from ptx_sim.cuda.runtime import CudaRuntime, as_int, implements, write_int, write_word
from ptx_sim.targets import Target

_VERSION = 13000
_PROPERTIES_BYTES = 1008  # of cudaDeviceProp


def _attributes(target: Target) -> dict[int, int]:
    """``cudaDeviceAttr`` to value."""
    major, minor = target.capability
    return {
        1: 1024,  # threads of a block, then along each axis, then blocks along each axis
        2: 1024, 3: 1024, 4: 64, 5: 2**31 - 1, 6: 65535, 7: 65535,
        8: 48 << 10,  # shared memory of a block that did not ask for more
        10: 32,  # threads of a warp
        12: 65536,  # registers of a block
        13: 1_400_000,  # clock in kHz
        16: target.processors,
        38: 40 << 20,  # second-level cache
        39: target.threads_per_processor,
        41: 1,  # unified addressing
        75: major,
        76: minor,
        81: target.shared_bytes_per_processor,
        82: 65536,  # registers of a processor
        97: target.shared_bytes,
        106: target.threads_per_processor // 64,  # blocks of a processor
        111: 1 << 10,  # shared memory that the system takes of each block
    }  # fmt: skip


def _check_device(runtime: CudaRuntime, number: int) -> Target:
    if as_int(number) != 0:
        raise CudaError(Status.INVALID_DEVICE)
    return runtime.device.target


@implements("cudaGetDeviceCount")
def _get_device_count(runtime: CudaRuntime, pointer: int) -> None:
    write_int(pointer, int(bool(runtime.devices)))
    _ = runtime.device


@implements("cudaGetDevice")
def _get_device(runtime: CudaRuntime, pointer: int) -> None:
    _ = runtime.device
    write_int(pointer, 0)


@implements("cudaSetDevice")
def _set_device(runtime: CudaRuntime, number: int) -> None:
    _check_device(runtime, number)


@implements("cudaDeviceGetAttribute")
def _device_get_attribute(runtime: CudaRuntime, pointer: int, attribute: int, number: int) -> None:
    values = _attributes(_check_device(runtime, number))
    if as_int(attribute) not in values:
        raise CudaError(Status.INVALID_VALUE)
    write_int(pointer, values[as_int(attribute)])


@implements("cudaGetDeviceProperties")
def _get_device_properties(runtime: CudaRuntime, pointer: int, number: int) -> None:
    """Name, shared memory, registers and compute capability of cudaDeviceProp as CUDA 13 lays it out; the rest is 0."""
    target = _check_device(runtime, number)
    values = _attributes(target)
    properties = bytearray(_PROPERTIES_BYTES)
    struct.pack_into("256s", properties, 0, f"simulated {target.name}".encode())
    struct.pack_into("<Qii", properties, 296, values[8], values[12], values[10])
    struct.pack_into("<ii", properties, 360, *target.capability)
    ctypes.memmove(pointer, bytes(properties), len(properties))


@implements("cudaRuntimeGetVersion", "cudaDriverGetVersion")
def _get_version(runtime: CudaRuntime, pointer: int) -> None:
    write_int(pointer, _VERSION)


@implements("cudaGetErrorName", "cudaGetErrorString")
def _get_error_name(runtime: CudaRuntime, code: int) -> int:
    return runtime.text(Status(as_int(code)).runtime_name)


@implements("cudaDeviceSynchronize", "cudaStreamSynchronize", "cudaStreamQuery", "cudaStreamWaitEvent",
            "cudaEventRecord", "cudaEventRecordWithFlags", "cudaEventSynchronize", "cudaEventQuery",
            "cudaStreamDestroy", "cudaEventDestroy")  # fmt: skip
def _done_already(runtime: CudaRuntime) -> None:
    _ = runtime.device
    runtime.check_alive()


@implements("cudaStreamCreate", "cudaStreamCreateWithFlags", "cudaStreamCreateWithPriority", "cudaEventCreate",
            "cudaEventCreateWithFlags")  # fmt: skip
def _create(runtime: CudaRuntime, pointer: int) -> None:
    write_word(pointer, runtime.new_handle())


@implements("cudaStreamIsCapturing")
def _stream_is_capturing(runtime: CudaRuntime, stream: int, pointer: int) -> None:
    write_int(pointer, 0)
