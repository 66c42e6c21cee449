"""The simulate switch: kernels run on CPU tensors, as AMD machine code in amdgpu_sim or as NVIDIA's PTX in ptx_sim.

Nothing else here knows the simulators.
"""

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


def reasons(target: str) -> list[str]:
    """Why ``target`` cannot be simulated here; empty when it can."""
    try:
        _simulator(target)
    except ImportError as error:
        return [
            f"FLASH_ATTENTION_SIMULATE needs amdgpu_sim and ptx_sim, which are not part of the package: run Python in "
            f"the folder of a checkout ({error})"
        ]
    return []


def _simulator(target: str) -> Any:
    if target.startswith("gfx"):
        import amdgpu_sim

        return amdgpu_sim
    import ptx_sim

    return ptx_sim


def simulated_device(target: str) -> AbstractContextManager[object]:
    """Within it Triton compiles for ``target`` and launches on the simulator. One thread at a time may hold it."""
    _say_once(target)
    device: AbstractContextManager[object] = _simulator(target).triton_device(target)
    return device


@cache
def native_device(target: str) -> Any:
    """The simulated ``target`` as this process's HIP or CUDA device; make it before anything loads that runtime."""
    _say_once(target)
    simulator = _simulator(target)
    return simulator.hip_device(target) if target.startswith("gfx") else simulator.cuda_device(target)


@contextmanager
def launching(target: str | None, tensors: Iterable[Tensor | None]) -> Iterator[None]:
    """Within it compiled kernels run: on the simulator they may touch these tensors, and what they do wrong is raised.

    ``target`` None means a real device.
    """
    if target is None:
        yield
        return
    device = native_device(target)
    with _one_launch, device.allow(*(tensor for tensor in tensors if tensor is not None)):
        try:
            yield
        finally:
            device.raise_pending()


@cache
def _say_once(target: str) -> None:
    _logger.warning("FLASH_ATTENTION_SIMULATE=%s: attention runs in a simulator, slowly, and not on a GPU", target)
