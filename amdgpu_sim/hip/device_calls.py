"""Device queries of the HIP stand-in: properties, attributes, occupancy, errors' texts."""

from __future__ import annotations

import ctypes
import struct

from amdgpu_sim.hip.errors import HipError, Status, describe
from amdgpu_sim.hip.module_calls import find_function
from amdgpu_sim.hip.runtime import HipRuntime, as_int, implements, write_int
from amdgpu_sim.targets import Target

_VERSION = 7_02_00000
_PROPERTIES_BYTES = 1472
_MAX_THREADS, _MAX_GRID = 1024, 2**31 - 1
_WAVE_SLOTS, _SIMDS = {9: 8, 11: 16, 12: 16}, {9: 4, 11: 2, 12: 2}
_VECTOR_REGISTERS = {9: 512, 11: 1536, 12: 1536}


def _threads_per_processor(target: Target) -> int:
    return _WAVE_SLOTS[target.generation] * _SIMDS[target.generation] * target.wave_size


def _revision(target: Target) -> tuple[int, int]:
    """(major, minor) as in the target's name: 9.4 for gfx942, 12.0 for gfx1201."""
    return target.generation, int(target.name[-2], 16)


def _properties(target: Target) -> dict[str, tuple[int, str, tuple[int | bytes, ...]]]:
    """Offset, layout and values of the known fields of hipDeviceProp_t (ROCm 6 and 7, R0600)."""
    major, minor = _revision(target)
    threads, lds = _threads_per_processor(target), target.lds_bytes
    return {
        "name": (0, "256s", (f"simulated {target.name}".encode(),)),
        "totalGlobalMem": (288, "Q", (64 << 30,)),
        "sharedMemPerBlock": (296, "Q", (lds,)),
        "regsPerBlock": (304, "i", (65536,)),
        "warpSize": (308, "i", (target.wave_size,)),
        "maxThreadsPerBlock": (320, "i", (_MAX_THREADS,)),
        "maxThreadsDim": (324, "3i", (_MAX_THREADS,) * 3),
        "maxGridSize": (336, "3i", (_MAX_GRID, 65536, 65536)),
        "clockRate": (348, "i", (2_100_000,)),
        "totalConstMem": (352, "Q", (2**31 - 1,)),
        "major": (360, "i", (major,)),
        "minor": (364, "i", (minor,)),
        "multiProcessorCount": (388, "i", (target.compute_units,)),
        "concurrentKernels": (576, "i", (1,)),
        "unifiedAddressing": (604, "i", (1,)),
        "memoryClockRate": (608, "i", (2_600_000,)),
        "memoryBusWidth": (612, "i", (8192,)),
        "l2CacheSize": (616, "i", (4 << 20,)),
        "maxThreadsPerMultiProcessor": (624, "i", (threads,)),
        "sharedMemPerMultiprocessor": (640, "Q", (lds,)),
        "regsPerMultiprocessor": (648, "i", (65536,)),
        "sharedMemPerBlockOptin": (696, "Q", (lds,)),
        "maxBlocksPerMultiProcessor": (712, "i", (threads // target.wave_size,)),
        "gcnArchName": (1160, "256s", (target.name.encode(),)),
        "maxSharedMemoryPerMultiProcessor": (1416, "Q", (lds,)),
    }


# hipDeviceAttribute_t of those fields of the properties that are single integers
_ATTRIBUTES = {
    5: "clockRate", 8: "concurrentKernels", 19: "l2CacheSize", 23: "major", 25: "maxBlocksPerMultiProcessor",
    56: "maxThreadsPerBlock", 57: "maxThreadsPerMultiProcessor", 59: "memoryBusWidth", 60: "memoryClockRate",
    61: "minor", 63: "multiProcessorCount", 71: "regsPerBlock", 72: "regsPerMultiprocessor",
    74: "sharedMemPerBlock", 75: "sharedMemPerBlockOptin", 76: "sharedMemPerMultiprocessor", 83: "totalConstMem",
    85: "unifiedAddressing", 87: "warpSize", 10002: "maxSharedMemoryPerMultiProcessor", 10015: "multiProcessorCount",
}  # fmt: skip


def _check_device(runtime: HipRuntime, number: int) -> Target:
    if as_int(number) != 0:
        raise HipError(Status.INVALID_DEVICE)
    return runtime.device.target


@implements("hipInit")
def _init(runtime: HipRuntime, flags: int) -> None:
    _ = runtime.device


@implements("hipGetDeviceCount")
def _get_device_count(runtime: HipRuntime, pointer: int) -> None:
    write_int(pointer, int(bool(runtime.devices)))
    _ = runtime.device


@implements("hipGetDevice")
def _get_device(runtime: HipRuntime, pointer: int) -> None:
    _ = runtime.device
    write_int(pointer, 0)


@implements("hipSetDevice")
def _set_device(runtime: HipRuntime, number: int) -> None:
    _check_device(runtime, number)


@implements("hipDeviceGet")
def _device_get(runtime: HipRuntime, pointer: int, number: int) -> None:
    _check_device(runtime, number)
    write_int(pointer, 0)


@implements("hipDeviceGetName")
def _device_get_name(runtime: HipRuntime, pointer: int, size: int, number: int) -> None:
    name = f"simulated {_check_device(runtime, number).name}".encode()[: max(as_int(size) - 1, 0)] + b"\0"
    if not pointer or as_int(size) <= 0:
        raise HipError(Status.INVALID_VALUE)
    ctypes.memmove(pointer, name, len(name))


@implements("hipGetDevicePropertiesR0600")
def _get_device_properties(runtime: HipRuntime, pointer: int, number: int) -> None:
    target = _check_device(runtime, number)
    if not pointer:
        raise HipError(Status.INVALID_VALUE)
    data = bytearray(_PROPERTIES_BYTES)
    for offset, layout, values in _properties(target).values():
        struct.pack_into("<" + layout, data, offset, *values)
    ctypes.memmove(pointer, bytes(data), len(data))


@implements("hipDeviceGetAttribute")
def _device_get_attribute(runtime: HipRuntime, pointer: int, attribute: int, number: int) -> None:
    target = _check_device(runtime, number)
    name = _ATTRIBUTES.get(as_int(attribute))
    if name is None:
        raise HipError(Status.INVALID_VALUE)
    (value,) = _properties(target)[name][2]
    write_int(pointer, int(value))


@implements("hipDeviceGetStreamPriorityRange")
def _device_get_stream_priority_range(runtime: HipRuntime, least: int, greatest: int) -> None:
    _ = runtime.device
    for pointer in (least, greatest):
        if pointer:
            write_int(pointer, 0)


@implements("hipDeviceSynchronize")
def _device_synchronize(runtime: HipRuntime) -> None:
    _ = runtime.device
    runtime.check_alive()


@implements("hipRuntimeGetVersion", "hipDriverGetVersion")
def _get_version(runtime: HipRuntime, pointer: int) -> None:
    write_int(pointer, _VERSION)


@implements("hipGetErrorName")
def _get_error_name(runtime: HipRuntime, code: int) -> int:
    return runtime.text(describe(as_int(code))[0])


@implements("hipGetErrorString")
def _get_error_string(runtime: HipRuntime, code: int) -> int:
    return runtime.text(describe(as_int(code))[1])


@implements("hipFuncGetAttributes")
def _func_get_attributes(runtime: HipRuntime, pointer: int, key: int) -> None:
    function, target = find_function(runtime, key), runtime.device.target
    metadata = function.image(target).kernels[function.name]
    lds, private = metadata[".group_segment_fixed_size"], metadata[".private_segment_fixed_size"]
    if not pointer:
        raise HipError(Status.INVALID_VALUE)
    major, minor = _revision(target)
    version = 10 * major + minor
    data = struct.pack(
        "<iiQQiiiiiQ", version, 0, 0, private, target.lds_bytes - lds, metadata[".max_flat_workgroup_size"],
        metadata[".vgpr_count"], 0, version, lds,
    )  # fmt: skip
    ctypes.memmove(pointer, data, len(data))


@implements("hipFuncSetAttribute")
def _func_set_attribute(runtime: HipRuntime, key: int, attribute: int, value: int) -> None:
    function, target = find_function(runtime, key), runtime.device.target
    used = function.image(target).kernels[function.name][".group_segment_fixed_size"]
    max_dynamic_lds, carveout = 8, 9
    if as_int(attribute) not in (max_dynamic_lds, carveout):
        raise HipError(Status.INVALID_VALUE)
    if as_int(attribute) == max_dynamic_lds and not 0 <= as_int(value) <= target.lds_bytes - used:
        raise HipError(Status.INVALID_VALUE)


@implements("hipFuncSetCacheConfig")
def _func_set_cache_config(runtime: HipRuntime, key: int, config: int) -> None:
    find_function(runtime, key)


@implements("hipOccupancyMaxActiveBlocksPerMultiprocessor")
def _occupancy(runtime: HipRuntime, pointer: int, key: int, block: int, dynamic_lds: int) -> None:
    function, target = find_function(runtime, key), runtime.device.target
    metadata = function.image(target).kernels[function.name]
    if as_int(block) <= 0:
        raise HipError(Status.INVALID_VALUE)
    waves = -(-as_int(block) // target.wave_size)
    registers = max(metadata[".vgpr_count"], 1)
    per_simd = min(_WAVE_SLOTS[target.generation], _VECTOR_REGISTERS[target.generation] // registers)
    blocks = per_simd * _SIMDS[target.generation] // waves
    if lds := metadata[".group_segment_fixed_size"] + dynamic_lds:
        blocks = min(blocks, target.lds_bytes // lds)
    write_int(pointer, blocks)


@implements("hipOccupancyMaxActiveBlocksPerMultiprocessorWithFlags")
def _occupancy_with_flags(
    runtime: HipRuntime, pointer: int, key: int, block: int, dynamic_lds: int, flags: int
) -> None:
    _occupancy(runtime, pointer, key, block, dynamic_lds)
