"""Executes PTX, the assembly language of NVIDIA GPUs, on a CPU, in Python and numpy."""

from ptx_sim.cuda.device import cuda_device
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
from ptx_sim.targets import TARGETS, Target
from ptx_sim.triton_frontend import triton_device

__all__ = [
    "TARGETS",
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
    "Target",
    "UnsupportedInstructionError",
    "cuda_device",
    "load",
    "triton_device",
]
