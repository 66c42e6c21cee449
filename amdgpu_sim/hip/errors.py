"""The HIP error codes that the stand-in returns, with the runtime's names and texts."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """``hipError_t``."""

    SUCCESS = 0
    INVALID_VALUE = 1
    OUT_OF_MEMORY = 2
    DEINITIALIZED = 4
    INVALID_CONFIGURATION = 9
    INVALID_SYMBOL = 13
    MISSING_CONFIGURATION = 52
    INVALID_DEVICE_FUNCTION = 98
    NO_DEVICE = 100
    INVALID_DEVICE = 101
    INVALID_IMAGE = 200
    NO_BINARY_FOR_GPU = 209
    FILE_NOT_FOUND = 301
    INVALID_HANDLE = 400
    NOT_FOUND = 500
    LAUNCH_FAILURE = 719
    NOT_SUPPORTED = 801
    UNKNOWN = 999


_TEXTS = {
    Status.SUCCESS: ("hipSuccess", "no error"),
    Status.INVALID_VALUE: ("hipErrorInvalidValue", "invalid argument"),
    Status.OUT_OF_MEMORY: ("hipErrorOutOfMemory", "out of memory"),
    Status.DEINITIALIZED: ("hipErrorDeinitialized", "driver shutting down"),
    Status.INVALID_CONFIGURATION: ("hipErrorInvalidConfiguration", "invalid configuration argument"),
    Status.INVALID_SYMBOL: ("hipErrorInvalidSymbol", "invalid device symbol"),
    Status.MISSING_CONFIGURATION: (
        "hipErrorMissingConfiguration",
        "__global__ function call is not configured",
    ),
    Status.INVALID_DEVICE_FUNCTION: ("hipErrorInvalidDeviceFunction", "invalid device function"),
    Status.NO_DEVICE: ("hipErrorNoDevice", "no ROCm-capable device is detected"),
    Status.INVALID_DEVICE: ("hipErrorInvalidDevice", "invalid device ordinal"),
    Status.INVALID_IMAGE: ("hipErrorInvalidImage", "device kernel image is invalid"),
    Status.NO_BINARY_FOR_GPU: (
        "hipErrorNoBinaryForGpu",
        "no kernel image is available for execution on the device",
    ),
    Status.FILE_NOT_FOUND: ("hipErrorFileNotFound", "file not found"),
    Status.INVALID_HANDLE: ("hipErrorInvalidHandle", "invalid resource handle"),
    Status.NOT_FOUND: ("hipErrorNotFound", "named symbol not found"),
    Status.LAUNCH_FAILURE: ("hipErrorLaunchFailure", "unspecified launch failure"),
    Status.NOT_SUPPORTED: ("hipErrorNotSupported", "operation not supported"),
    Status.UNKNOWN: ("hipErrorUnknown", "unknown error"),
}


class HipError(Exception):
    """A HIP call fails with ``status``; never leaves the stand-in."""

    def __init__(self, status: Status) -> None:
        """``status`` is what the call returns."""
        super().__init__(status)
        self.status = status


def describe(code: int) -> tuple[str, str]:
    """(name, text) of an error code; those of hipErrorUnknown for a code that is never returned here."""
    return _TEXTS[Status(code) if code in Status._value2member_map_ else Status.UNKNOWN]
