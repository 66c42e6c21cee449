"""A kernel made ready to run: registers numbered, variables placed, instructions decoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

import ptx_sim.instructions
from ptx_sim.control_flow import analyse
from ptx_sim.decoding import Execute, Names, decode
from ptx_sim.parser import KernelText, ModuleText, Variable
from ptx_sim.syntax import Address, Negated, Operand, Pair, Statement, Symbol, Vector
from ptx_sim.types import POISON, Array, size_of

_ = ptx_sim.instructions  # imported for the decoders that it registers
_MAX_GRANULE = 16


@dataclass(frozen=True)
class Entry:
    """An instruction: what it does, its class and the bytes of a thread's memory access."""

    execute: Execute
    category: str
    access_bytes: int


class Program:
    """A decoded kernel. ``parameters`` are (offset, size) in the parameter buffer of ``parameter_bytes``."""

    def __init__(self, kernel: KernelText, module: ModuleText, variables: Mapping[str, int]) -> None:
        """``variables``: addresses of the module's global and constant variables."""
        self.kernel, self.files = kernel, module.files
        used = {name for statement in kernel.statements for name in _symbols(statement.operands)}
        addresses = {name: (module.variables[name].space, address) for name, address in variables.items()}
        self.parameters: list[tuple[int, int]] = []
        self.parameter_bytes = self._place_parameters(addresses)
        held = {**module.variables, **kernel.variables}
        self.static_shared = _place(
            [v for v in held.values() if v.space == "shared" and v.size is not None and v.name in used], addresses
        )
        self.dynamic_align = max((v.align for v in held.values() if v.space == "shared" and v.size is None), default=1)
        dynamic = -(-self.static_shared // self.dynamic_align) * self.dynamic_align
        addresses.update({v.name: (v.space, dynamic) for v in held.values() if v.space == "shared" and v.size is None})
        self.uses_dynamic_shared = any(name in used and addresses.get(name) == ("shared", dynamic) for name in held)
        # local addresses begin behind 0, which is a null pointer
        self.local_bytes = _place([v for v in kernel.variables.values() if v.space == "local"], addresses, 16)
        slots = {name: number for number, name in enumerate(kernel.registers)}
        names = Names(slots, kernel.registers, addresses)
        self.entries = [Entry(*decode(statement, names)) for statement in kernel.statements]
        flow = analyse(kernel)
        self.blocks, self.nodes = flow.blocks, flow.nodes
        self.code = [[entry.execute for entry in self.entries[b.begin : b.end]] for b in self.blocks]
        widths = [e.access_bytes for e in self.entries if e.access_bytes and _touches_shared(e.category)]
        self.granule = min([_MAX_GRANULE, *widths])

    def _place_parameters(self, addresses: dict[str, tuple[str, int]]) -> int:
        end = 0
        for parameter in self.kernel.parameters:
            assert parameter.size is not None
            begin = -(-end // parameter.align) * parameter.align
            addresses[parameter.name] = "param", begin
            self.parameters.append((begin, parameter.size))
            end = begin + parameter.size
        return end

    def shared_bytes(self, dynamic: int) -> int:
        """Shared memory of a block with ``dynamic`` bytes of the launch's own."""
        if not dynamic:
            return self.static_shared
        return -(-self.static_shared // self.dynamic_align) * self.dynamic_align + dynamic

    def registers(self, threads: int) -> list[Array]:
        """Poisoned registers."""
        arrays = {size: np.full(threads, value) for size, value in POISON.items()}
        undecided = np.zeros(threads, bool)
        return [undecided if kind == "pred" else arrays[size_of(kind)] for kind in self.kernel.registers.values()]

    def where(self, statement: Statement) -> str:
        """The line of a statement, in the PTX and in the source that it names."""
        number, _, row = statement.source.partition(":")
        source = f" ({self.files[number]}:{row})" if number in self.files else ""
        return f"line {statement.line}: `{statement.text}`{source}"


def _touches_shared(category: str) -> bool:
    return category.startswith(("shared", "generic", "async"))


def _symbols(operands: tuple[Operand, ...]) -> Iterator[str]:
    for operand in operands:
        if isinstance(operand, Symbol):
            yield operand.name
        elif isinstance(operand, Address) and isinstance(operand.base, Symbol):
            yield operand.base.name
        elif isinstance(operand, Vector):
            yield from _symbols(operand.items)
        elif isinstance(operand, Pair):
            yield from _symbols((operand.first, operand.second))
        elif isinstance(operand, Negated):
            yield from _symbols((operand.operand,))


def _place(variables: list[Variable], addresses: dict[str, tuple[str, int]], begin: int = 0) -> int:
    """Give variables addresses one behind the other; where they end."""
    end = begin
    for variable in variables:
        assert variable.size is not None
        place = -(-end // variable.align) * variable.align
        addresses[variable.name] = variable.space, place
        end = place + variable.size
    return end
