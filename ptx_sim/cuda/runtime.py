"""The CUDA runtime of this process; files beside this one implement the calls that only CUDA has."""

from __future__ import annotations

from ptx_sim.cuda.fat_binary import ptx_for
from ptx_sim.cuda.properties import attributes
from ptx_sim.errors import PtxError
from ptx_sim.module import Module, load
from ptx_sim.targets import Target
from simulated_device.images import Function, Image
from simulated_device.runtime import Runtime
from simulated_device.status import Status


class CudaImage(Image[Module]):
    """A fat binary with PTX in it."""

    def __init__(self, wrapper: int) -> None:
        """``wrapper`` is the address of what compiled programs register."""
        super().__init__()
        self._wrapper = wrapper

    def load(self, target: Target) -> Module | None:
        text = ptx_for(self._wrapper, target)
        return None if text is None else load(text)

    def ranges(self, code: Module) -> dict[str, tuple[int, int]]:
        return {name: (data.ctypes.data, data.nbytes) for name, data in code.variables.items()}


class CudaRuntime(Runtime[Module]):
    """``max_dynamic_shared`` has the dynamic shared memory that kernels asked for, in bytes."""

    name, prefix, version = "CUDA", "cuda", 13000
    error = PtxError
    error_names = {  # noqa: RUF012 - read only
        Status.OUT_OF_MEMORY: "cudaErrorMemoryAllocation",
        Status.DEINITIALIZED: "cudaErrorCudartUnloading",
        Status.NO_BINARY_FOR_GPU: "cudaErrorNoKernelImageForDevice",
        Status.INVALID_HANDLE: "cudaErrorInvalidResourceHandle",
    }
    error_texts = {Status.NO_DEVICE: "no CUDA-capable device is detected"}  # noqa: RUF012 - read only

    wrong_direction = Status.INVALID_MEMCPY_DIRECTION

    def __init__(self) -> None:
        """There is no device."""
        super().__init__()
        self.max_dynamic_shared: dict[Function[Module], int] = {}

    def image(self, wrapper: int) -> CudaImage:
        return CudaImage(wrapper)

    def attributes(self, target: Target) -> dict[int, int]:
        return attributes(target)


RUNTIME = CudaRuntime()
implements = RUNTIME.implements
