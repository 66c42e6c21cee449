"""Which Triton is installed here and what runs its kernels: a GPU, Triton's interpreter or the simulator."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple

import torch

from flash_attn.backends import simulation


class ConfigChoice(NamedTuple):
    """What the configuration of a kernel follows from: an architecture, or else what was asked for instead.

    ``forward_config`` is JSON in place of the shipped configuration; ``autotune`` times configurations, on a GPU.
    ``compute_units`` is how many of them the GPU has, for launches that share out the keys of few rows.
    """

    arch: str
    forward_config: str | None = None
    autotune: bool = False
    compute_units: int = 1


VERSIONS = ">=3.6,<3.10"
_OLDEST, _NEWEST = (3, 6), (3, 9)
# Interpreter and simulator change state of the whole process while they run.
_one_at_a_time = threading.RLock()


@cache
def installation_reasons() -> tuple[str, ...]:
    """Why Triton cannot be used here; empty when it can. Imports it."""
    if find_spec("triton") is None:
        return (f"triton is not installed (pip install 'triton{VERSIONS}')",)
    try:
        import triton
        import triton.language as tl
        from triton.runtime.jit import JITFunction
    except Exception as error:  # a broken installation may raise anything
        return (f"triton cannot be imported: {type(error).__name__}: {error}",)
    version = re.match(r"(\d+)\.(\d+)", triton.__version__)
    if version is None or not _OLDEST <= (int(version[1]), int(version[2])) <= _NEWEST:
        return (f"triton {triton.__version__} is installed; accepted is {VERSIONS}",)
    if triton.knobs.runtime.interpret == isinstance(tl.standard.cdiv, JITFunction):
        return ("TRITON_INTERPRET was changed after triton was imported; set it before Python starts",)
    return ()


def interpreting() -> bool:
    """Whether the environment makes Triton interpret its kernels, on any tensors."""
    if installation_reasons():
        return False
    import triton

    return bool(triton.knobs.runtime.interpret)


def launching(device: torch.device, simulated: str | None) -> AbstractContextManager[object]:
    """Within it kernels launch for tensors on ``device``: on that GPU, in the interpreter or simulated."""
    if device.type == "cuda":
        return torch.cuda.device(device)
    return _on_cpu_tensors(simulated)


@contextmanager
def _on_cpu_tensors(simulated: str | None) -> Iterator[None]:
    with _one_at_a_time:
        if simulated is not None:
            with simulation.simulated_device(simulated):
                yield
        else:
            from flash_attn.triton_amd import interpreter

            interpreter.install()
            yield
