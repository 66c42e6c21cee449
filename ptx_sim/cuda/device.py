"""The CUDA front door: programs that nvcc built with PTX in them run in this process, on the CPU."""

from __future__ import annotations

from typing import Any

from ptx_sim.cuda.library import STAND_IN
from ptx_sim.report import RunReport
from ptx_sim.targets import Target, find_target
from simulated_device.runtime_device import RuntimeDevice


class cuda_device(RuntimeDevice):  # noqa: N801 - used like a function
    """Make this process's CUDA calls reach the simulated ``name`` ("sm_80", "sm_90"...), as device 0.

    Load libraries that need libcudart.so.13 afterwards; they must hold PTX (``-gencode arch=compute_80,code=compute_80
    --cudart shared``). A plain call installs the device until :meth:`close`; as a context manager it ends with the
    block, and devices may be nested. ``options`` go to :meth:`ptx_sim.module.Kernel.launch`. Kernels may touch what
    ``cudaMalloc`` returned and what :meth:`allow` names. ``last_report`` is the :class:`RunReport` of the latest
    launch, ``launches`` the kernels' names in order.

    An error inside a launch makes the CUDA call return cudaErrorLaunchFailure, as do later ones, and its exception is
    raised by :meth:`raise_pending` and :meth:`close`. ValueError for an unknown target, PtxError if the stand-in for
    the CUDA runtime cannot be built or a real one is loaded.
    """

    target: Target
    last_report: RunReport | None

    def __init__(self, name: str, **options: Any) -> None:
        """Install the device."""
        super().__init__(STAND_IN, find_target(name), options)
