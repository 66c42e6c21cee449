"""Triton front door: ordinary ``kernel[grid](cpu_tensors...)`` launches, executed on the simulator.

Triton's runtime asks its active driver for the target, for loading binaries and for launching; the driver
here answers with a simulated device. Tensors are used in place: the kernel reads and writes the memory of
the CPU tensors.
"""

from __future__ import annotations

import importlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any

import numpy as np

from amdgpu_sim.conversions import float_to_bf16_bits
from amdgpu_sim.errors import SimulatorError
from amdgpu_sim.memory import GlobalMemory
from amdgpu_sim.program import Program
from amdgpu_sim.report import RunReport
from amdgpu_sim.targets import TARGETS, Target, find_target


def _triton(module: str) -> Any:
    """The module ``triton.<module>``, imported on first use: Triton is optional and carries no types."""
    return importlib.import_module(f"triton.{module}")


# Triton caches compiled kernels per device number, so every target has a number that no real device has
_FIRST_DEVICE = 1000


class SimulatedDriver:
    """The driver that Triton's runtime talks to while a simulated device is installed."""

    def __init__(self, target: Target, options: Mapping[str, Any]) -> None:
        """``options`` go to every launch."""
        self.target, self.options = target, dict(options)
        self._triton_target = _triton("backends.compiler").GPUTarget("hip", target.name, target.wave_size)
        self._device = _FIRST_DEVICE + list(TARGETS).index(target.name)
        self._programs: dict[str, Program] = {}
        self.last_report: RunReport | None = None
        self.launcher_cls = Launcher
        self.utils = SimpleNamespace(
            load_binary=self._load_binary,
            unload_module=lambda module: None,
            get_device_properties=lambda device: self._properties(),
        )

    def _properties(self) -> dict[str, int]:
        return {
            "multiprocessor_count": self.target.compute_units,
            "max_shared_mem": self.target.lds_bytes,
            "warpSize": self.target.wave_size,
            "sm_clock_rate": 2_100_000,
            "mem_clock_rate": 2_600_000,
            "mem_bus_width": 8192,
        }

    def _load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple[str, str, int, int, int]:
        """Module, function, registers, spills and the largest work-group."""
        return name, name, 0, 0, 1024

    def get_current_target(self) -> Any:
        """Triton's description of the target."""
        return self._triton_target

    def get_current_device(self) -> int:
        """The device number under which Triton caches kernels."""
        return self._device

    def set_current_device(self, device: int) -> None:
        """Only the simulated device exists."""
        if device != self._device:
            raise SimulatorError(f"device {device} is not the simulated device {self._device}")

    def get_current_stream(self, device: int | None = None) -> int:
        """Launches are synchronous; there is one stream."""
        return 0

    def get_active_torch_device(self) -> Any:
        """Where tensors live."""
        import torch

        return torch.device("cpu")

    def get_device_interface(self) -> Any:
        """The torch module of the device."""
        import torch

        return torch.cpu

    def map_python_to_cpp_type(self, ty: str) -> str:
        """Argument types are packed here and need no C++ name."""
        return ty

    def get_benchmarker(self) -> Any:
        """Autotuning: one run of each configuration, valued by its wave-instructions."""
        return self._benchmark

    def _benchmark(self, kernel_call: Any, quantiles: Sequence[float] | None = None, **_: Any) -> Any:
        kernel_call()
        cost = float(self.last_report.instructions) if self.last_report else 0.0
        return [cost] * len(quantiles) if quantiles else cost

    def program(self, metadata: Any) -> Program:
        """The loaded kernel that belongs to Triton's ``metadata``, from Triton's own compilation cache."""
        if metadata.hash not in self._programs:
            files = _triton("runtime.cache").get_cache_manager(metadata.hash).get_group(f"{metadata.name}.json") or {}
            path = files.get(f"{metadata.name}.amdgcn")
            if path is None:
                raise SimulatorError(f"kernel {metadata.name}: no assembly in Triton's cache, found {sorted(files)}")
            self._programs[metadata.hash] = Program(Path(path).read_text(), metadata.name)
        return self._programs[metadata.hash]


