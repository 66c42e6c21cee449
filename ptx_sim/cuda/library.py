"""The stand-in for libcudart.so."""

from __future__ import annotations

import functools
from pathlib import Path

import ptx_sim.cuda.driver_calls
import ptx_sim.cuda.kernel_calls
from ptx_sim.cuda.runtime import RUNTIME
from simulated_device.stand_in import StandIn

_ = ptx_sim.cuda  # the modules above are imported for the calls that they register

STAND_IN = StandIn(RUNTIME, Path(__file__).with_name("libcudart.c"), ("libcudart.so.13",), "ptx_sim")


@functools.cache
def library_folder() -> Path:
    """The folder with the stand-in, also as ``libcudart.so`` for ``-L``; built on first use, then cached.

    The cache is ``$XDG_CACHE_HOME/ptx_sim`` (default ~/.cache). PtxError if it cannot be built.
    """
    return STAND_IN.folder()
