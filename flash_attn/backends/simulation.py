"""The simulate switch: kernels run as AMD machine code on CPU tensors. Nothing else here knows amdgpu_sim."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from functools import cache

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
def _say_once(target: str) -> None:
    _logger.warning(
        "FLASH_ATTENTION_SIMULATE=%s: attention runs as simulated machine code, slowly, and not on AMD hardware", target
    )
