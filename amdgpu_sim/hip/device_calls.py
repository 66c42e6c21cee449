"""HIP's own queries of devices and kernels: properties, attributes, occupancy."""

from __future__ import annotations

import struct

from amdgpu_sim.hip.properties import SIMDS, VECTOR_REGISTERS, WAVE_SLOTS, packed_properties, revision
from amdgpu_sim.hip.runtime import HipRuntime, implements
from amdgpu_sim.targets import Target
from simulated_device.calls import as_int, write_bytes, write_int
from simulated_device.device_calls import target_of
from simulated_device.status import CallError, Status


@implements("hipInit", ignored=1)
def _init(runtime: HipRuntime) -> None:
    _ = runtime.device


@implements("hipDeviceGet")
def _device_get(runtime: HipRuntime, pointer: int, number: int) -> None:
    target_of(runtime, number)
    write_int(pointer, 0)


@implements("hipDeviceGetName")
def _device_get_name(runtime: HipRuntime, pointer: int, size: int, number: int) -> None:
    name = f"simulated {target_of(runtime, number).name}".encode()[: max(as_int(size) - 1, 0)] + b"\0"
    if as_int(size) <= 0:
        raise CallError(Status.INVALID_VALUE)
    write_bytes(pointer, name)


@implements("hipGetDevicePropertiesR0600")
def _get_device_properties(runtime: HipRuntime, pointer: int, number: int) -> None:
    write_bytes(pointer, packed_properties(target_of(runtime, number)))


@implements("hipDeviceGetStreamPriorityRange")
def _device_get_stream_priority_range(runtime: HipRuntime, least: int, greatest: int) -> None:
    _ = runtime.device
    for pointer in (least, greatest):
        if pointer:
            write_int(pointer, 0)


@implements("hipFuncGetAttributes")
def _func_get_attributes(runtime: HipRuntime, pointer: int, key: int) -> None:
    function, target = runtime.function(key), runtime.device.target
    metadata = function.code(target).kernels[function.name]
    lds, private = metadata[".group_segment_fixed_size"], metadata[".private_segment_fixed_size"]
    major, minor = revision(target)
    version = 10 * major + minor
    data = struct.pack(
        "<iiQQiiiiiQ", version, 0, 0, private, target.lds_bytes - lds, metadata[".max_flat_workgroup_size"],
        metadata[".vgpr_count"], 0, version, lds,
    )  # fmt: skip
    write_bytes(pointer, data)


@implements("hipFuncSetAttribute")
def _func_set_attribute(runtime: HipRuntime, key: int, attribute: int, value: int) -> None:
    function, target = runtime.function(key), runtime.device.target
    used = function.code(target).kernels[function.name][".group_segment_fixed_size"]
    max_dynamic_lds, carveout = 8, 9
    if as_int(attribute) not in (max_dynamic_lds, carveout):
        raise CallError(Status.INVALID_VALUE)
    if as_int(attribute) == max_dynamic_lds and not 0 <= as_int(value) <= target.lds_bytes - used:
        raise CallError(Status.INVALID_VALUE)


@implements("hipOccupancyMaxActiveBlocksPerMultiprocessorWithFlags", ignored=1)
@implements("hipOccupancyMaxActiveBlocksPerMultiprocessor")
def _occupancy(runtime: HipRuntime, pointer: int, key: int, block: int, dynamic_lds: int) -> None:
    function = runtime.function(key)
    target: Target = runtime.device.target
    metadata = function.code(target).kernels[function.name]
    if as_int(block) <= 0:
        raise CallError(Status.INVALID_VALUE)
    waves = -(-as_int(block) // target.wave_size)
    registers = max(metadata[".vgpr_count"], 1)
    per_simd = min(WAVE_SLOTS[target.generation], VECTOR_REGISTERS[target.generation] // registers)
    blocks = per_simd * SIMDS[target.generation] // waves
    if lds := metadata[".group_segment_fixed_size"] + dynamic_lds:
        blocks = min(blocks, target.lds_bytes // lds)
    write_int(pointer, blocks)
