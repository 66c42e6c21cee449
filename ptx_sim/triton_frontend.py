"""Triton front door: Triton's launches for NVIDIA, executed here; :mod:`simulated_device.triton_driver` has how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ptx_sim.errors import LaunchError
from ptx_sim.module import Kernel, load
from ptx_sim.number_formats import to_bf16
from ptx_sim.report import RunReport
from ptx_sim.targets import TARGETS, Target, find_target
from simulated_device.triton_driver import SimulatedDriver, TritonDevice

_FIRST_DEVICE = 3000


class NvidiaDriver(SimulatedDriver[Kernel, RunReport]):
    """Runs the PTX that Triton makes."""

    stage, error = "ptx", LaunchError

    def __init__(self, target: Target, options: Mapping[str, Any]) -> None:
        """``options`` go to every launch."""
        major, minor = target.capability
        number = _FIRST_DEVICE + list(TARGETS).index(target.name)
        super().__init__(number, ("cuda", 10 * major + minor, 32), options)
        self.target = target

    def properties(self) -> dict[str, int]:
        return {
            "multiprocessor_count": self.target.processors,
            "max_shared_mem": self.target.shared_bytes,
            "max_num_regs": 65536,
            "warpSize": self.warp_size,
            "sm_clock_rate": 1_400_000,
            "mem_clock_rate": 1_200_000,
            "mem_bus_width": 5120,
        }

    def load(self, text: str, name: str) -> Kernel:
        return load(text).kernel(name)

    def bf16_bytes(self, value: float) -> bytes:
        return to_bf16(np.array([value], np.float32)).tobytes()

    def launch(self, kernel: Kernel, grid: Sequence[int], metadata: Any, arguments: Sequence[Any]) -> RunReport:
        spare = len(kernel.program.parameters) - len(arguments)
        block = (metadata.num_warps * self.warp_size,)
        return kernel.launch(grid, block, metadata.shared, [*arguments, *[None] * spare], **self.options)


class triton_device(TritonDevice[RunReport]):  # noqa: N801 - used like a function
    """Make Triton launches run on the simulated ``name`` ("sm_80", "sm_89"...).

    A plain call installs the device for good (until :meth:`close` or another call); as a context manager the previous
    driver comes back at the end. ``options`` go to :meth:`ptx_sim.module.Kernel.launch` (``check_races``,
    ``max_instructions``...). ``last_report`` is the :class:`RunReport` of the latest launch. ValueError for an unknown
    target; LaunchError if Triton is in interpreter mode, where launches would not reach a driver.
    """

    def __init__(self, name: str, **options: Any) -> None:
        """Install the device."""
        super().__init__(NvidiaDriver(find_target(name), options))
