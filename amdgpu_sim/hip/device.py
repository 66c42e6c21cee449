"""The HIP front door: programs built by clang or hipcc for AMD GPUs run in this process, on the simulator."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

import numpy as np

from amdgpu_sim.code_object import CodeObject
from amdgpu_sim.errors import SimulatorError
from amdgpu_sim.hip.errors import HipError, Status
from amdgpu_sim.hip.library import clear_last_error, load_library
from amdgpu_sim.hip.memory_calls import Allocation
from amdgpu_sim.hip.runtime import RUNTIME
from amdgpu_sim.report import RunReport
from amdgpu_sim.targets import find_target


def _extent(buffer: Any) -> tuple[int, int]:
    """(address, bytes) of the memory behind a torch tensor (its storage), a numpy array or a buffer."""
    if hasattr(buffer, "untyped_storage"):
        if buffer.device.type != "cpu":
            raise SimulatorError(f"buffer: CPU tensor expected, got one on {buffer.device}")
        storage = buffer.untyped_storage()
        return storage.data_ptr(), storage.nbytes()
    if isinstance(buffer, np.ndarray):
        low, high = np.lib.array_utils.byte_bounds(buffer)
        return low, high - low
    data = np.frombuffer(buffer, np.uint8)
    return data.ctypes.data, data.nbytes


class AllowedMemory:
    """Host memory that kernels may touch until :meth:`close`, or to the end of a ``with`` block."""

    def __init__(self, device: hip_device, buffers: tuple[Any, ...]) -> None:
        """Made by :meth:`hip_device.allow`."""
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


class hip_device:  # noqa: N801 - used like a function
    """Make this process's HIP calls reach the simulated ``name`` ("gfx942", "gfx1201"...), as device 0.

    Load extensions and libraries that need libamdhip64 afterwards. A plain call installs the device until
    :meth:`close`; as a context manager it ends with the block, and devices may be nested. ``options`` go to
    :func:`amdgpu_sim.execution.launch`. Kernels may touch what ``hipMalloc`` and its kin returned and what
    :meth:`allow` names. ``last_report`` is the :class:`RunReport` of the latest launch.

    An error inside a launch makes the HIP call return hipErrorLaunchFailure, as do later ones, and its
    exception is raised by :meth:`raise_pending` and :meth:`close`. ValueError for an unknown target,
    SimulatorError if the stand-in for the HIP runtime cannot be built or a real one is loaded.
    """

    def __init__(self, name: str, **options: Any) -> None:
        """Install the device."""
        self.target = find_target(name)
        self.options = options
        self.last_report: RunReport | None = None
        self.allowed: list[Allocation] = []
        if sys.platform != "linux":
            raise SimulatorError(f"the HIP front door is for Linux, this is {sys.platform}")
        load_library()
        clear_last_error()
        RUNTIME.devices.append(self)

    def allow(self, *buffers: Any) -> AllowedMemory:
        """Let kernels touch torch CPU tensors (their whole storage), numpy arrays or writable buffers."""
        return AllowedMemory(self, buffers)

    def images(self) -> list[CodeObject]:
        """The code objects loaded for this target."""
        modules = [*RUNTIME.binaries.values(), *RUNTIME.modules.values()]
        return [image for module in modules for name, image in module.images.items() if name == self.target.name]

    def variable(self, symbol: int) -> tuple[int, int]:
        """(address, size) of the device global whose host shadow lies at ``symbol``; HipError if there is none."""
        if symbol not in RUNTIME.variables:
            raise HipError(Status.INVALID_SYMBOL)
        variable = RUNTIME.variables[symbol]
        held = variable.module.image(self.target).variables.get(variable.name)
        if held is None:
            raise HipError(Status.INVALID_SYMBOL)
        return held.address, held.size

    def raise_pending(self) -> None:
        """Raise what went wrong inside HIP calls since the last time, if anything did; then go on afresh."""
        clear_last_error()
        RUNTIME.raise_pending()

    def close(self) -> None:
        """Uninstall the device; the one installed before comes back. Raises what is pending."""
        if self in RUNTIME.devices:
            RUNTIME.devices.remove(self)
        self.raise_pending()

    def __enter__(self) -> hip_device:
        """The device itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Uninstall the device; a pending error comes before ``error``, its consequence."""
        self.close()
