"""What the simulator raises: load errors name the assembly line, faults name work-group, wave, lane and
line."""

from __future__ import annotations


class SimulatorError(RuntimeError):
    """Base of everything this package raises on purpose."""


class AssemblyError(SimulatorError):
    """The assembly text cannot be read: no such kernel, a missing directive, a malformed operand."""


class UnsupportedInstructionError(SimulatorError):
    """An instruction, operand or modifier that the simulator does not model; raised while loading."""


class KernelError(SimulatorError):
    """The running kernel did something wrong.

    ``slot`` (position in the executing bundle) and ``lane`` are given where the fault is found;
    the executor turns them into work-group, wave and source line with :meth:`locate`.
    """

    def __init__(self, message: str, slot: int = 0, lane: int | None = None) -> None:
        """``slot`` and ``lane`` as far as they are known where the fault is found."""
        super().__init__(message)
        self.message = message
        self.slot = slot
        self.lane = lane
        self.location = ""

    def locate(self, location: str) -> None:
        """Append where it happened, once."""
        if not self.location:
            self.location = location
            lane = "" if self.lane is None else f", lane {self.lane}"
            self.args = (f"{self.message}\n  at {location}{lane}",)


class OutOfBoundsError(KernelError):
    """An access outside every allocation, outside LDS or outside scratch."""


class UninitialisedReadError(KernelError):
    """A value that nothing wrote reached memory, an address or a branch."""


class MissingWaitError(KernelError):
    """A register was touched while a memory operation that uses it was still in flight."""


class LdsRaceError(KernelError):
    """Two waves touched the same LDS bytes, one of them writing, with no barrier between."""


class UnsupportedStateError(KernelError):
    """A run-time value selects behaviour that the simulator does not model."""


class DeadlockError(KernelError):
    """The instruction budget ran out, or nothing can run any more."""
