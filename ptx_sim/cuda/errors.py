"""The CUDA error codes that the stand-in returns."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """``cudaError_t``, with the runtime's numbers; the names are the runtime's in this language's spelling."""

    SUCCESS = 0
    INVALID_VALUE = 1
    MEMORY_ALLOCATION = 2
    CUDART_UNLOADING = 4
    INVALID_CONFIGURATION = 9
    INVALID_SYMBOL = 13
    INVALID_MEMCPY_DIRECTION = 21
    MISSING_CONFIGURATION = 52
    INVALID_DEVICE_FUNCTION = 98
    NO_DEVICE = 100
    INVALID_DEVICE = 101
    NO_KERNEL_IMAGE_FOR_DEVICE = 209
    LAUNCH_FAILURE = 719
    NOT_SUPPORTED = 801
    UNKNOWN = 999

    @property
    def runtime_name(self) -> str:
        """Such as ``cudaErrorInvalidValue``."""
        return "cudaSuccess" if self == 0 else "cudaError" + self.name.title().replace("_", "")

    @classmethod
    def _missing_(cls, value: object) -> Status:
        return cls.UNKNOWN


class CudaError(Exception):
    """A call fails with a status."""

    def __init__(self, status: Status) -> None:
        """What the C function returns."""
        super().__init__(status.runtime_name)
        self.status = status
