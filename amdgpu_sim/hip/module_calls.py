"""Modules and launches of the HIP stand-in: registration by compiled programs, loading by hand, launching."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amdgpu_sim.code_object import CodeObject
from amdgpu_sim.errors import SimulatorError
from amdgpu_sim.hip.errors import HipError, Status
from amdgpu_sim.hip.memory_calls import global_memory
from amdgpu_sim.hip.runtime import HipRuntime, as_unsigned, implements, write_word
from amdgpu_sim.offload_bundle import ReadImage, choose, code_objects, read_bytes, read_memory
from amdgpu_sim.targets import Target

_WRAPPER_MAGIC = 0x48495046
_LAUNCH_BUFFER, _LAUNCH_BUFFER_SIZE, _LAUNCH_END = 1, 2, 3
_MAX_WORKGROUP = 1024


@dataclass
class Module:
    """An image with code objects for one or more targets, loaded for a target when first used."""

    read: ReadImage
    images: dict[str, CodeObject] = field(default_factory=dict)

    def image(self, target: Target) -> CodeObject:
        """The code object for ``target``; HipError NO_BINARY_FOR_GPU if the image has none."""
        if target.name not in self.images:
            data = choose(code_objects(self.read), target.name)
            if data is None:
                raise HipError(Status.NO_BINARY_FOR_GPU)
            image = CodeObject(data)
            if image.target is not target:
                raise HipError(Status.NO_BINARY_FOR_GPU)
            self.images[target.name] = image
        return self.images[target.name]


@dataclass(frozen=True)
class Function:
    """Kernel ``name`` of ``module``."""

    module: Module
    name: str

    def image(self, target: Target) -> CodeObject:
        """The code object for ``target`` that holds the kernel; HipError if there is none."""
        image = self.module.image(target)
        if self.name not in image.kernels:
            raise HipError(Status.INVALID_DEVICE_FUNCTION)
        return image


@dataclass(frozen=True)
class Variable:
    """Device global ``name`` of ``module``."""

    module: Module
    name: str


def find_function(runtime: HipRuntime, key: int) -> Function:
    """The kernel of a host stub's address or of a module's function handle; HipError if it is neither."""
    if key not in runtime.functions:
        raise HipError(Status.INVALID_DEVICE_FUNCTION)
    return runtime.functions[key]


def _text(address: int) -> str:
    return ctypes.string_at(address).decode()


@implements("__hipRegisterFatBinary")
def _register_fat_binary(runtime: HipRuntime, wrapper: int) -> int:
    if ctypes.c_uint32.from_address(wrapper).value != _WRAPPER_MAGIC:
        raise SimulatorError("__hipRegisterFatBinary: the wrapper's magic number is not HIP's")
    handle = runtime.new_handle()
    runtime.binaries[handle] = Module(read_memory(ctypes.c_uint64.from_address(wrapper + 8).value))
    return handle


@implements("__hipUnregisterFatBinary")
def _unregister_fat_binary(runtime: HipRuntime, binary: int) -> None:
    module = runtime.binaries.pop(binary)
    for table in (runtime.functions, runtime.variables):
        for key in [key for key, entry in table.items() if entry.module is module]:
            del table[key]


@implements("__hipRegisterFunction")
def _register_function(runtime: HipRuntime, binary: int, function: int, device_function: int, name: int) -> None:
    runtime.functions[function] = Function(runtime.binaries[binary], _text(name))


@implements("__hipRegisterVar")
def _register_variable(
    runtime: HipRuntime, binary: int, variable: int, host_name: int, name: int, external: int, size: int
) -> None:
    runtime.variables[variable] = Variable(runtime.binaries[binary], _text(name))


@implements("__hipRegisterManagedVar")
def _register_managed(runtime: HipRuntime, binary: int, pointer: int, initial: int, name: int, size: int) -> None:
    raise SimulatorError(f"managed variable {_text(name)}: not supported")


@implements("hipModuleLoadData")
def _module_load_data(runtime: HipRuntime, handle: int, image: int) -> None:
    _load(runtime, handle, read_memory(image))


@implements("hipModuleLoadDataEx")
def _module_load_data_ex(
    runtime: HipRuntime, handle: int, image: int, count: int, options: int, option_values: int
) -> None:
    _load(runtime, handle, read_memory(image))


@implements("hipModuleLoad")
def _module_load(runtime: HipRuntime, handle: int, name: int) -> None:
    path = Path(_text(name))
    if not path.is_file():
        raise HipError(Status.FILE_NOT_FOUND)
    _load(runtime, handle, read_bytes(path.read_bytes()))


def _load(runtime: HipRuntime, handle: int, read: ReadImage) -> None:
    module = Module(read)
    module.image(runtime.device.target)
    number = runtime.new_handle()
    runtime.modules[number] = module
    write_word(handle, number)


def _module(runtime: HipRuntime, handle: int) -> Module:
    if handle not in runtime.modules:
        raise HipError(Status.INVALID_HANDLE)
    return runtime.modules[handle]


@implements("hipModuleUnload")
def _module_unload(runtime: HipRuntime, handle: int) -> None:
    module = _module(runtime, handle)
    del runtime.modules[handle]
    for key in [key for key, function in runtime.functions.items() if function.module is module]:
        del runtime.functions[key]


@implements("hipModuleGetFunction")
def _module_get_function(runtime: HipRuntime, pointer: int, handle: int, name: int) -> None:
    module = _module(runtime, handle)
    if _text(name) not in module.image(runtime.device.target).kernels:
        raise HipError(Status.NOT_FOUND)
    number = runtime.new_handle()
    runtime.functions[number] = Function(module, _text(name))
    write_word(pointer, number)


@implements("hipModuleGetGlobal")
def _module_get_global(runtime: HipRuntime, pointer: int, size: int, handle: int, name: int) -> None:
    variable = _module(runtime, handle).image(runtime.device.target).variables.get(_text(name))
    if variable is None:
        raise HipError(Status.NOT_FOUND)
    if pointer:
        write_word(pointer, variable.address)
    if size:
        write_word(size, variable.size)


@implements("hipLaunchKernel")
def _launch_kernel(
    runtime: HipRuntime, function: int, grid_x: int, grid_y: int, grid_z: int, block_x: int, block_y: int,
    block_z: int, arguments: int, shared: int, stream: int,
) -> None:  # fmt: skip
    _launch(
        runtime, find_function(runtime, function), (grid_x, grid_y, grid_z), (block_x, block_y, block_z), shared,
        arguments, 0,
    )  # fmt: skip


@implements("hipModuleLaunchKernel")
def _module_launch_kernel(
    runtime: HipRuntime, function: int, grid_x: int, grid_y: int, grid_z: int, block_x: int, block_y: int,
    block_z: int, shared: int, stream: int, arguments: int, extra: int,
) -> None:  # fmt: skip
    _launch(
        runtime, find_function(runtime, function), (grid_x, grid_y, grid_z), (block_x, block_y, block_z),
        as_unsigned(shared), arguments, extra,
    )  # fmt: skip


def _launch(
    runtime: HipRuntime, function: Function, grid: Sequence[int], block: Sequence[int], dynamic_lds: int,
    arguments: int, extra: int,
) -> None:  # fmt: skip
    """Run a kernel to its end. ``arguments`` is an array of pointers, or ``extra`` describes a packed buffer."""
    runtime.check_alive()
    device = runtime.device
    image = function.image(device.target)
    metadata = image.kernels[function.name]
    grid, block = [as_unsigned(n) for n in grid], [as_unsigned(n) for n in block]
    items = math.prod(block)
    limit = min(_MAX_WORKGROUP, metadata[".max_flat_workgroup_size"])
    required = metadata.get(".reqd_workgroup_size", block)
    lds = metadata[".group_segment_fixed_size"] + dynamic_lds
    if 0 in (*grid, *block) or items > limit or list(required) != block or not 0 <= lds <= device.target.lds_bytes:
        raise HipError(Status.INVALID_CONFIGURATION)
    explicit = [entry for entry in metadata.get(".args", ()) if not entry[".value_kind"].startswith("hidden_")]
    values = _from_pointers(arguments, explicit) if not extra else _from_buffer(extra, explicit)
    device.last_report = image.program(function.name).launch(
        grid, block, values, memory=global_memory(runtime), lds_bytes=lds, **device.options
    )


def _from_pointers(arguments: int, explicit: Sequence[dict[str, Any]]) -> list[bytes]:
    if explicit and not arguments:
        raise HipError(Status.INVALID_VALUE)
    return [
        ctypes.string_at(ctypes.c_uint64.from_address(arguments + 8 * n).value, entry[".size"])
        for n, entry in enumerate(explicit)
    ]


def _from_buffer(extra: int, explicit: Sequence[dict[str, Any]]) -> list[bytes]:
    """Arguments from HIP_LAUNCH_PARAM_*: pairs of a key and a value, up to the end key."""
    found: dict[int, int] = {}
    while (key := ctypes.c_uint64.from_address(extra).value) != _LAUNCH_END:
        if key not in (_LAUNCH_BUFFER, _LAUNCH_BUFFER_SIZE):
            raise HipError(Status.INVALID_VALUE)
        found[key] = ctypes.c_uint64.from_address(extra + 8).value
        extra += 16
    if len(found) != 2:
        raise HipError(Status.INVALID_VALUE)
    size = ctypes.c_uint64.from_address(found[_LAUNCH_BUFFER_SIZE]).value
    if any(entry[".offset"] + entry[".size"] > size for entry in explicit):
        raise HipError(Status.INVALID_VALUE)
    return [ctypes.string_at(found[_LAUNCH_BUFFER] + entry[".offset"], entry[".size"]) for entry in explicit]
