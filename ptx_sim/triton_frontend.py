"""Triton front door: ordinary ``kernel[grid](cpu_tensors...)`` launches, compiled for NVIDIA and executed here.

Triton's runtime asks its active driver for the target, for loading binaries and for launching; the driver here
answers with a simulated device, which runs the PTX that Triton made on its way to the binary. Tensors are used in
place: the kernel reads and writes the memory of the CPU tensors.
"""

from __future__ import annotations

import importlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any

import numpy as np

from ptx_sim.errors import LaunchError, PtxError
from ptx_sim.module import Kernel, load
from ptx_sim.number_formats import to_bf16
from ptx_sim.report import RunReport
from ptx_sim.targets import TARGETS, Target, find_target


def _triton(module: str) -> Any:
    """The module ``triton.<module>``, imported on first use: Triton is optional and carries no types."""
    return importlib.import_module(f"triton.{module}")


# Triton caches compiled kernels per device number, so every target has a number that no real device has
_FIRST_DEVICE = 3000
_WARP = 32


class SimulatedDriver:
    """The driver that Triton's runtime talks to while a simulated device is installed."""

    def __init__(self, target: Target, options: Mapping[str, Any]) -> None:
        """``options`` go to every launch."""
        self.target, self.options = target, dict(options)
        major, minor = target.capability
        self._triton_target = _triton("backends.compiler").GPUTarget("cuda", 10 * major + minor, _WARP)
        self._device = _FIRST_DEVICE + list(TARGETS).index(target.name)
        self._kernels: dict[str, Kernel] = {}
        self.last_report: RunReport | None = None
        self.launcher_cls = Launcher
        self.utils = SimpleNamespace(
            load_binary=self._load_binary,
            unload_module=lambda module: None,
            get_device_properties=lambda device: self._properties(),
        )

    def _properties(self) -> dict[str, int]:
        return {
            "multiprocessor_count": self.target.processors,
            "max_shared_mem": self.target.shared_bytes,
            "max_num_regs": 65536,
            "warpSize": _WARP,
            "sm_clock_rate": 1_400_000,
            "mem_clock_rate": 1_200_000,
            "mem_bus_width": 5120,
        }

    def _load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple[str, str, int, int, int]:
        """Module, function, registers, spills and the largest block."""
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
            raise LaunchError(f"device {device} is not the simulated device {self._device}")

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
        """Autotuning: one run of each configuration, valued by its warp-instructions."""
        return self._benchmark

    def _benchmark(self, kernel_call: Any, quantiles: Sequence[float] | None = None, **_: Any) -> Any:
        kernel_call()
        cost = float(self.last_report.instructions) if self.last_report else 0.0
        return [cost] * len(quantiles) if quantiles else cost

    def kernel(self, metadata: Any) -> Kernel:
        """The loaded kernel that belongs to Triton's ``metadata``, from Triton's own compilation cache."""
        if metadata.hash not in self._kernels:
            files = _triton("runtime.cache").get_cache_manager(metadata.hash).get_group(f"{metadata.name}.json") or {}
            path = files.get(f"{metadata.name}.ptx")
            if path is None:
                raise PtxError(f"kernel {metadata.name}: no PTX in Triton's cache, found {sorted(files)}")
            self._kernels[metadata.hash] = load(Path(path).read_text()).kernel(metadata.name)
        return self._kernels[metadata.hash]


class Launcher:
    """Launches one compiled kernel; Triton makes one per compiled kernel and target, calls it for every launch and
    keeps it when another simulated device is installed: the options and the report are the active one's."""

    def __init__(self, src: Any, metadata: Any) -> None:
        """``src`` and ``metadata`` are Triton's."""
        self._metadata = metadata
        self._signature = list(src.signature.values())
        self._kernel: Kernel | None = None

    def __call__(
        self, grid_x: int, grid_y: int, grid_z: int, stream: Any, function: Any, packed_metadata: Any,
        launch_metadata: Any, enter_hook: Any, exit_hook: Any, *arguments: Any,
    ) -> None:  # fmt: skip
        """The call that Triton's runtime makes."""
        driver = _triton("runtime.driver").driver.active
        if self._kernel is None:
            self._kernel = driver.kernel(self._metadata)
        for name in ("global_scratch_size", "profile_scratch_size"):
            if getattr(self._metadata, name, 0):
                raise LaunchError(f"kernel {self._metadata.name} needs {name}, which is not supported")
        if getattr(self._metadata, "num_ctas", 1) != 1:
            raise LaunchError(f"kernel {self._metadata.name}: clusters of blocks are not supported")
        values = list(_flatten(self._signature, arguments))
        packed = [_argument(number, kind, value) for number, (kind, value) in enumerate(values)]
        # what follows the kernel's own parameters are Triton's scratch pointers, unused by these kernels
        spare = len(self._kernel.program.parameters) - len(packed)
        if enter_hook is not None:
            enter_hook(launch_metadata)
        driver.last_report = self._kernel.launch(
            (grid_x, grid_y, grid_z),
            (self._metadata.num_warps * _WARP,),
            self._metadata.shared,
            packed + [None] * spare,
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


def _argument(number: int, kind: str, value: Any) -> Any:
    if kind.startswith("tensordesc"):
        raise LaunchError(f"argument {number}: tensor descriptors made on the host are not supported")
    if kind.startswith("*"):
        return value
    if kind in ("fp16", "bf16", "fp32", "f32", "fp64"):
        if kind == "bf16":
            return to_bf16(np.array([value], np.float32)).tobytes()
        return struct.pack({"fp16": "<e", "fp64": "<d"}.get(kind, "<f"), float(value))
    return int(value)


class triton_device:  # noqa: N801 - used like a function
    """Make Triton launches run on the simulated ``name`` ("sm_80", "sm_89"...).

    A plain call installs the device for good (until :meth:`close` or another call); as a context manager the previous
    driver comes back at the end. ``options`` go to :meth:`ptx_sim.module.Kernel.launch` (``check_races``,
    ``max_instructions``...). ``last_report`` is the :class:`RunReport` of the latest launch. ValueError for an unknown
    target; PtxError if Triton is in interpreter mode, where launches would not reach a driver.
    """

    def __init__(self, name: str, **options: Any) -> None:
        """Install the device."""
        target = find_target(name)
        driver = _triton("runtime.driver").driver
        if _triton("knobs").runtime.interpret:
            raise PtxError("TRITON_INTERPRET is set: unset it before importing triton to use a simulated device")
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
