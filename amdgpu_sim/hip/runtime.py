"""The HIP runtime of this process; files beside this one implement the calls that only HIP has."""

from __future__ import annotations

import ctypes

from amdgpu_sim.code_object import CodeObject
from amdgpu_sim.errors import SimulatorError
from amdgpu_sim.hip.properties import attributes
from amdgpu_sim.offload_bundle import ReadImage, choose, code_objects, read_memory
from amdgpu_sim.targets import Target
from simulated_device.images import Image
from simulated_device.runtime import Runtime
from simulated_device.status import Status

_WRAPPER_MAGIC = 0x48495046


class HipImage(Image[CodeObject]):
    """A code object, or a bundle of them."""

    def __init__(self, read: ReadImage) -> None:
        """``read`` gives the image's bytes."""
        super().__init__()
        self._read = read

    def load(self, target: Target) -> CodeObject | None:
        data = choose(code_objects(self._read), target.name)
        image = None if data is None else CodeObject(data)
        return image if image and image.target is target else None

    def ranges(self, code: CodeObject) -> dict[str, tuple[int, int]]:
        return {name: (variable.address, variable.size) for name, variable in code.variables.items()}


class HipRuntime(Runtime[CodeObject]):
    """``modules`` are the handles of images that programs loaded by hand."""

    name, prefix, version = "HIP", "hip", 7_02_00000
    error = SimulatorError
    error_texts = {Status.NO_DEVICE: "no ROCm-capable device is detected"}  # noqa: RUF012 - read only

    def __init__(self) -> None:
        """There is no device."""
        super().__init__()
        self.modules: set[int] = set()

    def image(self, wrapper: int) -> HipImage:
        if ctypes.c_uint32.from_address(wrapper).value != _WRAPPER_MAGIC:
            raise SimulatorError("__hipRegisterFatBinary: the wrapper's magic number is not HIP's")
        return HipImage(read_memory(ctypes.c_uint64.from_address(wrapper + 8).value))

    def attributes(self, target: Target) -> dict[int, int]:
        return attributes(target)


RUNTIME = HipRuntime()
HANDLERS, implements = RUNTIME.handlers, RUNTIME.implements
