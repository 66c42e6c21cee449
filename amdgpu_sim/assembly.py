"""Reads AMDGPU assembly text, as Triton and ``clang -S`` print it, into lines, labels and kernel facts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from amdgpu_sim.errors import AssemblyError, UnsupportedInstructionError

_FLAGS = frozenset(
    [
        "offen",
        "idxen",
        "lds",
        "sc0",
        "sc1",
        "nt",
        "glc",
        "slc",
        "dlc",
        "gds",
        "clamp",
        "tfe",
        "lwe",
        "row_mirror",
        "row_half_mirror",
    ]
)
_COMMENT = re.compile(r"(;|//).*")
_INTEGER = re.compile(r"-?(0x[0-9a-fA-F]+|\d+)")
_KEYED = re.compile(r"([a-z_][a-z_0-9]*):(.+)", re.DOTALL)
_RAW_OPERANDS = (
    "s_waitcnt",
    "s_wait_",
    "s_delay_alu",
    "s_sendmsg",
    "s_setreg",
    "s_denorm_mode",
    "s_round_mode",
    "s_getreg",
    "s_nop",
    "s_clause",
)

Modifier = int | str | list[int]


@dataclass
class AsmLine:
    """One instruction: ``number`` is its line in the text, ``source`` the ``file:line`` it comes from.

    ``address`` is where it lies at run time; None in assembly text, which has no addresses.
    """

    number: int
    text: str
    mnemonic: str
    operands: list[str]
    modifiers: dict[str, Modifier]
    source: str
    address: int | None = None

    def unsupported(self, why: str) -> UnsupportedInstructionError:
        """The error for this line."""
        return UnsupportedInstructionError(f"line {self.number}: `{self.text}`: {why}")


@dataclass(frozen=True)
class Argument:
    """One kernel argument: byte ``offset`` and ``size`` in the kernarg segment, ``kind`` as in the
    metadata."""

    offset: int
    size: int
    kind: str


@dataclass
class KernelText:
    """One kernel of an assembly text or a code object."""

    name: str
    target: str
    directives: dict[str, int]
    arguments: list[Argument]
    kernarg_size: int
    lines: list[AsmLine] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)


def split_top_level(text: str, separator: str) -> list[str]:
    """Split at ``separator`` outside brackets and parentheses; parts are stripped, empty ones dropped."""
    parts, depth, begin = [], 0, 0
    for position, char in enumerate(text):
        if char in "[(":
            depth += 1
        elif char in "])":
            depth -= 1
        elif char == separator and depth == 0:
            parts.append(text[begin:position])
            begin = position + 1
    parts.append(text[begin:])
    return [part.strip() for part in parts if part.strip()]


def _modifier(token: str) -> tuple[str, Modifier] | None:
    if token in _FLAGS:
        return token, 1
    match = _KEYED.fullmatch(token)
    if not match:
        return None
    value = match[2]
    if value.startswith("["):
        return match[1], [int(part, 0) for part in value[1:-1].split(",")]
    return match[1], int(value, 0) if _INTEGER.fullmatch(value) else value


def parse_instruction(text: str, number: int = 0, source: str = "") -> AsmLine:
    """Split one instruction into mnemonic, operands and modifiers."""
    text = " ".join(text.split())
    mnemonic, _, rest = text.partition(" ")
    if mnemonic.startswith(_RAW_OPERANDS):
        return AsmLine(number, text, mnemonic, split_top_level(rest, ","), {}, source)
    operands = split_top_level(rest, ",")
    modifiers: dict[str, Modifier] = {}
    line = AsmLine(number, text, mnemonic, operands, modifiers, source)
    if operands:
        tokens = split_top_level(operands.pop(), " ")
        while tokens and (parsed := _modifier(tokens[-1])):
            modifiers[parsed[0]] = parsed[1]
            tokens.pop()
        if len(tokens) > 1:
            raise line.unsupported(f"cannot read {' '.join(tokens[1:])!r}")
        operands.extend(tokens)
    return line


def _arguments(text: str, name: str) -> tuple[list[Argument], int]:
    """Arguments and kernarg size of kernel ``name`` from the metadata note (YAML, regular enough to scan)."""
    for entry in re.split(r"^  - (?=\.)", text.partition("amdhsa.kernels:")[2], flags=re.MULTILINE)[1:]:
        if not re.search(rf"^\s+\.name:\s+'?{re.escape(name)}'?$", entry, re.MULTILINE):
            continue
        arguments = []
        block = re.search(r"\.args:(.*?)^    \.(?!args)", entry, re.DOTALL | re.MULTILINE)
        for item in re.split(r"^\s+- ", block[1] if block else "", flags=re.MULTILINE)[1:]:
            facts = dict(re.findall(r"\.(\w+):\s+(\S+)", item))
            arguments.append(Argument(int(facts["offset"]), int(facts["size"]), facts["value_kind"]))
        size = re.search(r"\.kernarg_segment_size:\s*(\d+)", entry)
        return arguments, int(size[1]) if size else 0
    raise AssemblyError(f"kernel {name!r}: no metadata entry in the assembly text")


def _directives(text: str, name: str) -> dict[str, int]:
    match = re.search(
        rf"^\s*\.amdhsa_kernel {re.escape(name)}$(.*?)\.end_amdhsa_kernel", text, re.DOTALL | re.MULTILINE
    )
    if not match:
        raise AssemblyError(f"kernel {name!r}: no .amdhsa_kernel block in the assembly text")
    found = re.findall(r"\.amdhsa_(\w+) (0x[0-9a-fA-F]+|\d+)\s*$", match[1], re.MULTILINE)
    return {key: int(value, 0) for key, value in found}


def kernel_names(text: str) -> list[str]:
    """Names of the kernels that the text defines."""
    return re.findall(r"^\s*\.amdhsa_kernel (\S+)", text, re.MULTILINE)


def parse_kernel(text: str, name: str | None = None) -> KernelText:
    """Read kernel ``name`` (default: the only one) from assembly ``text``.

    Raises AssemblyError if the kernel, its directives or its metadata are missing, and
    UnsupportedInstructionError for a line that cannot be split into operands and modifiers.
    """
    names = kernel_names(text)
    if name is None and len(names) != 1:
        raise AssemblyError(f"kernel: the text defines {names or 'none'}; name exactly one of them")
    name = name or names[0]
    if name not in names:
        raise AssemblyError(f"kernel {name!r} is not among {names}")
    target = re.search(r'\.amdgcn_target "[^"]*-(gfx\w+)', text)
    if not target:
        raise AssemblyError("no .amdgcn_target directive in the assembly text")
    arguments, kernarg_size = _arguments(text, name)
    kernel = KernelText(name, target[1], _directives(text, name), arguments, kernarg_size)
    files: dict[str, str] = {}
    inside, source = False, ""
    for number, raw in enumerate(text.splitlines(), 1):
        stripped = _COMMENT.sub("", raw).strip()
        if stripped.startswith(".file"):
            parts = re.findall(r'"([^"]*)"', stripped)
            files[stripped.split()[1]] = parts[-1] if parts else "?"
        if stripped == name + ":":
            inside = True
        elif not inside or not stripped:
            continue
        elif stripped.startswith((".Lfunc_end", ".section", ".amdhsa_kernel")):
            break
        elif stripped.startswith(".loc"):
            _, file, line, *_ = stripped.split()
            source = f"{files.get(file, '?')}:{line}" if line != "0" else source
        elif stripped.endswith(":"):
            kernel.labels[stripped[:-1]] = len(kernel.lines)
        elif not stripped.startswith("."):
            kernel.lines.append(parse_instruction(stripped, number, source))
    return kernel
