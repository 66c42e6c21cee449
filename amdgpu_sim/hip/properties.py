"""What the stand-in for the HIP runtime says of a device: the fields of hipDeviceProp_t, and attributes."""

from __future__ import annotations

import struct

from amdgpu_sim.targets import Target

_PROPERTIES_BYTES = 1472
_MAX_THREADS, _MAX_GRID = 1024, 2**31 - 1
WAVE_SLOTS, SIMDS = {9: 8, 11: 16, 12: 16}, {9: 4, 11: 2, 12: 2}
VECTOR_REGISTERS = {9: 512, 11: 1536, 12: 1536}


def _threads_per_processor(target: Target) -> int:
    return WAVE_SLOTS[target.generation] * SIMDS[target.generation] * target.wave_size


def revision(target: Target) -> tuple[int, int]:
    """(major, minor) as in the target's name: 9.4 for gfx942, 12.0 for gfx1201."""
    return target.generation, int(target.name[-2], 16)


def _properties(target: Target) -> dict[str, tuple[int, str, tuple[int | bytes, ...]]]:
    """Offset, layout and values of the known fields of hipDeviceProp_t (ROCm 6 and 7, R0600)."""
    major, minor = revision(target)
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


def attributes(target: Target) -> dict[int, int]:
    """``hipDeviceAttribute_t`` to value."""
    properties = _properties(target)
    return {number: int(properties[name][2][0]) for number, name in _ATTRIBUTES.items()}


def packed_properties(target: Target) -> bytes:
    """``hipDeviceProp_t``; fields that are not known here are 0."""
    data = bytearray(_PROPERTIES_BYTES)
    for offset, layout, values in _properties(target).values():
        struct.pack_into("<" + layout, data, offset, *values)
    return bytes(data)
