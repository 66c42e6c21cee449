"""Executes PTX, the assembly language of NVIDIA GPUs, on a CPU, in Python and numpy."""

from ptx_sim.errors import (
    DeadlockError,
    DivergenceError,
    KernelError,
    LaunchError,
    MisalignedError,
    MissingWaitError,
    OutOfBoundsError,
    PtxError,
    PtxSyntaxError,
    SharedRaceError,
    UnsupportedInstructionError,
)
from ptx_sim.memory import GlobalMemory
from ptx_sim.module import Kernel, Module, load
from ptx_sim.report import RunReport

__all__ = [
    "DeadlockError",
    "DivergenceError",
    "GlobalMemory",
    "Kernel",
    "KernelError",
    "LaunchError",
    "MisalignedError",
    "MissingWaitError",
    "Module",
    "OutOfBoundsError",
    "PtxError",
    "PtxSyntaxError",
    "RunReport",
    "SharedRaceError",
    "UnsupportedInstructionError",
    "load",
]
