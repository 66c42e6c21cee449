"""Compiling for a GPU that is not there: a driver for Triton that knows a target and nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from ..architectures import ARCHITECTURES, Architecture

# Triton keeps compiled kernels by device number: every target has one that no real device has.
_FIRST_DEVICE = 2000


class _OfflineDriver:
    """What Triton's runtime asks for while it compiles."""

    def __init__(self, architecture: Architecture) -> None:
        name = architecture.name
        if architecture.vendor == "amd":
            self._target = GPUTarget("hip", name, architecture.wave_size)
        else:
            self._target = GPUTarget("cuda", int(name.removeprefix("sm_")), architecture.wave_size)
        self._device = _FIRST_DEVICE + list(ARCHITECTURES).index(name)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return self._device

    def get_current_stream(self, device: int | None = None) -> int:
        return 0


@contextlib.contextmanager
def compiling_for(architecture: Architecture) -> Iterator[None]:
    """Make ``Launch.compile()`` compile for a row of the table of architectures; launching anything is impossible."""
    previous = driver._active
    driver.set_active(_OfflineDriver(architecture))
    try:
        yield
    finally:
        driver._active = previous
