"""What the interpreter raises: load errors name the PTX line, faults name thread block, thread and line."""

from __future__ import annotations


class PtxError(RuntimeError):
    """Base of everything this package raises on purpose."""


class PtxSyntaxError(PtxError):
    """The PTX text cannot be read: a malformed statement, an undeclared name, no such kernel."""


class UnsupportedInstructionError(PtxError):
    """An instruction, modifier, operand or directive that the interpreter does not model; raised while loading."""


class LaunchError(PtxError):
    """A launch that no device would take: its shape, its shared memory or its arguments do not fit the kernel."""


class KernelError(PtxError):
    """The running kernel did something wrong; :meth:`locate` adds where."""

    def __init__(self, message: str, lane: int | None = None, place: int | None = None) -> None:
        """Who is to blame, where one is: ``lane`` is a number among all threads that run together, ``place`` among
        those that execute."""
        super().__init__(message)
        self.message = message
        self.lane, self.place = lane, place
        self.location = ""

    def locate(self, location: str) -> None:
        """Append where it happened, once."""
        if not self.location:
            self.location = location
            self.args = (f"{self.message}\n  at {location}",)


class OutOfBoundsError(KernelError):
    """An access outside every buffer, outside shared memory or outside local memory."""


class MisalignedError(KernelError):
    """An address that is no multiple of the access size."""


class MissingWaitError(KernelError):
    """Shared memory was touched, or its thread ended, while an asynchronous copy of it was still in flight."""


class SharedRaceError(KernelError):
    """Two warps touched the same shared bytes, one of them writing, with nothing between that orders them."""


class DivergenceError(KernelError):
    """An instruction that needs a whole warp was reached by a part of it."""


class DeadlockError(KernelError):
    """The instruction budget ran out, or nothing can run any more."""
