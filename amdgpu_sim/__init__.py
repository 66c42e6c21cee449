"""Executes AMD GPU machine code on a CPU: gfx90a, gfx942, gfx950, gfx1100 and gfx1201, in Python and
numpy."""

from amdgpu_sim.code_object import CodeObject
from amdgpu_sim.cycles import CycleEstimate, estimate_cycles
from amdgpu_sim.errors import (
    AssemblyError,
    DeadlockError,
    KernelError,
    LdsRaceError,
    MissingWaitError,
    OutOfBoundsError,
    SimulatorError,
    UninitialisedReadError,
    UnsupportedInstructionError,
    UnsupportedStateError,
)
from amdgpu_sim.hip.device import hip_device
from amdgpu_sim.memory import GlobalMemory
from amdgpu_sim.program import Program
from amdgpu_sim.report import RunReport
from amdgpu_sim.targets import TARGETS, Target
from amdgpu_sim.triton_frontend import triton_device

__all__ = [
    "TARGETS",
    "AssemblyError",
    "CodeObject",
    "CycleEstimate",
    "DeadlockError",
    "GlobalMemory",
    "KernelError",
    "LdsRaceError",
    "MissingWaitError",
    "OutOfBoundsError",
    "Program",
    "RunReport",
    "SimulatorError",
    "Target",
    "UninitialisedReadError",
    "UnsupportedInstructionError",
    "UnsupportedStateError",
    "estimate_cycles",
    "hip_device",
    "triton_device",
]
