"""Turns an instruction into a function of the threads.

Every family of instructions registers a decoder with :func:`instruction`. The decoder takes from a :class:`Decoding`
all modifiers that it heeds; what is left then is refused, so nothing is ignored by oversight.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptx_sim.errors import PtxSyntaxError, UnsupportedInstructionError
from ptx_sim.syntax import (
    Address,
    Immediate,
    Negated,
    Operand,
    Pair,
    Register,
    Sink,
    SpecialRegister,
    Statement,
    Symbol,
    Vector,
    integer,
    is_type,
)
from ptx_sim.threads import SPECIAL_REGISTERS, Threads
from ptx_sim.types import DTYPES, UNSIGNED, Array, is_float, is_signed, size_of

Execute = Callable[[Threads], None]
Read = Callable[[Threads], Any]
Write = Callable[[Threads, Array], None]
Decoder = Callable[["Decoding"], Execute]

_DECODERS: dict[str, Decoder] = {}


def instruction(*opcodes: str) -> Callable[[Decoder], Decoder]:
    """Register the decoder of ``opcodes`` (the part before the first dot)."""

    def register(decoder: Decoder) -> Decoder:
        for opcode in opcodes:
            _DECODERS[opcode] = decoder
        return decoder

    return register


@dataclass(frozen=True)
class Names:
    """What the names of a kernel mean: registers' slots and types, and variables' (space, address)."""

    slots: Mapping[str, int]
    types: Mapping[str, str]
    addresses: Mapping[str, tuple[str, int]]


def decode(statement: Statement, names: Names) -> tuple[Execute, str, int]:
    """(function, class of the report, bytes of a thread's memory access) of an instruction."""
    decoder = _DECODERS.get(statement.opcode)
    d = Decoding(statement, names)
    if decoder is None:
        raise d.unsupported("unknown instruction")
    execute = decoder(d)
    if d.modifiers:
        raise d.unsupported("modifier ." + " .".join(d.modifiers))
    if statement.guard is None or d.guards_itself:
        return execute, d.category, d.access_bytes
    return _guarded(d.guard(), execute), d.category, d.access_bytes


def _guarded(wanted: Read, execute: Execute) -> Execute:
    def guarded(t: Threads) -> None:
        before = t.mask, t.full, t.everyone
        mask = t.mask & wanted(t)
        if mask.any():
            whole = bool((mask == t.mask).all())
            t.mask, t.full, t.everyone = mask, t.full and whole, t.everyone and whole
            execute(t)
            t.mask, t.full, t.everyone = before

    return guarded


class Decoding:
    """One instruction on its way; ``modifiers`` are those that nobody has taken yet."""

    def __init__(self, statement: Statement, names: Names) -> None:
        """Nothing is taken."""
        self.statement, self.names = statement, names
        self.opcode, self.operands = statement.opcode, statement.operands
        self.modifiers = list(statement.modifiers)
        self.category = "alu"
        self.access_bytes = 0
        self.guards_itself = False

    def unsupported(self, why: str) -> UnsupportedInstructionError:
        """The error that names the instruction."""
        return UnsupportedInstructionError(f"line {self.statement.line}: `{self.statement.text}`: {why}")

    def flag(self, *modifiers: str) -> bool:
        """Whether one of ``modifiers`` is there; takes it."""
        return self.choice(*modifiers) != ""

    def choice(self, *modifiers: str, default: str = "") -> str:
        """Take and return the one of ``modifiers`` that is there."""
        for modifier in self.modifiers:
            if modifier in modifiers:
                self.modifiers.remove(modifier)
                return modifier
        return default

    def ignore(self, *prefixes: str) -> None:
        """Take every modifier that begins with one of ``prefixes``: it changes no result."""
        self.modifiers = [m for m in self.modifiers if not m.startswith(prefixes)]

    def type(self) -> str:
        """Take and return the next type."""
        for modifier in self.modifiers:
            if is_type(modifier):
                self.modifiers.remove(modifier)
                return modifier
        raise self.unsupported("no type that is modelled")

    def guard(self) -> Read:
        """Who the guard lets execute."""
        guard = self.statement.guard
        if guard is None:
            return lambda t: t.mask
        slot = self.names.slots[guard.register]
        if guard.negated:
            return lambda t: ~t.registers[slot].view(bool)
        return lambda t: t.registers[slot].view(bool)

    def operand(self, number: int) -> Operand:
        """An operand; an error if there are too few."""
        if number >= len(self.operands):
            raise self.unsupported("too few operands")
        return self.operands[number]

    def elements(self, operand: Operand) -> tuple[Operand, ...]:
        """The items of a vector; a single operand is a vector of one."""
        return operand.items if isinstance(operand, Vector) else (operand,)

    def source(self, operand: int | Operand, kind: str) -> Read:
        """Reader of an operand as numpy values of type ``kind``: an array over the threads, or a scalar."""
        if isinstance(operand, int):
            operand = self.operand(operand)
        if isinstance(operand, Register):
            return self._register_source(operand, kind)
        if isinstance(operand, Immediate):
            value = self.immediate(operand, kind)
            return lambda t: value
        if isinstance(operand, SpecialRegister):
            return self._special_source(operand, kind)
        if isinstance(operand, Symbol):
            space, address = self._symbol(operand)
            value = DTYPES[kind].type(address)
            if space == "param":
                return lambda t: DTYPES[kind].type(t.parameters + address)
            return lambda t: value
        if isinstance(operand, Negated) and kind == "pred":
            inner = self.source(operand.operand, kind)
            return lambda t: ~inner(t)
        raise self.unsupported("an operand of this kind is not modelled")

    def register_type(self, operand: Operand) -> str:
        """The declared type of a register operand."""
        if not isinstance(operand, Register):
            raise self.unsupported("a register is expected")
        return self.names.types[operand.name]

    def slot(self, operand: Operand) -> int:
        """The slot of a register operand."""
        if not isinstance(operand, Register):
            raise self.unsupported("a register is expected")
        return self.names.slots[operand.name]

    def _register_source(self, operand: Register, kind: str) -> Read:
        slot, dtype = self.names.slots[operand.name], DTYPES[kind]
        held = size_of(self.names.types[operand.name])
        if (kind == "pred") != (self.names.types[operand.name] == "pred"):
            raise self.unsupported(f"{operand.name} does not fit .{kind}")
        if held == dtype.itemsize:

            def read(t: Threads) -> Array:
                value = t.registers[slot]
                return value if value.dtype is dtype else value.view(dtype)

            return read
        if held < dtype.itemsize:
            raise self.unsupported(f"{operand.name} is narrower than .{kind}")
        wide, narrow = UNSIGNED[held], UNSIGNED[dtype.itemsize]
        return lambda t: t.registers[slot].view(wide).astype(narrow).view(dtype)

    def _special_source(self, operand: SpecialRegister, kind: str) -> Read:
        name, dtype = operand.name, DTYPES[kind]
        if name[1:].partition(".")[0] not in SPECIAL_REGISTERS:
            raise self.unsupported(f"{name} is not modelled")
        return lambda t: t.special(name).astype(dtype)

    def _symbol(self, operand: Symbol) -> tuple[str, int]:
        if operand.name not in self.names.addresses:
            raise PtxSyntaxError(f"line {self.statement.line}: `{operand.name}` is not declared")
        space, address = self.names.addresses[operand.name]
        return space, address + operand.offset

    def immediate(self, operand: Immediate, kind: str) -> Any:
        """The numpy scalar of a number."""
        text, dtype = operand.text, DTYPES[kind]
        sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text.lstrip("+"))
        if digits[:2].lower() in ("0f", "0d"):
            number = struct.unpack(">f" if digits[1] in "fF" else ">d", bytes.fromhex(digits[2:]))[0]
            if kind in ("f32", "f64", "f16"):
                return np.array(sign * number).astype(dtype)[()]
            return np.frombuffer(bytes.fromhex(digits[2:])[::-1], f"u{len(digits) // 2 - 1}")[0].astype(dtype)
        if kind == "pred":
            return np.bool_(integer(text) != 0)
        if is_float(kind):
            if not any(c in digits for c in ".eE") or digits[:2].lower() == "0x":
                raise self.unsupported(f"integer {text} where .{kind} is expected")
            return dtype.type(float(text))
        value = integer(text) % (1 << 8 * dtype.itemsize)
        return UNSIGNED[dtype.itemsize].type(value).view(dtype)

    def destination(self, operand: int | Operand, kind: str) -> Write:
        """Writer of a register from numpy values of type ``kind``; a wider register is extended."""
        if isinstance(operand, int):
            operand = self.operand(operand)
        if isinstance(operand, Sink):
            return lambda t, value: None
        slot, declared = self.slot(operand), self.register_type(operand)
        if (kind == "pred") != (declared == "pred"):
            raise self.unsupported(f"the destination does not fit .{kind}")
        held, size = size_of(declared), size_of(kind)
        if held == size:
            return lambda t, value: t.put(slot, value)
        if held < size:
            raise self.unsupported(f"the destination is narrower than .{kind}")
        if is_signed(kind):
            wide = np.dtype(f"i{held}")
            return lambda t, value: t.put(slot, value.astype(wide))
        narrow, wide = UNSIGNED[size], UNSIGNED[held]
        return lambda t, value: t.put(slot, value.view(narrow).astype(wide))

    def pair(self, number: int) -> tuple[Operand, Operand | None]:
        """The two destinations of ``d|p``; of ``d`` alone the second is None."""
        operand = self.operand(number)
        return (operand.first, operand.second) if isinstance(operand, Pair) else (operand, None)

    def address(self, number: int) -> tuple[Read, str | None]:
        """Reader of an address as int64 over all threads, and the space of the variable that it names, if any."""
        operand = self.operand(number)
        if not isinstance(operand, Address) or operand.coordinates is not None:
            raise self.unsupported("an address is expected")
        offset = operand.offset
        if isinstance(operand.base, Register):
            kind = self.register_type(operand.base)
            wide = {4: "u32", 8: "s64"}.get(size_of(kind))
            if wide is None:
                raise self.unsupported("an address has 32 or 64 bits")
            read = self._register_source(operand.base, wide)
            if wide == "u32":
                return lambda t: read(t).astype(np.int64) + offset, None
            return (lambda t: read(t) + offset) if offset else read, None
        if isinstance(operand.base, Symbol):
            space, address = self._symbol(operand.base)
            total = address + offset
            if space == "param":
                return lambda t: t.constant(np.int64(t.parameters + total)), space
            return lambda t: t.constant(np.int64(total)), space
        total = integer(operand.base.text) + offset
        return lambda t: t.constant(np.int64(total)), None
