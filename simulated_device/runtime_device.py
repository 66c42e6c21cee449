"""A simulated device that a process's calls of the runtime library reach."""

from __future__ import annotations

from typing import Any

from simulated_device.closing import Closing
from simulated_device.host_memory import HostRange, extent
from simulated_device.stand_in import StandIn


class AllowedMemory(Closing):
    """Host memory that kernels may touch until :meth:`close`, or to the end of a ``with`` block."""

    def __init__(self, device: RuntimeDevice, buffers: tuple[Any, ...]) -> None:
        """Made by :meth:`RuntimeDevice.allow`."""
        self._device, self._buffers = device, buffers
        self._entries = [
            HostRange(*extent(buffer, device.stand_in.runtime.error), f"allowed buffer {n} ({type(buffer).__name__})")
            for n, buffer in enumerate(buffers)
        ]
        device.allowed.extend(self._entries)

    def close(self) -> None:
        """Take the permission back."""
        for entry in self._entries:
            self._device.allowed.remove(entry)
        self._entries, self._buffers = [], ()


class RuntimeDevice(Closing):
    """Device 0 of this process until :meth:`close`; devices may be nested.

    ``options`` go to every launch, ``last_report`` has the counts of the latest one, ``launches`` the kernels' names
    in order.
    """

    def __init__(self, stand_in: StandIn, target: Any, options: dict[str, Any]) -> None:
        """Install the device; the runtime's error if ``stand_in`` cannot be built or a real library is loaded."""
        self.stand_in, self.target, self.options = stand_in, target, options
        self.last_report: Any = None
        self.launches: list[str] = []
        self.allowed: list[HostRange] = []
        stand_in.load()
        stand_in.clear_last_error()
        stand_in.runtime.devices.append(self)

    def allow(self, *buffers: Any) -> AllowedMemory:
        """Let kernels touch torch CPU tensors (their whole storage), numpy arrays or writable buffers."""
        return AllowedMemory(self, buffers)

    def raise_pending(self) -> None:
        """Raise what went wrong inside calls since the last time, if anything did; then go on afresh."""
        self.stand_in.clear_last_error()
        self.stand_in.runtime.raise_pending()

    def close(self) -> None:
        """Uninstall the device; the one installed before comes back. Raises what is pending."""
        if self in self.stand_in.runtime.devices:
            self.stand_in.runtime.devices.remove(self)
        self.raise_pending()
