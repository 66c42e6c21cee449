"""The stand-in for libamdhip64.so."""

from __future__ import annotations

import functools
from pathlib import Path

import amdgpu_sim.hip.device_calls
import amdgpu_sim.hip.memory_calls
import amdgpu_sim.hip.module_calls
from amdgpu_sim.hip.runtime import RUNTIME
from simulated_device.stand_in import StandIn

_ = amdgpu_sim.hip  # the modules above are imported for the calls that they register

# ROCm 7 and 6; programs name one of them
SONAMES = ("libamdhip64.so.7", "libamdhip64.so.6")
STAND_IN = StandIn(RUNTIME, Path(__file__).with_name("libamdhip64.c"), SONAMES, "amdgpu_sim")
load_library = STAND_IN.load


@functools.cache
def library_folder() -> Path:
    """The folder with the stand-in, also as ``libamdhip64.so`` for ``-L``; built on first use, then cached.

    The cache is ``$XDG_CACHE_HOME/amdgpu_sim`` (default ~/.cache). SimulatorError if it cannot be built.
    """
    return STAND_IN.folder()
