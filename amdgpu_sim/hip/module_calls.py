"""Modules and launches of the HIP stand-in: loading by hand, launching."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amdgpu_sim.code_object import CodeObject
from amdgpu_sim.hip.runtime import HipImage, HipRuntime, implements
from amdgpu_sim.memory import GlobalMemory
from amdgpu_sim.offload_bundle import ReadImage, read_bytes, read_memory
from simulated_device.calls import as_text, as_unsigned, pointed_bytes, write_word
from simulated_device.images import Function, Image
from simulated_device.memory_calls import visible
from simulated_device.status import CallError, Status

_LAUNCH_BUFFER, _LAUNCH_BUFFER_SIZE, _LAUNCH_END = 1, 2, 3
_MAX_WORKGROUP = 1024


@implements("hipModuleLoadDataEx", ignored=3)
@implements("hipModuleLoadData")
def _module_load_data(runtime: HipRuntime, handle: int, image: int) -> None:
    _load(runtime, handle, read_memory(image))


@implements("hipModuleLoad")
def _module_load(runtime: HipRuntime, handle: int, name: int) -> None:
    path = Path(as_text(name))
    if not path.is_file():
        raise CallError(Status.FILE_NOT_FOUND)
    _load(runtime, handle, read_bytes(path.read_bytes()))


def _load(runtime: HipRuntime, handle: int, read: ReadImage) -> None:
    image = HipImage(read)
    image.code(runtime.device.target)
    number = runtime.new_handle()
    runtime.images[number] = image
    runtime.modules.add(number)
    write_word(handle, number)


def _module(runtime: HipRuntime, handle: int) -> Image[CodeObject]:
    if handle not in runtime.modules:
        raise CallError(Status.INVALID_HANDLE)
    return runtime.images[handle]


@implements("hipModuleUnload")
def _module_unload(runtime: HipRuntime, handle: int) -> None:
    _module(runtime, handle)
    runtime.modules.remove(handle)
    runtime.forget_image(handle)


@implements("hipModuleGetFunction")
def _module_get_function(runtime: HipRuntime, pointer: int, handle: int, name: int) -> None:
    module = _module(runtime, handle)
    if as_text(name) not in module.code(runtime.device.target).kernels:
        raise CallError(Status.NOT_FOUND)
    number = runtime.new_handle()
    runtime.functions[number] = Function(module, as_text(name))
    write_word(pointer, number)


@implements("hipModuleGetGlobal")
def _module_get_global(runtime: HipRuntime, pointer: int, size: int, handle: int, name: int) -> None:
    variable = _module(runtime, handle).code(runtime.device.target).variables.get(as_text(name))
    if variable is None:
        raise CallError(Status.NOT_FOUND)
    if pointer:
        write_word(pointer, variable.address)
    if size:
        write_word(size, variable.size)


@implements("hipLaunchKernel", ignored=1)
def _launch_kernel(
    runtime: HipRuntime, function: int, grid_x: int, grid_y: int, grid_z: int, block_x: int, block_y: int,
    block_z: int, arguments: int, shared: int,
) -> None:  # fmt: skip
    _launch(runtime, function, (grid_x, grid_y, grid_z), (block_x, block_y, block_z), shared, arguments, 0)


@implements("hipModuleLaunchKernel")
def _module_launch_kernel(
    runtime: HipRuntime, function: int, grid_x: int, grid_y: int, grid_z: int, block_x: int, block_y: int,
    block_z: int, shared: int, stream: int, arguments: int, extra: int,
) -> None:  # fmt: skip
    grid, block = (grid_x, grid_y, grid_z), (block_x, block_y, block_z)
    _launch(runtime, function, grid, block, as_unsigned(shared), arguments, extra)


def _launch(
    runtime: HipRuntime, key: int, grid: Sequence[int], block: Sequence[int], dynamic_lds: int, arguments: int,
    extra: int,
) -> None:  # fmt: skip
    """Run a kernel to its end. ``arguments`` is an array of pointers, or ``extra`` describes a packed buffer."""
    function = runtime.function(key)
    runtime.check_alive()
    device = runtime.device
    image = function.code(device.target)
    metadata = image.kernels[function.name]
    grid, block = [as_unsigned(n) for n in grid], [as_unsigned(n) for n in block]
    items = math.prod(block)
    limit = min(_MAX_WORKGROUP, metadata[".max_flat_workgroup_size"])
    required = metadata.get(".reqd_workgroup_size", block)
    lds = metadata[".group_segment_fixed_size"] + dynamic_lds
    if 0 in (*grid, *block) or items > limit or list(required) != block or not 0 <= lds <= device.target.lds_bytes:
        raise CallError(Status.INVALID_CONFIGURATION)
    explicit = [entry for entry in metadata.get(".args", ()) if not entry[".value_kind"].startswith("hidden_")]
    sizes = [entry[".size"] for entry in explicit]
    values = pointed_bytes(arguments, sizes) if not extra else _from_buffer(extra, explicit)
    device.last_report = image.program(function.name).launch(
        grid, block, values, memory=visible(runtime, GlobalMemory()), lds_bytes=lds, **device.options
    )
    device.launches.append(function.name)


def _from_buffer(extra: int, explicit: Sequence[dict[str, Any]]) -> list[bytes]:
    """Arguments from HIP_LAUNCH_PARAM_*: pairs of a key and a value, up to the end key."""
    found: dict[int, int] = {}
    while (key := ctypes.c_uint64.from_address(extra).value) != _LAUNCH_END:
        if key not in (_LAUNCH_BUFFER, _LAUNCH_BUFFER_SIZE):
            raise CallError(Status.INVALID_VALUE)
        found[key] = ctypes.c_uint64.from_address(extra + 8).value
        extra += 16
    if len(found) != 2:
        raise CallError(Status.INVALID_VALUE)
    size = ctypes.c_uint64.from_address(found[_LAUNCH_BUFFER_SIZE]).value
    if any(entry[".offset"] + entry[".size"] > size for entry in explicit):
        raise CallError(Status.INVALID_VALUE)
    return [ctypes.string_at(found[_LAUNCH_BUFFER] + entry[".offset"], entry[".size"]) for entry in explicit]
