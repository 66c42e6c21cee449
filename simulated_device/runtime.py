"""The state behind the stand-in for a runtime library, and the dispatch of its calls.

A call returns a number, or None for success, or raises CallError. Any other exception is kept: the C function returns
LAUNCH_FAILURE, and the exception is raised where Python has the word again (:meth:`Runtime.raise_pending`).
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic

import simulated_device.device_calls
import simulated_device.memory_calls
import simulated_device.stream_calls
from simulated_device.calls import COMMON, HandlerTable, into
from simulated_device.host_memory import HostRange
from simulated_device.images import CodeT, Function, Image, Variable
from simulated_device.status import TEXTS, CallError, Status

if TYPE_CHECKING:
    from simulated_device.runtime_device import RuntimeDevice

_ = simulated_device  # the modules above are imported for the calls that they register


class Runtime(ABC, Generic[CodeT]):
    """What a process's runtime library knows. Devices come and go; registrations and memory stay.

    ``devices`` is the stack of installed devices, the last one current. ``images`` is keyed by handle, ``functions``
    and ``variables`` by host address or handle, ``events`` have their times. ``name`` is the interface's, ``prefix``
    that of its functions, ``error`` what is raised in Python, ``wrong_direction`` what copies of no known kind return.
    """

    name: ClassVar[str]
    prefix: ClassVar[str]
    version: ClassVar[int]
    error: ClassVar[type[Exception]]
    error_names: ClassVar[Mapping[Status, str]] = {}
    error_texts: ClassVar[Mapping[Status, str]] = {}
    wrong_direction: ClassVar[Status] = Status.INVALID_VALUE

    def __init__(self) -> None:
        """There is no device."""
        self.handlers: HandlerTable = {name.format(self.prefix): entry for name, entry in COMMON.items()}
        self.implements = into(self.handlers)
        self.devices: list[RuntimeDevice] = []
        self.allocations: dict[int, HostRange] = {}
        self.images: dict[int, Image[CodeT]] = {}
        self.functions: dict[int, Function[CodeT]] = {}
        self.variables: dict[int, Variable[CodeT]] = {}
        self.streams: set[int] = set()
        self.events: dict[int, float | None] = {}
        self.pending: list[BaseException] = []
        self._handle = 0
        self._texts: dict[str, Any] = {}

    @abstractmethod
    def image(self, wrapper: int) -> Image[CodeT]:
        """What a program registers as its fat binary."""

    @abstractmethod
    def attributes(self, target: Any) -> Mapping[int, int]:
        """The numbers and values of the device's attributes."""

    @property
    def device(self) -> RuntimeDevice:
        """The current device; CallError NO_DEVICE if none is installed."""
        if not self.devices:
            raise CallError(Status.NO_DEVICE)
        return self.devices[-1]

    def held(self) -> list[HostRange]:
        """The memory that kernels of the current device may touch, apart from variables."""
        return [*self.allocations.values(), *self.device.allowed]

    def function(self, key: int) -> Function[CodeT]:
        """The kernel of a host stub's address or of a function's handle; CallError if it is neither."""
        if key not in self.functions:
            raise CallError(Status.INVALID_DEVICE_FUNCTION)
        return self.functions[key]

    def variable(self, symbol: int) -> tuple[int, int]:
        """(address, bytes) of the device variable whose host shadow lies at ``symbol``; CallError if there is none."""
        if symbol not in self.variables:
            raise CallError(Status.INVALID_SYMBOL)
        return self.variables[symbol].range(self.device.target)

    def forget_image(self, handle: int) -> None:
        """Remove an image with its functions and variables."""
        image = self.images.pop(handle, None)
        self.functions = {key: entry for key, entry in self.functions.items() if entry.image is not image}
        self.variables = {key: entry for key, entry in self.variables.items() if entry.image is not image}

    def new_handle(self) -> int:
        """A value that is no address, for opaque handles."""
        self._handle += 16
        return self._handle

    def text(self, text: str) -> int:
        """Address of ``text`` as a C string that lives as long as the process."""
        if text not in self._texts:
            self._texts[text] = ctypes.create_string_buffer(text.encode())
        return ctypes.addressof(self._texts[text])

    def error_name(self, status: Status) -> str:
        """Such as hipErrorInvalidValue."""
        if status == Status.SUCCESS:
            return f"{self.prefix}Success"
        return self.error_names.get(status) or f"{self.prefix}Error{status.name.title().replace('_', '')}"

    def error_text(self, status: Status) -> str:
        """A status in words."""
        return self.error_texts.get(status) or TEXTS[status]

    def dispatch(self, name: bytes, words: Any) -> int:
        """Make the call ``name`` with the array ``words``; what the C function returns."""
        try:
            if name.decode() not in self.handlers:
                raise self.error(f"{name.decode()} is not modelled")
            handler, count = self.handlers[name.decode()]
            return int(handler(self, *(words[n] for n in range(count))) or 0)
        except CallError as error:
            return error.status
        except BaseException as error:  # also KeyboardInterrupt: nothing may pass through the C caller
            self.pending.append(error)
            return Status.LAUNCH_FAILURE

    def check_alive(self) -> None:
        """After a failed launch the device is lost until the error is raised, as on hardware."""
        if self.pending:
            raise CallError(Status.LAUNCH_FAILURE)

    def raise_pending(self) -> None:
        """Raise what went wrong inside calls since the last time, if anything did."""
        if not self.pending:
            return
        first, *others = self.pending
        self.pending.clear()
        if others:
            listed = "; ".join(f"{type(error).__name__}: {error}" for error in others)
            raise self.error(f"{first}\nfurther errors inside {self.name} calls: {listed}") from first
        raise first
