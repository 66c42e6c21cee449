"""The state behind the stand-in for the CUDA runtime, and the dispatch of its calls.

Files beside this one implement the calls as functions of (runtime, words...), registered by CUDA's name with
:func:`implements`. A function returns a number, or None for success, or raises CudaError. Any other exception is kept:
the call returns cudaErrorLaunchFailure, and the exception is raised where Python has the word again
(:meth:`CudaRuntime.raise_pending`).
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ptx_sim.cuda.errors import CudaError, Status
from ptx_sim.errors import PtxError

if TYPE_CHECKING:
    from ptx_sim.cuda.device import cuda_device
    from ptx_sim.cuda.launch_calls import Function, Image, Variable
    from ptx_sim.cuda.memory_calls import Allocation

Handler = Callable[..., int | None]
HANDLERS: dict[str, tuple[Handler, int]] = {}


def implements(*names: str) -> Callable[[Handler], Handler]:
    """Register an implementation of the CUDA functions ``names``; it takes as many words as it has parameters."""

    def register(handler: Handler) -> Handler:
        words = len(inspect.signature(handler).parameters) - 1
        for name in names:
            HANDLERS[name] = handler, words
        return handler

    return register


@dataclass
class CudaRuntime:
    """What a process's CUDA runtime knows. Devices come and go; registrations and memory stay.

    ``devices`` is the stack of installed devices, the last one current. ``functions`` and ``variables`` are keyed by
    host address, ``images`` by handle.
    """

    devices: list[cuda_device] = field(default_factory=list)
    allocations: dict[int, Allocation] = field(default_factory=dict)
    images: dict[int, Image] = field(default_factory=dict)
    functions: dict[int, Function] = field(default_factory=dict)
    variables: dict[int, Variable] = field(default_factory=dict)
    pending: list[BaseException] = field(default_factory=list)
    _handle: int = 0
    _texts: dict[bytes, Any] = field(default_factory=dict)

    @property
    def device(self) -> cuda_device:
        """The current device; CudaError NO_DEVICE if none is installed."""
        if not self.devices:
            raise CudaError(Status.NO_DEVICE)
        return self.devices[-1]

    def new_handle(self) -> int:
        """A value that is no address, for opaque handles."""
        self._handle += 16
        return self._handle

    def text(self, text: str) -> int:
        """Address of ``text`` as a C string that lives as long as the process."""
        encoded = text.encode()
        if encoded not in self._texts:
            self._texts[encoded] = ctypes.create_string_buffer(encoded)
        return ctypes.addressof(self._texts[encoded])

    def dispatch(self, name: bytes, words: Any) -> int:
        """Make the call ``name`` with the array ``words``; what the C function returns."""
        try:
            if name.decode() not in HANDLERS:
                raise PtxError(f"{name.decode()} is not modelled")
            handler, count = HANDLERS[name.decode()]
            return int(handler(self, *(words[n] for n in range(count))) or 0)
        except CudaError as error:
            return error.status
        except BaseException as error:  # also KeyboardInterrupt: nothing may pass through the C caller
            self.pending.append(error)
            return Status.LAUNCH_FAILURE

    def check_alive(self) -> None:
        """After a failed launch the device is lost until the error is raised, as on hardware."""
        if self.pending:
            raise CudaError(Status.LAUNCH_FAILURE)

    def raise_pending(self) -> None:
        """Raise what went wrong inside CUDA calls since the last time, if anything did."""
        if not self.pending:
            return
        first, *others = self.pending
        self.pending.clear()
        if others:
            listed = "; ".join(f"{type(error).__name__}: {error}" for error in others)
            raise PtxError(f"{first}\nfurther errors inside CUDA calls: {listed}") from first
        raise first


RUNTIME = CudaRuntime()


def write_int(address: int, value: int) -> None:
    """Store a C int."""
    ctypes.c_int32.from_address(_pointer(address)).value = value


def write_word(address: int, value: int) -> None:
    """Store a pointer, handle or size_t."""
    ctypes.c_uint64.from_address(_pointer(address)).value = value


def as_int(word: int) -> int:
    """The C int that came in a 64-bit word whose upper half is undefined."""
    return ctypes.c_int32(word & 0xFFFFFFFF).value


def _pointer(address: int) -> int:
    if not address:
        raise CudaError(Status.INVALID_VALUE)
    return address
