"""Reads PTX modules as nvcc and Triton write them: variables, kernels, registers and instructions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ptx_sim.errors import PtxSyntaxError, UnsupportedInstructionError
from ptx_sim.syntax import Guard, OperandReader, Scope, Statement, integer
from ptx_sim.types import DTYPES, size_of

_COMMENT_OR_STRING = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
_LABEL = re.compile(r"([A-Za-z_$%][\w$]*)\s*:(?!:)")
_LINKAGE = re.compile(r"\.(?:visible|extern|weak|common)\b\s*")
_LINE_DIRECTIVE = re.compile(r"\.(?:version|target|address_size|file|loc)\b[^\n]*")
_LOCATION = re.compile(r"\.loc\s+(\d+)\s+(\d+)")
_FILE = re.compile(r'\.file\s+(\d+)\s+"([^"]*)"')
_VARIABLE = re.compile(
    r"\.(?P<space>global|shared|const|local|param)\s*(?:\.align\s+(?P<align>\d+)\s*)?(?:\.(?P<vector>v[24])\s*)?\.(?P<type>\w+)\s*"
    r"(?P<ptr>\.ptr\b\s*(?:\.\w+\s*)?(?:\.align\s+\d+\s*)?)?(?P<name>[\w$%]+)\s*(?P<dims>(?:\[\d*\]\s*)*)(?:=(?P<init>.*))?",
    re.DOTALL,
)  # fmt: skip
_REGISTER = re.compile(r"([\w$%]+)(?:<(\d+)>)?")
_BRACE_OR_LABEL = re.compile(r"[{}]|(?<=[;{}\n])[ \t]*([A-Za-z_$%][\w$]*)[ \t]*:(?!:)")
_GUARD = re.compile(r"@(!?)\s*([\w$%]+)\s*")


@dataclass(frozen=True)
class Variable:
    """A variable or parameter; ``size`` is None for the dynamic part of shared memory."""

    name: str
    space: str
    size: int | None
    align: int
    initial: bytes | None = None


@dataclass
class KernelText:
    """A kernel as written. ``labels`` and ``tables`` (of ``brx.idx``) give positions in ``statements`` and labels."""

    name: str
    parameters: list[Variable]
    registers: dict[str, str] = field(default_factory=dict)
    variables: dict[str, Variable] = field(default_factory=dict)
    statements: list[Statement] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    tables: dict[str, list[str]] = field(default_factory=dict)
    directives: dict[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass
class ModuleText:
    """A PTX module as written."""

    version: str = ""
    target: str = ""
    files: dict[str, str] = field(default_factory=dict)
    variables: dict[str, Variable] = field(default_factory=dict)
    kernels: dict[str, KernelText] = field(default_factory=dict)


def _without_comments(text: str) -> str:
    def blank(found: re.Match[str]) -> str:
        piece = found.group()
        return piece if piece.startswith('"') else " " + "\n" * piece.count("\n")

    return _COMMENT_OR_STRING.sub(blank, text)


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = _without_comments(text)
        self.place = 0
        self._counted, self._line = 0, 1

    @property
    def line(self) -> int:
        self._line += self.text.count("\n", self._counted, self.place)
        self._counted = self.place
        return self._line

    def blank(self) -> bool:
        """Skip white space; whether anything is left."""
        text, place = self.text, self.place
        while place < len(text) and (text[place].isspace() or text[place] == ";"):
            place += 1
        self.place = place
        return place < len(text)

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.place)
        if found:
            self.place = found.end()
        return found

    def until(self, characters: str) -> str:
        """The text before the next of ``characters``, which is skipped."""
        end = min((n for c in characters if (n := self.text.find(c, self.place)) >= 0), default=-1)
        if end < 0:
            raise PtxSyntaxError(f"line {self.line}: no `{characters}` ends `{self.text[self.place :][:60]}`")
        piece, self.place = self.text[self.place : end], end + 1
        return piece

    def skip_braces(self) -> None:
        """Skip to behind the brace that closes the next one."""
        self.until("{")
        depth = 1
        while depth:
            self.until("{}")
            depth += 1 if self.text[self.place - 1] == "{" else -1


def parse(text: str) -> ModuleText:
    """Read a module. PtxSyntaxError where it cannot be read, UnsupportedInstructionError for what is not modelled."""
    module, reader = ModuleText(), _Reader(text)
    while reader.blank():
        line = reader.line
        if found := reader.match(_LINE_DIRECTIVE):
            words = found.group().split()
            if words[0] == ".version":
                module.version = words[1]
            elif words[0] == ".target":
                module.target = words[1].rstrip(",")
            elif named := _FILE.match(found.group()):
                module.files[named.group(1)] = named.group(2)
        elif reader.match(_LINKAGE):
            continue
        elif reader.text.startswith(".section", reader.place):
            reader.skip_braces()
        elif reader.text.startswith((".func", ".alias"), reader.place):
            _skip_function(reader)
        elif reader.text.startswith(".entry", reader.place):
            kernel = _kernel(reader, module.files)
            module.kernels[kernel.name] = kernel
        elif reader.text.startswith(".pragma", reader.place):
            reader.until(";")
        else:
            variable = _variable(reader.until(";"), line)
            module.variables[variable.name] = variable
    return module


def _skip_function(reader: _Reader) -> None:
    end, brace = reader.text.find(";", reader.place), reader.text.find("{", reader.place)
    if 0 <= brace < end or end < 0:
        reader.skip_braces()
    else:
        reader.until(";")


def _variable(text: str, line: int) -> Variable:
    found = _VARIABLE.fullmatch(text.strip())
    if found is None or found["type"] not in DTYPES:
        raise PtxSyntaxError(f"line {line}: cannot read the declaration `{text.strip()}`")
    element = size_of(found["type"]) * int((found["vector"] or "v1")[1:])
    size: int | None = element
    for dim in re.findall(r"\[(\d*)\]", found["dims"]):
        size = size * int(dim) if dim and size is not None else None
    initial = _initial(found["init"], found["type"], size, line) if found["init"] else None
    return Variable(found["name"], found["space"], size, int(found["align"] or element), initial)


def _initial(text: str, kind: str, size: int | None, line: int) -> bytes:
    data = b""
    for number in re.findall(r"[^\s{},]+", text):
        if re.match(r"[-+]?0[fFdD]", number):
            data += bytes.fromhex(number[2:])[::-1]
        elif re.match(r"[-+]?\d+$|[-+]?0[xX]", number):
            data += (integer(number) % (1 << 8 * size_of(kind))).to_bytes(size_of(kind), "little")
        else:
            raise UnsupportedInstructionError(f"line {line}: initial value `{number}` is not modelled")
    return data.ljust(size or 0, b"\0")


def _kernel(reader: _Reader, files: dict[str, str]) -> KernelText:
    line = reader.line
    header = reader.until("{")
    found = re.match(r"\.entry\s+([\w$]+)\s*(?:\(([^)]*)\))?(.*)", header, re.DOTALL)
    if found is None:
        raise PtxSyntaxError(f"line {line}: cannot read the kernel header `{header.strip()[:80]}`")
    parameters = [_variable(part, line) for part in (found[2] or "").split(",") if part.strip()]
    kernel = KernelText(found[1], parameters)
    for name, numbers in re.findall(r"\.(\w+)([\d\s,]*)", found[3]):
        kernel.directives[name] = tuple(int(n) for n in numbers.replace(",", " ").split())
    _Body(kernel, reader, files).read()
    return kernel


class _Body:
    """The statements of one kernel; names of inner scopes get a number."""

    def __init__(self, kernel: KernelText, reader: _Reader, files: dict[str, str]) -> None:
        self._kernel, self._reader, self._files = kernel, reader, files
        self._source = ""
        self._numbers = 0
        self._scopes = [Scope(labels=dict(self._labels_of_scope()))]

    def _labels_of_scope(self) -> Iterator[tuple[str, str]]:
        """(label, unique name) of the labels between here and the end of the scope, inner scopes left out."""
        depth, suffix = 0, f"@{self._numbers}" if self._numbers else ""
        for found in _BRACE_OR_LABEL.finditer(self._reader.text, self._reader.place):
            if found.group() == "{":
                depth += 1
            elif found.group() == "}":
                depth -= 1
                if depth < 0:
                    return
            elif depth == 0:
                yield found[1], found[1] + suffix

    def read(self) -> None:
        reader = self._reader
        while self._scopes:
            if not reader.blank():
                raise PtxSyntaxError(f"kernel {self._kernel.name} has no end")
            character = reader.text[reader.place]
            if character == "{":
                reader.place += 1
                self._numbers += 1
                self._scopes.append(Scope(labels=dict(self._labels_of_scope())))
            elif character == "}":
                reader.place += 1
                self._scopes.pop()
            elif found := reader.match(_LABEL):
                self._label(found[1])
            elif found := reader.match(_LINE_DIRECTIVE):
                self._locate(found.group())
            elif character == ".":
                self._directive(reader.line, reader.until(";"))
            else:
                self._instruction(reader.line, reader.until(";"))

    def _label(self, label: str) -> None:
        name = self._scopes[-1].labels.get(label, label)
        self._reader.blank()
        if self._reader.text.startswith(".branchtargets", self._reader.place):
            names = self._reader.until(";").removeprefix(".branchtargets").replace(",", " ").split()
            self._kernel.tables[name] = [self._scopes[-1].labels.get(n, n) for n in names]
        elif self._reader.text.startswith((".callprototype", ".calltargets"), self._reader.place):
            self._reader.until(";")
        else:
            self._kernel.labels[name] = len(self._kernel.statements)

    def _locate(self, text: str) -> None:
        if found := _LOCATION.match(text):
            self._source = f"{found[1]}:{found[2]}"
        elif found := _FILE.match(text):
            self._files[found[1]] = found[2]

    def _directive(self, line: int, text: str) -> None:
        text = " ".join(text.split())
        if text.startswith(".reg"):
            kind, names = text.removeprefix(".reg").strip().removeprefix(".").split(maxsplit=1)
            for part in names.split(","):
                found = _REGISTER.fullmatch(part.strip())
                if kind not in DTYPES or found is None:
                    raise UnsupportedInstructionError(f"line {line}: `{text}` is not modelled")
                self._declare(found[1], kind, found[2])
        elif text.startswith((".pragma", ".maxntid")):
            pass
        elif text.startswith((".local", ".shared", ".param")):
            variable = _variable(text, line)
            self._kernel.variables[variable.name] = variable
        else:
            raise UnsupportedInstructionError(f"line {line}: `{text}` is not modelled")

    def _declare(self, name: str, kind: str, count: str | None) -> None:
        suffix = f"@{self._numbers}" if len(self._scopes) > 1 else ""
        for one in [f"{name}{n}" for n in range(int(count))] if count else [name]:
            self._scopes[-1].registers[one] = one + suffix
            self._kernel.registers[one + suffix] = kind

    def _instruction(self, line: int, text: str) -> None:
        text = " ".join(text.split())
        guard, rest = None, text
        if found := _GUARD.match(text):
            (register,) = OperandReader(found[2], text, line, self._scopes).read()
            guard, rest = Guard(getattr(register, "name", ""), bool(found[1])), text[found.end() :]
        word, _, operands = rest.partition(" ")
        if "{" in word:  # a vector may follow without a blank
            word, _, inner = word.partition("{")
            operands = f"{{{inner} {operands}"
        opcode, *modifiers = word.split(".")
        parsed = OperandReader(operands.strip(), text, line, self._scopes).read()
        self._kernel.statements.append(Statement(text, line, self._source, guard, opcode, tuple(modifiers), parsed))
