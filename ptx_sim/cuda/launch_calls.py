"""Registration by compiled programs, attributes of kernels and launches of the CUDA stand-in."""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass, field

from ptx_sim.cuda.errors import CudaError, Status
from ptx_sim.cuda.fat_binary import ptx_for
from ptx_sim.cuda.memory_calls import global_memory
from ptx_sim.cuda.runtime import CudaRuntime, as_int, implements, write_int, write_word
from ptx_sim.errors import PtxError
from ptx_sim.module import Kernel, Module, load
from ptx_sim.targets import Target

# dynamic shared memory that a kernel may have without asking
_USUAL_SHARED = 48 << 10
_MAX_DYNAMIC_SHARED, _CARVEOUT = 8, 9


@dataclass
class Image:
    """A registered fat binary; its PTX is loaded for a target when first used."""

    wrapper: int
    modules: dict[str, Module] = field(default_factory=dict)

    def module(self, target: Target) -> Module:
        """The module for ``target``; CudaError NO_KERNEL_IMAGE_FOR_DEVICE if there is no PTX for it."""
        if target.name not in self.modules:
            text = ptx_for(self.wrapper, target)
            if text is None:
                raise CudaError(Status.NO_KERNEL_IMAGE_FOR_DEVICE)
            self.modules[target.name] = load(text)
        return self.modules[target.name]


@dataclass
class Function:
    """Kernel ``name`` of ``image``, with the dynamic shared memory that it may have."""

    image: Image
    name: str
    max_dynamic_shared: int = _USUAL_SHARED

    def kernel(self, target: Target) -> Kernel:
        """The decoded kernel; CudaError INVALID_DEVICE_FUNCTION if the module lacks it."""
        module = self.image.module(target)
        if self.name not in module.kernels:
            raise CudaError(Status.INVALID_DEVICE_FUNCTION)
        return module.kernel(self.name)


@dataclass(frozen=True)
class Variable:
    """Device variable ``name`` of ``image``."""

    image: Image
    name: str


def _function(runtime: CudaRuntime, key: int) -> Function:
    if key not in runtime.functions:
        raise CudaError(Status.INVALID_DEVICE_FUNCTION)
    return runtime.functions[key]


def _text(address: int) -> str:
    return ctypes.string_at(address).decode()


@implements("__cudaRegisterFatBinary")
def _register_fat_binary(runtime: CudaRuntime, wrapper: int) -> int:
    handle = runtime.new_handle()
    runtime.images[handle] = Image(wrapper)
    return handle


@implements("__cudaUnregisterFatBinary")
def _unregister_fat_binary(runtime: CudaRuntime, handle: int) -> None:
    image = runtime.images.pop(handle, None)
    for table in (runtime.functions, runtime.variables):
        for key in [key for key, entry in table.items() if entry.image is image]:
            del table[key]


@implements("__cudaRegisterFunction")
def _register_function(runtime: CudaRuntime, handle: int, function: int, device_function: int, name: int) -> None:
    runtime.functions[function] = Function(runtime.images[handle], _text(name))


@implements("__cudaRegisterVar")
def _register_variable(runtime: CudaRuntime, handle: int, variable: int, device_variable: int, name: int) -> None:
    runtime.variables[variable] = Variable(runtime.images[handle], _text(name))


@implements("__cudaRegisterManagedVar")
def _register_managed(runtime: CudaRuntime, handle: int, variable: int, device_variable: int, name: int) -> None:
    raise PtxError(f"managed variable {_text(name)}: not modelled")


@implements("__cudaGetKernel")
def _get_kernel(runtime: CudaRuntime, pointer: int, function: int) -> None:
    write_word(pointer, function)


@implements("cudaGetSymbolAddress")
def _get_symbol_address(runtime: CudaRuntime, pointer: int, symbol: int) -> None:
    if symbol not in runtime.variables:
        raise CudaError(Status.INVALID_SYMBOL)
    variable = runtime.variables[symbol]
    write_word(pointer, variable.image.module(runtime.device.target).variables[variable.name].ctypes.data)


@implements("cudaFuncSetAttribute")
def _func_set_attribute(runtime: CudaRuntime, key: int, attribute: int, value: int) -> None:
    function, target = _function(runtime, key), runtime.device.target
    if as_int(attribute) == _CARVEOUT:
        return
    if as_int(attribute) != _MAX_DYNAMIC_SHARED:
        raise PtxError(f"cudaFuncSetAttribute: attribute {as_int(attribute)} is not modelled")
    static = function.kernel(target).program.static_shared
    if not 0 <= as_int(value) <= target.shared_bytes - static:
        raise CudaError(Status.INVALID_VALUE)
    function.max_dynamic_shared = as_int(value)


@implements("cudaFuncGetAttributes")
def _func_get_attributes(runtime: CudaRuntime, pointer: int, key: int) -> None:
    """The fields of cudaFuncAttributes up to the dynamic shared memory; registers are unknown and given as 0."""
    function, target = _function(runtime, key), runtime.device.target
    program = function.kernel(target).program
    major, minor = target.capability
    version = 10 * major + minor
    data = struct.pack("<QQQiiiiii", program.static_shared, 0, program.local_bytes, 1024, 0, version, version, 0,
                       function.max_dynamic_shared)  # fmt: skip
    ctypes.memmove(pointer, data, len(data))


@implements("cudaFuncSetCacheConfig")
def _func_set_cache_config(runtime: CudaRuntime, key: int) -> None:
    _function(runtime, key)


@implements("cudaOccupancyMaxActiveBlocksPerMultiprocessor", "cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags")
def _occupancy(runtime: CudaRuntime, pointer: int, key: int, threads: int, dynamic: int) -> None:
    """Bounded by threads and shared memory; registers are unknown before PTX is compiled."""
    target = runtime.device.target
    shared = _function(runtime, key).kernel(target).program.shared_bytes(dynamic) + (1 << 10)
    if as_int(threads) <= 0:
        raise CudaError(Status.INVALID_VALUE)
    write_int(
        pointer, min(target.threads_per_processor // as_int(threads), target.shared_bytes_per_processor // shared)
    )


@implements("cudaLaunchKernel")
def _launch_kernel(
    runtime: CudaRuntime, key: int, grid_x: int, grid_y: int, grid_z: int, block_x: int, block_y: int, block_z: int,
    arguments: int, shared: int,
) -> None:  # fmt: skip
    """Run a kernel to its end; ``arguments`` is an array of pointers."""
    runtime.check_alive()
    device, function = runtime.device, _function(runtime, key)
    kernel = function.kernel(device.target)
    grid, block = (grid_x, grid_y, grid_z), (block_x, block_y, block_z)
    if shared > function.max_dynamic_shared:
        raise CudaError(Status.INVALID_VALUE)
    if kernel.program.shared_bytes(shared) > device.target.shared_bytes or 0 in (*grid, *block):
        raise CudaError(Status.INVALID_CONFIGURATION)
    values = [
        ctypes.string_at(ctypes.c_uint64.from_address(arguments + 8 * number).value, size)
        for number, (_, size) in enumerate(kernel.program.parameters)
    ]
    device.last_report = kernel.launch(grid, block, shared, values, memory=global_memory(runtime), **device.options)
    device.launches.append(function.name)
