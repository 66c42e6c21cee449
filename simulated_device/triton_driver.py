"""Triton front door: ordinary ``kernel[grid](cpu_tensors...)`` launches, compiled for a GPU and simulated here.

Triton's runtime asks its active driver for the target, for loading binaries and for launching; the driver here
answers with a simulated device, which runs what Triton made on its way to the binary. Tensors are used in place: the
kernel reads and writes the memory of the CPU tensors.
"""

from __future__ import annotations

import importlib
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from simulated_device.closing import Closing


class Report(Protocol):
    """What a simulator counts in a launch."""

    @property
    def instructions(self) -> int:
        """Instructions executed."""


KernelT = TypeVar("KernelT")
ReportT = TypeVar("ReportT", bound=Report)


def _triton(module: str) -> Any:
    """The module ``triton.<module>``, imported on first use: Triton is optional and carries no types."""
    return importlib.import_module(f"triton.{module}")


class SimulatedDriver(ABC, Generic[KernelT, ReportT]):
    """The driver that Triton's runtime talks to while a simulated device is installed.

    ``stage`` names the text that the simulator executes among those that Triton makes.
    """

    stage: ClassVar[str]
    error: ClassVar[type[Exception]]

    def __init__(self, number: int, triton_target: tuple[str, str | int, int], options: Mapping[str, Any]) -> None:
        """``number`` is the device's, ``triton_target`` Triton's (backend, architecture, threads of a warp).

        Triton caches compiled kernels per device number, so every target has a number that no real device has.
        ``options`` go to every launch.
        """
        self.options = dict(options)
        self.warp_size = triton_target[2]
        self._device, self._triton_target = number, _triton("backends.compiler").GPUTarget(*triton_target)
        self._kernels: dict[str, KernelT] = {}
        self.last_report: ReportT | None = None
        self.launcher_cls = Launcher
        self.utils = SimpleNamespace(
            load_binary=self._load_binary,
            unload_module=lambda module: None,
            get_device_properties=lambda device: self.properties(),
        )

    @abstractmethod
    def properties(self) -> dict[str, int]:
        """What Triton asks about a device."""

    @abstractmethod
    def load(self, text: str, name: str) -> KernelT:
        """Kernel ``name`` of what Triton compiled."""

    @abstractmethod
    def bf16_bytes(self, value: float) -> bytes:
        """``value`` rounded to bfloat16."""

    @abstractmethod
    def launch(self, kernel: KernelT, grid: Sequence[int], metadata: Any, arguments: Sequence[Any]) -> ReportT:
        """Run ``kernel``. ``arguments`` are such as :func:`simulated_device.arguments.packed` takes; what the kernel
        takes behind them are Triton's scratch pointers, unused by these kernels."""

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
            raise self.error(f"device {device} is not the simulated device {self._device}")

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
        """Autotuning: one run of each configuration, valued by its instructions."""
        return self._benchmark

    def _benchmark(self, kernel_call: Any, quantiles: Sequence[float] | None = None, **_: Any) -> Any:
        kernel_call()
        cost = float(self.last_report.instructions) if self.last_report else 0.0
        return [cost] * len(quantiles) if quantiles else cost

    def kernel(self, metadata: Any) -> KernelT:
        """The loaded kernel that belongs to Triton's ``metadata``, from Triton's own compilation cache."""
        if metadata.hash not in self._kernels:
            files = _triton("runtime.cache").get_cache_manager(metadata.hash).get_group(f"{metadata.name}.json") or {}
            path = files.get(f"{metadata.name}.{self.stage}")
            if path is None:
                raise self.error(f"kernel {metadata.name}: no {self.stage} in Triton's cache, found {sorted(files)}")
            self._kernels[metadata.hash] = self.load(Path(path).read_text(), metadata.name)
        return self._kernels[metadata.hash]

    def argument(self, number: int, kind: str, value: Any) -> Any:
        """Argument ``number`` of Triton's type ``kind`` as :meth:`launch` takes it."""
        if kind.startswith("tensordesc"):
            raise self.error(f"argument {number}: tensor descriptors made on the host are not supported")
        if kind.startswith("*"):
            return value
        if kind == "bf16":
            return self.bf16_bytes(value)
        if kind in ("fp16", "fp32", "f32", "fp64"):
            return struct.pack({"fp16": "<e", "fp64": "<d"}.get(kind, "<f"), float(value))
        return int(value)


class Launcher:
    """Launches one compiled kernel; Triton makes one per compiled kernel and target, calls it for every launch and
    keeps it when another simulated device is installed: the options and the report are the active one's."""

    def __init__(self, src: Any, metadata: Any) -> None:
        """``src`` and ``metadata`` are Triton's."""
        self._metadata = metadata
        self._signature = list(src.signature.values())
        self._kernel: Any = None

    def __call__(
        self, grid_x: int, grid_y: int, grid_z: int, stream: Any, function: Any, packed_metadata: Any,
        launch_metadata: Any, enter_hook: Any, exit_hook: Any, *arguments: Any,
    ) -> None:  # fmt: skip
        """The call that Triton's runtime makes."""
        driver: SimulatedDriver[Any, Any] = _triton("runtime.driver").driver.active
        if self._kernel is None:
            self._kernel = driver.kernel(self._metadata)
        for name in ("global_scratch_size", "profile_scratch_size"):
            if getattr(self._metadata, name, 0):
                raise driver.error(f"kernel {self._metadata.name} needs {name}, which is not supported")
        if getattr(self._metadata, "num_ctas", 1) != 1:
            raise driver.error(f"kernel {self._metadata.name}: clusters of blocks are not supported")
        values = enumerate(_flatten(self._signature, arguments))
        taken = [driver.argument(number, kind, value) for number, (kind, value) in values]
        if enter_hook is not None:
            enter_hook(launch_metadata)
        driver.last_report = driver.launch(self._kernel, (grid_x, grid_y, grid_z), self._metadata, taken)
        if exit_hook is not None:
            exit_hook(launch_metadata)


def _flatten(signature: Sequence[Any], values: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """(type, value) of every run-time parameter; tuples are flattened and compile-time constants dropped."""
    for kind, value in zip(signature, values, strict=True):
        if isinstance(kind, tuple):
            yield from _flatten(kind, value)
        elif kind != "constexpr":
            yield kind, value


class TritonDevice(Closing, Generic[ReportT]):
    """Makes Triton launches run on a simulated device, until it is closed or another one is made."""

    def __init__(self, driver: SimulatedDriver[Any, ReportT]) -> None:
        """Install ``driver``; its error if Triton is in interpreter mode, where launches would not reach it."""
        if _triton("knobs").runtime.interpret:
            raise driver.error("TRITON_INTERPRET is set: unset it before importing triton to use a simulated device")
        self._driver, self._config = driver, _triton("runtime.driver").driver
        self._previous = self._config._active
        self._config.set_active(driver)

    @property
    def last_report(self) -> ReportT | None:
        """Counts of the latest launch; None before the first."""
        return self._driver.last_report

    def close(self) -> None:
        """Give Triton its previous driver back."""
        self._config._active = self._previous
