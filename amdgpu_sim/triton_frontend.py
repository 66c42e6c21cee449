"""Triton front door: Triton's launches for AMD, executed here; :mod:`simulated_device.triton_driver` has how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from amdgpu_sim.conversions import float_to_bf16_bits
from amdgpu_sim.errors import SimulatorError
from amdgpu_sim.program import Program
from amdgpu_sim.report import RunReport
from amdgpu_sim.targets import TARGETS, Target, find_target
from simulated_device.triton_driver import SimulatedDriver, TritonDevice

_FIRST_DEVICE = 1000


class AmdDriver(SimulatedDriver[Program, RunReport]):
    """Runs the assembly that Triton makes."""

    stage, error = "amdgcn", SimulatorError

    def __init__(self, target: Target, options: Mapping[str, Any]) -> None:
        """``options`` go to every launch."""
        number = _FIRST_DEVICE + list(TARGETS).index(target.name)
        super().__init__(number, ("hip", target.name, target.wave_size), options)
        self.target = target

    def properties(self) -> dict[str, int]:
        return {
            "multiprocessor_count": self.target.compute_units,
            "max_shared_mem": self.target.lds_bytes,
            "warpSize": self.target.wave_size,
            "sm_clock_rate": 2_100_000,
            "mem_clock_rate": 2_600_000,
            "mem_bus_width": 8192,
        }

    def load(self, text: str, name: str) -> Program:
        return Program(text, name)

    def bf16_bytes(self, value: float) -> bytes:
        return int(float_to_bf16_bits(np.array([value], np.float32))[0]).to_bytes(2, "little")

    def launch(self, kernel: Program, grid: Sequence[int], metadata: Any, arguments: Sequence[Any]) -> RunReport:
        explicit = [argument for argument in kernel.kernel.arguments if not argument.kind.startswith("hidden_")]
        return kernel.launch(
            grid,
            (metadata.num_warps * self.warp_size,),
            [*arguments, *[None] * (len(explicit) - len(arguments))],
            lds_bytes=metadata.shared,
            **self.options,
        )


class triton_device(TritonDevice[RunReport]):  # noqa: N801 - used like a function
    """Make Triton launches run on the simulated ``name`` ("gfx942", "gfx1201"...).

    A plain call installs the device for good (until :meth:`close` or another call); as a context manager
    the previous driver comes back at the end. ``options`` go to :func:`amdgpu_sim.execution.launch`
    (``seed``, ``lockstep``, ``check_races``...). ``last_report`` is the :class:`RunReport` of the latest
    launch. ValueError for an unknown target; SimulatorError if Triton is in interpreter mode, where
    launches would not reach a driver.
    """

    def __init__(self, name: str, **options: Any) -> None:
        """Install the device."""
        super().__init__(AmdDriver(find_target(name), options))
