"""The API: modules of PTX text, their kernels, and launches of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ptx_sim.errors import LaunchError, PtxSyntaxError
from ptx_sim.execution import run
from ptx_sim.memory import GlobalMemory
from ptx_sim.parser import parse
from ptx_sim.program import Program
from ptx_sim.report import RunReport
from ptx_sim.threads import Shape
from ptx_sim.types import Array
from simulated_device.arguments import packed

_MAX_THREADS = 1024


def load(text: str) -> Module:
    """Read PTX. PtxSyntaxError where it cannot be read; a kernel is decoded when it is first asked for."""
    return Module(text)


def _aligned(size: int) -> Array:
    """Zeroed bytes whose address is a multiple of 256."""
    data = np.zeros(size + 256, np.uint8)
    return data[-data.ctypes.data % 256 :][:size]


class Module:
    """PTX text with its global and constant variables, which live as long as the module."""

    def __init__(self, text: str) -> None:
        """Read ``text``."""
        self.text = parse(text)
        self._kernels: dict[str, Kernel] = {}
        self.variables: dict[str, Array] = {}
        for variable in self.text.variables.values():
            if variable.space in ("global", "const") and variable.size is not None:
                data = _aligned(variable.size)
                if variable.initial is not None:
                    data[:] = np.frombuffer(variable.initial, np.uint8)
                self.variables[variable.name] = data

    @property
    def kernels(self) -> list[str]:
        """Names of the kernels."""
        return list(self.text.kernels)

    def kernel(self, name: str) -> Kernel:
        """A kernel, decoded. PtxSyntaxError if there is none; UnsupportedInstructionError for what is not modelled."""
        if name not in self._kernels:
            if name not in self.text.kernels:
                raise PtxSyntaxError(f"no kernel {name}; the module has {', '.join(self.kernels) or 'none'}")
            self._kernels[name] = Kernel(self, name)
        return self._kernels[name]

    def add_variables(self, memory: GlobalMemory) -> None:
        """Make the variables visible in ``memory``."""
        for name, data in self.variables.items():
            if len(data):
                memory.add_array(data, f"variable {name}", self.text.variables[name].space == "global")


class Kernel:
    """A kernel that can be launched."""

    def __init__(self, module: Module, name: str) -> None:
        """Decode it."""
        self.module, self.name = module, name
        addresses = {name: data.ctypes.data for name, data in module.variables.items()}
        self.program = Program(module.text.kernels[name], module.text, addresses)

    def launch(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        shared_bytes: int,
        args: Sequence[Any],
        *,
        memory: GlobalMemory | None = None,
        check_races: bool = True,
        threads_per_batch: int = 1024,
        max_instructions: int = 10**9,
    ) -> RunReport:
        """Run the kernel over ``grid`` blocks of ``block`` threads (x, y, z each) to its end.

        Args:
            grid: thread blocks along x, y, z; missing ones are 1.
            block: threads of a block along x, y, z.
            shared_bytes: dynamic shared memory of a block.
            args: one for each parameter: integers, floats, None (null), bytes, ctypes values and structs, or numpy
                arrays and torch CPU tensors, whose memory the kernel then may touch.
            memory: further buffers, to which addresses given as integers may point.
            check_races: look for unordered accesses of two warps to the same shared memory.
            threads_per_batch: as many blocks run side by side as have that many threads together.
            max_instructions: warp-instructions of a batch after which the kernel is taken to hang.

        Raises:
            LaunchError: the launch does not fit the kernel.
            KernelError: a subclass at the first mistake of the kernel.
        """
        grid, block = ([*shape, 1, 1][:3] for shape in (grid, block))
        self._check_shape(grid, block, shared_bytes)
        memory = memory or GlobalMemory()
        self.module.add_variables(memory)
        parameters = self._pack(args, memory)
        shape = Shape((grid[0], grid[1], grid[2]), (block[0], block[1], block[2]), shared_bytes)
        return run(
            self.program,
            shape,
            parameters,
            memory,
            check_races=check_races,
            threads_per_batch=threads_per_batch,
            max_instructions=max_instructions,
        )

    def _check_shape(self, grid: Sequence[int], block: Sequence[int], shared_bytes: int) -> None:
        directives = self.program.kernel.directives
        threads = block[0] * block[1] * block[2]
        if min(*grid, *block) < 1 or threads > _MAX_THREADS:
            raise LaunchError(
                f"grid {grid} of blocks {block}: at least 1 block of 1 to {_MAX_THREADS} threads is expected"
            )
        most = directives.get("maxntid")
        if most and threads > int(np.prod(most)):
            raise LaunchError(f"blocks of {threads} threads, but kernel {self.name} says .maxntid {most}")
        exact = directives.get("reqntid")
        if exact and [*exact, 1, 1][:3] != list(block):
            raise LaunchError(f"blocks {block}, but kernel {self.name} says .reqntid {exact}")
        if shared_bytes < 0:
            raise LaunchError(f"shared_bytes: {shared_bytes} given, at least 0 expected")

    def _pack(self, args: Sequence[Any], memory: GlobalMemory) -> Array:
        places = self.program.parameters
        if len(args) != len(places):
            raise LaunchError(f"{len(args)} arguments for the {len(places)} parameters of {self.name}")
        data = _aligned(max(16, self.program.parameter_bytes))
        for number, (value, (begin, size)) in enumerate(zip(args, places, strict=True)):
            data[begin : begin + size] = np.frombuffer(packed(number, value, size, memory, LaunchError), np.uint8)
        return data
