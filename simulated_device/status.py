"""What calls of a runtime library return."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """The numbers that ``cudaError_t`` and ``hipError_t`` have in common; the names are HIP's."""

    SUCCESS = 0
    INVALID_VALUE = 1
    OUT_OF_MEMORY = 2
    DEINITIALIZED = 4
    INVALID_CONFIGURATION = 9
    INVALID_SYMBOL = 13
    INVALID_MEMCPY_DIRECTION = 21
    MISSING_CONFIGURATION = 52
    INVALID_DEVICE_FUNCTION = 98
    NO_DEVICE = 100
    INVALID_DEVICE = 101
    NO_BINARY_FOR_GPU = 209
    FILE_NOT_FOUND = 301
    INVALID_HANDLE = 400
    NOT_FOUND = 500
    LAUNCH_FAILURE = 719
    UNKNOWN = 999

    @classmethod
    def _missing_(cls, value: object) -> Status:
        return cls.UNKNOWN


TEXTS = {
    Status.SUCCESS: "no error",
    Status.INVALID_VALUE: "invalid argument",
    Status.OUT_OF_MEMORY: "out of memory",
    Status.DEINITIALIZED: "driver shutting down",
    Status.INVALID_CONFIGURATION: "invalid configuration argument",
    Status.INVALID_SYMBOL: "invalid device symbol",
    Status.INVALID_MEMCPY_DIRECTION: "invalid copy direction for memcpy",
    Status.MISSING_CONFIGURATION: "__global__ function call is not configured",
    Status.INVALID_DEVICE_FUNCTION: "invalid device function",
    Status.NO_DEVICE: "no capable device is detected",
    Status.INVALID_DEVICE: "invalid device ordinal",
    Status.NO_BINARY_FOR_GPU: "no kernel image is available for execution on the device",
    Status.FILE_NOT_FOUND: "file not found",
    Status.INVALID_HANDLE: "invalid resource handle",
    Status.NOT_FOUND: "named symbol not found",
    Status.LAUNCH_FAILURE: "unspecified launch failure",
    Status.UNKNOWN: "unknown error",
}


class CallError(Exception):
    """A call fails with ``status``; never leaves the stand-in."""

    def __init__(self, status: Status) -> None:
        """``status`` is what the call returns."""
        super().__init__(status)
        self.status = status
