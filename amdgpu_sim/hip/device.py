"""The HIP front door: programs built by clang or hipcc for AMD GPUs run in this process, on the simulator."""

from __future__ import annotations

from typing import Any

from amdgpu_sim.hip.library import STAND_IN
from amdgpu_sim.report import RunReport
from amdgpu_sim.targets import Target, find_target
from simulated_device.runtime_device import RuntimeDevice


class hip_device(RuntimeDevice):  # noqa: N801 - used like a function
    """Make this process's HIP calls reach the simulated ``name`` ("gfx942", "gfx1201"...), as device 0.

    Load extensions and libraries that need libamdhip64 afterwards. A plain call installs the device until
    :meth:`close`; as a context manager it ends with the block, and devices may be nested. ``options`` go to
    :func:`amdgpu_sim.execution.launch`. Kernels may touch what ``hipMalloc`` and its kin returned and what
    :meth:`allow` names. ``last_report`` is the :class:`RunReport` of the latest launch, ``launches`` the kernels'
    names in order.

    An error inside a launch makes the HIP call return hipErrorLaunchFailure, as do later ones, and its
    exception is raised by :meth:`raise_pending` and :meth:`close`. ValueError for an unknown target,
    SimulatorError if the stand-in for the HIP runtime cannot be built or a real one is loaded.
    """

    target: Target
    last_report: RunReport | None

    def __init__(self, name: str, **options: Any) -> None:
        """Install the device."""
        super().__init__(STAND_IN, find_target(name), options)
