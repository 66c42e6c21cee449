"""The simulate switch: kernels run as AMD machine code on CPU tensors. Nothing else here knows amdgpu_sim."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any

from torch import Tensor

_one_launch = threading.Lock()
_logger = logging.getLogger("flash_attn")


def reasons() -> list[str]:
    """Why nothing can be simulated here; empty when it can."""
    try:
        import amdgpu_sim  # noqa: F401
    except ImportError as error:
        return [
            f"FLASH_ATTENTION_SIMULATE needs amdgpu_sim, which is not part of the package: run Python in the folder of "
            f"a checkout ({error})"
        ]
    return []


def simulated_device(target: str) -> AbstractContextManager[object]:
    """Within it Triton compiles for ``target`` and launches on the simulator. One thread at a time may hold it."""
    import amdgpu_sim

    _say_once(target)
    return amdgpu_sim.triton_device(target)


@cache
def hip_device(target: str) -> Any:
    """The simulated ``target`` as this process's HIP device; make it before anything loads the HIP runtime."""
    import amdgpu_sim

    _say_once(target)
    return amdgpu_sim.hip_device(target)


@contextmanager
def launching(target: str | None, tensors: Iterable[Tensor | None]) -> Iterator[None]:
    """Within it HIP kernels run: on the simulator they may touch these tensors, and what they do wrong is raised.

    ``target`` None means a real device.
    """
    if target is None:
        yield
        return
    device = hip_device(target)
    with _one_launch, device.allow(*(tensor for tensor in tensors if tensor is not None)):
        try:
            yield
        finally:
            device.raise_pending()


@cache
def _say_once(target: str) -> None:
    _logger.warning(
        "FLASH_ATTENTION_SIMULATE=%s: attention runs as simulated machine code, slowly, and not on AMD hardware", target
    )