class Launcher:
    """Launches one compiled kernel; Triton makes one per compiled kernel and target, calls it for every launch and
    keeps it when another simulated device is installed: the options and the report are the active one's."""

    def __init__(self, src: Any, metadata: Any) -> None:
        """``src`` and ``metadata`` are Triton's."""
        self._metadata = metadata
        self._signature = list(src.signature.values())
        self._program: Program | None = None

    def __call__(
        self, grid_x: int, grid_y: int, grid_z: int, stream: Any, function: Any, packed_metadata: Any,
        launch_metadata: Any, enter_hook: Any, exit_hook: Any, *arguments: Any,
    ) -> None:  # fmt: skip
        """The call that Triton's runtime makes."""
        driver = _triton("runtime.driver").driver.active
        if self._program is None:
            self._program = driver.program(self._metadata)
        memory = GlobalMemory()
        values = list(_flatten(self._signature, arguments))
        packed = [_pack(number, kind, value, memory) for number, (kind, value) in enumerate(values)]
        # what follows the kernel's own parameters are Triton's scratch pointers, unused by these kernels
        explicit = [a for a in self._program.kernel.arguments if not a.kind.startswith("hidden_")]
        spare = len(explicit) - len(packed)
        for name in ("global_scratch_size", "profile_scratch_size"):
            if getattr(self._metadata, name, 0):
                raise SimulatorError(f"kernel {self._metadata.name} needs {name}, which is not supported")
        if enter_hook is not None:
            enter_hook(launch_metadata)
        driver.last_report = self._program.launch(
            (grid_x, grid_y, grid_z),
            (self._metadata.num_warps * driver.target.wave_size,),
            packed + [None] * spare,
            memory=memory,
            lds_bytes=self._metadata.shared,
            **driver.options,
        )
        if exit_hook is not None:
            exit_hook(launch_metadata)


def _flatten(signature: Sequence[Any], values: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """(type, value) of every run-time parameter; tuples are flattened and compile-time constants dropped."""
    for kind, value in zip(signature, values, strict=True):
        if isinstance(kind, tuple):
            yield from _flatten(kind, value)
        elif kind != "constexpr":
            yield kind, value


def _pack(number: int, kind: str, value: Any, memory: GlobalMemory) -> Any:
    if kind.startswith("tensordesc"):
        raise SimulatorError(f"argument {number}: tensor descriptors made on the host are not supported")
    if kind.startswith("*"):
        if value is None:
            return 0
        pointer = value if isinstance(value, int) else value.data_ptr()
        if hasattr(value, "untyped_storage"):
            if value.device.type != "cpu":
                raise SimulatorError(f"argument {number}: CPU tensor expected, got one on {value.device}")
            storage = value.untyped_storage()
            memory.add_host(storage.data_ptr(), storage.nbytes(), f"argument {number}")
        return pointer
    if kind in ("fp16", "bf16", "fp32", "f32", "fp64"):
        return _pack_float(kind, float(value))
    return int(value)


def _pack_float(kind: str, value: float) -> bytes:
    if kind == "bf16":
        return int(float_to_bf16_bits(np.array([value], np.float32))[0]).to_bytes(2, "little")
    return struct.pack({"fp16": "<e", "fp64": "<d"}.get(kind, "<f"), value)


class triton_device:  # noqa: N801 - used like a function
    """Make Triton launches run on the simulated ``name`` ("gfx942", "gfx1201"...).

    A plain call installs the device for good (until :meth:`close` or another call); as a context manager
    the previous driver comes back at the end. ``options`` go to :func:`amdgpu_sim.execution.launch`
    (``seed``, ``lockstep``, ``check_races``...). ``last_report`` is the :class:`RunReport` of the latest
    launch. ValueError for an unknown target; SimulatorError if Triton is in interpreter mode, where
    launches would not reach a driver.
    """

    def __init__(self, name: str, **options: Any) -> None:
        """Install the device."""
        target = find_target(name)
        driver = _triton("runtime.driver").driver
        if _triton("knobs").runtime.interpret:
            raise SimulatorError("TRITON_INTERPRET is set: unset it before importing triton to use a simulated device")
        self._config = driver
        self._previous = driver._active
        self._driver = SimulatedDriver(target, options)
        driver.set_active(self._driver)

    @property
    def last_report(self) -> RunReport | None:
        """Counts of the latest launch; None before the first."""
        return self._driver.last_report

    def close(self) -> None:
        """Give Triton its previous driver back."""
        self._config._active = self._previous

    def __enter__(self) -> triton_device:
        """The device itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the previous driver."""
        self.close()
