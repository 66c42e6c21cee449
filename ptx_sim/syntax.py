"""The statements of PTX text: operands, instructions and the scopes of names."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ptx_sim.errors import PtxSyntaxError
from ptx_sim.types import DTYPES

_NAME = r"[A-Za-z_$%][\w$]*"
_SPECIAL = re.compile(
    r"%(?:n?tid|n?ctaid|cluster_n?ctaid|n?clusterid|cluster_n?ctarank)(?:\.[xyz])?|%(?:laneid|warpid|nwarpid|smid|nsmid|gridid"
    r"|is_explicit_cluster|lanemask_(?:eq|le|lt|ge|gt)|clock(?:_hi|64)?|globaltimer(?:_lo|_hi)?|envreg\d+|pm\d+"
    r"|total_smem_size|dynamic_smem_size|aggr_smem_size)"
)  # fmt: skip
_NUMBER = re.compile(
    r"[-+]?(?:0[fF][0-9a-fA-F]{8}|0[dD][0-9a-fA-F]{16}|0[xX][0-9a-fA-F]+U?|\d+(?:\.\d*)?(?:[eE][-+]?\d+)?U?)"
)


@dataclass(frozen=True)
class Register:
    """A declared register."""

    name: str


@dataclass(frozen=True)
class SpecialRegister:
    """A predefined read-only register such as ``%tid.x``."""

    name: str


@dataclass(frozen=True)
class Immediate:
    """A number as written."""

    text: str


@dataclass(frozen=True)
class Symbol:
    """The address of a variable, or a label."""

    name: str
    offset: int = 0


@dataclass(frozen=True)
class Address:
    """``[base + offset]``, or with coordinates ``[base, {x, y}]``."""

    base: Register | Symbol | Immediate
    offset: int = 0
    coordinates: Vector | None = None


@dataclass(frozen=True)
class Vector:
    """``{a, b, ...}``."""

    items: tuple[Operand, ...]


@dataclass(frozen=True)
class Pair:
    """``d|p``: two destinations."""

    first: Operand
    second: Operand


@dataclass(frozen=True)
class Sink:
    """``_``: a result that nobody wants."""


@dataclass(frozen=True)
class Negated:
    """``!p``."""

    operand: Operand


Operand = Register | SpecialRegister | Immediate | Symbol | Address | Vector | Pair | Sink | Negated


@dataclass(frozen=True)
class Guard:
    """``@p`` or ``@!p`` before an instruction."""

    register: str
    negated: bool


@dataclass(frozen=True)
class Statement:
    """An instruction: its text and line, where in the source it comes from, opcode, modifiers and operands."""

    text: str
    line: int
    source: str
    guard: Guard | None
    opcode: str
    modifiers: tuple[str, ...]
    operands: tuple[Operand, ...]


@dataclass
class Scope:
    """Names that a ``{ }`` declares, by what the kernel calls them."""

    registers: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


class OperandReader:
    """Reads the operands of one instruction; ``scopes`` from the outermost to the innermost."""

    def __init__(self, text: str, statement: str, line: int, scopes: list[Scope]) -> None:
        """``text``: what follows the opcode in ``statement``."""
        self._text, self._statement, self._line, self._scopes, self._place = text, statement, line, scopes, 0

    def read(self) -> tuple[Operand, ...]:
        """All operands."""
        operands: list[Operand] = []
        self._blank()
        while self._place < len(self._text):
            operands.append(self._operand())
            if not self._accept(",") and self._place < len(self._text):
                raise self._error()
        return tuple(operands)

    def _error(self) -> PtxSyntaxError:
        return PtxSyntaxError(f"line {self._line}: `{self._statement}`: cannot read `{self._text[self._place :]}`")

    def _blank(self) -> None:
        while self._text[self._place : self._place + 1].isspace():
            self._place += 1

    def _accept(self, token: str) -> bool:
        if self._text.startswith(token, self._place):
            self._place += len(token)
            self._blank()
            return True
        return False

    def _expect(self, token: str) -> None:
        if not self._accept(token):
            raise self._error()

    def _match(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self._text, self._place)
        if found is None:
            return None
        self._place = found.end()
        self._blank()
        return found.group()

    def _operand(self) -> Operand:
        if self._accept("{"):
            return Vector(self._items("}"))
        if self._accept("["):
            return self._address()
        if self._accept("("):  # the parameter lists of a call
            return Vector(self._items(")"))
        if self._accept("!"):
            return Negated(self._operand())
        first = self._simple()
        return Pair(first, self._simple()) if self._accept("|") else first

    def _items(self, close: str) -> tuple[Operand, ...]:
        items: list[Operand] = []
        while not self._accept(close):
            items.append(self._operand())
            if not self._accept(","):
                self._expect(close)
                break
        return tuple(items)

    def _address(self) -> Address:
        base = self._simple()
        if not isinstance(base, Register | Symbol | Immediate):
            raise self._error()
        offset, coordinates = 0, None
        if self._accept("+"):
            number = self._match(_NUMBER)
            if number is None:
                raise self._error()
            offset = integer(number)
        elif isinstance(base, Symbol):
            base, offset = Symbol(base.name), base.offset
        if self._accept(","):
            inner = self._operand()
            if not isinstance(inner, Vector):
                raise self._error()
            coordinates = inner
        self._expect("]")
        return Address(base, offset, coordinates)

    def _simple(self) -> Register | SpecialRegister | Immediate | Symbol | Sink:
        if special := self._match(_SPECIAL):
            return SpecialRegister(special)
        if number := self._match(_NUMBER):
            return Immediate(number)
        name = self._match(re.compile(_NAME))
        if name is None:
            raise self._error()
        if name == "_":
            return Sink()
        for scope in reversed(self._scopes):
            if name in scope.registers:
                return Register(scope.registers[name])
            if name in scope.labels:
                return Symbol(scope.labels[name])
        if name.startswith("%"):
            raise PtxSyntaxError(f"line {self._line}: `{self._statement}`: register {name} is not declared")
        offset = 0
        if self._text.startswith("+", self._place):
            self._accept("+")
            offset = integer(self._match(_NUMBER) or "")
        return Symbol(name, offset)


def integer(text: str) -> int:
    """The value of an integer literal."""
    try:
        return int(text.rstrip("U"), 0)
    except ValueError:
        if re.fullmatch(r"[-+]?0[0-7]+U?", text):
            return int(text.rstrip("U"), 8)
        raise PtxSyntaxError(f"`{text}` is no integer") from None


def is_type(modifier: str) -> bool:
    """Whether a modifier is the name of a type."""
    return modifier in DTYPES
