"""The CUDA front door: programs that nvcc built with PTX in them run in this process, on the CPU."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

import numpy as np

from ptx_sim.cuda.library import clear_last_error, load_library
from ptx_sim.cuda.memory_calls import Allocation
from ptx_sim.cuda.runtime import RUNTIME
from ptx_sim.errors import PtxError
from ptx_sim.report import RunReport
from ptx_sim.targets import find_target


def _extent(buffer: Any) -> tuple[int, int]:
    """(address, bytes) of the memory behind a torch tensor (its storage), a numpy array or a buffer."""
    if hasattr(buffer, "untyped_storage"):
        if buffer.device.type != "cpu":
            raise PtxError(f"buffer: CPU tensor expected, got one on {buffer.device}")
        storage = buffer.untyped_storage()
        return storage.data_ptr(), storage.nbytes()
    if isinstance(buffer, np.ndarray):
        low, high = np.lib.array_utils.byte_bounds(buffer)
        return low, high - low
    data = np.frombuffer(buffer, np.uint8)
    return data.ctypes.data, data.nbytes


class AllowedMemory:
    """Host memory that kernels may touch until :meth:`close`, or to the end of a ``with`` block."""

    def __init__(self, device: cuda_device, buffers: tuple[Any, ...]) -> None:
        """Made by :meth:`cuda_device.allow`."""
        self._device, self._buffers = device, buffers
        self._entries = [
            Allocation(*_extent(buffer), f"allowed buffer {n} ({type(buffer).__name__})", None)
            for n, buffer in enumerate(buffers)
        ]
        device.allowed.extend(self._entries)

    def close(self) -> None:
        """Take the permission back."""
        for entry in self._entries:
            self._device.allowed.remove(entry)
        self._entries, self._buffers = [], ()

    def __enter__(self) -> AllowedMemory:
        """The permission itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the permission back."""
        self.close()


class cuda_device:  # noqa: N801 - used like a function
    """Make this process's CUDA calls reach the simulated ``name`` ("sm_80", "sm_90"...), as device 0.

    Load libraries that need libcudart.so.13 afterwards; they must hold PTX (``-gencode arch=compute_80,code=compute_80
    --cudart shared``). A plain call installs the device until :meth:`close`; as a context manager it ends with the
    block, and devices may be nested. ``options`` go to :meth:`ptx_sim.module.Kernel.launch`. Kernels may touch what
    ``cudaMalloc`` returned and what :meth:`allow` names. ``last_report`` is the :class:`RunReport` of the latest
    launch, ``launches`` the kernels' names in order.

    An error inside a launch makes the CUDA call return cudaErrorLaunchFailure, as do later ones, and its exception is
    raised by :meth:`raise_pending` and :meth:`close`. ValueError for an unknown target, PtxError if the stand-in for
    the CUDA runtime cannot be built or a real one is loaded.
    """

    def __init__(self, name: str, **options: Any) -> None:
        """Install the device."""
        self.target = find_target(name)
        self.options = options
        self.last_report: RunReport | None = None
        self.launches: list[str] = []
        self.allowed: list[Allocation] = []
        if sys.platform != "linux":
            raise PtxError(f"the CUDA front door is for Linux, this is {sys.platform}")
        load_library()
        clear_last_error()
        RUNTIME.devices.append(self)

    def allow(self, *buffers: Any) -> AllowedMemory:
        """Let kernels touch torch CPU tensors (their whole storage), numpy arrays or writable buffers."""
        return AllowedMemory(self, buffers)

    def raise_pending(self) -> None:
        """Raise what went wrong inside CUDA calls since the last time, if anything did; then go on afresh."""
        clear_last_error()
        RUNTIME.raise_pending()

    def close(self) -> None:
        """Uninstall the device; the one installed before comes back. Raises what is pending."""
        if self in RUNTIME.devices:
            RUNTIME.devices.remove(self)
        self.raise_pending()

    def __enter__(self) -> cuda_device:
        """The device itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Uninstall the device; a pending error comes before ``error``, its consequence."""
        self.close()
