"""Turns one assembly line into an :class:`Instruction`: the table of semantics, and what decoders work
with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from amdgpu_sim.assembly import AsmLine, Modifier
from amdgpu_sim.operands import TYPE_DWORDS, Operand, Reader, parse_operand, reader
from amdgpu_sim.targets import Target
from amdgpu_sim.waves import SCALAR_SHIFT, Waves

Execute = Callable[[Waves], None]


@dataclass(frozen=True)
class Span:
    """``count`` consecutive registers of bank ``kind`` ("v" or "s") from ``index``."""

    kind: str
    index: int
    count: int = 1

    @property
    def bits(self) -> int:
        """The span as register-set bits."""
        return ((1 << self.count) - 1) << (self.index + (SCALAR_SHIFT if self.kind == "s" else 0))


@dataclass
class Instruction:
    """A decoded instruction.

    ``execute`` runs it on a bundle. ``lane_reads`` feed the same lane of ``writes``, ``wave_reads`` may
    feed any lane; ``sinks`` are registers that must be defined (addresses, branch conditions), each
    with its role. ``propagate``, if given, executes and updates definedness itself; ``upward`` says
    that the low word of a 64-bit result depends on low words only. ``counters`` names the wait counters
    that the instruction raises, ``pending`` the registers that it fills when it completes, ``waits``
    the limits a wait instruction imposes. ``category`` is the class it is counted in; ``flops`` and
    ``bytes_per_lane`` its work. ``lds_store`` numbers the sequence of LDS stores that it belongs to (see
    :mod:`amdgpu_sim.local_memory`; -1: it stores nothing there).
    """

    line: AsmLine
    execute: Execute
    category: str = "valu"
    lane_reads: list[Span] = field(default_factory=list)
    wave_reads: list[Span] = field(default_factory=list)
    writes: list[Span] = field(default_factory=list)
    sinks: list[tuple[Span, str]] = field(default_factory=list)
    propagate: Execute | None = None
    counters: tuple[str, ...] = ()
    pending: int = 0
    waits: dict[str, int] = field(default_factory=dict)
    bytes_per_lane: int = 0
    flops: int = 0
    lds_store: int = -1
    target_label: str = ""
    ends_block: bool = False
    upward: bool = False
    read_bits: int = 0
    write_bits: int = 0
    touched: int = 0

    def seal(self) -> Instruction:
        """Compute the sets of registers that the instruction reads, writes and touches."""
        self.read_bits = self.write_bits = 0
        for span in [*self.lane_reads, *self.wave_reads, *(span for span, _ in self.sinks)]:
            self.read_bits |= span.bits
        for span in self.writes:
            self.write_bits |= span.bits
        self.touched = self.read_bits | self.write_bits
        return self


class Decoding:
    """One instruction while it is being decoded; decoders read operands through it and fill
    ``instruction``."""

    def __init__(self, line: AsmLine, mnemonic: str, target: Target, facts: KernelFacts) -> None:
        """Start decoding ``line``, whose base mnemonic is ``mnemonic``."""
        self.line, self.mnemonic, self.target, self.facts = line, mnemonic, target, facts
        self.instruction = Instruction(line, lambda w: None)
        self._unused = set(line.modifiers)
        self.operands: list[Operand] = []

    def parse_operands(self) -> None:
        """Parse all operands; UnsupportedInstructionError if one cannot be."""
        for text in self.line.operands:
            operand = parse_operand(text, self.facts.accumulator_base)
            if operand is None:
                raise self.unsupported(f"operand {text!r}")
            self.operands.append(operand)

    def unsupported(self, why: str) -> Exception:
        """The load error for this line."""
        return self.line.unsupported(why)

    def modifier(self, name: str, default: Modifier | None = None) -> Any:
        """The value of modifier ``name``; marks it as understood."""
        self._unused.discard(name)
        return self.line.modifiers.get(name, default)

    def ignore(self, *names: str) -> None:
        """Accept modifiers that do not change results (cache policy)."""
        self._unused.difference_update(names)

    def finish(self, execute: Execute) -> Instruction:
        """Seal the instruction; UnsupportedInstructionError if a modifier was not understood."""
        if self._unused:
            raise self.unsupported(f"modifier {', '.join(sorted(self._unused))} is not modelled here")
        self.instruction.execute = execute
        return self.instruction.seal()

    def span(self, number: int, count: int = 1) -> Span | None:
        """The registers of operand ``number``; None for constants, ``off`` and ``null``."""
        operand = self.operands[number]
        if operand.kind not in ("v", "s") or operand.text == "null":
            return None
        return Span(operand.kind, operand.index, count)

    def source(self, number: int, kind: str, half: int = 0, whole_wave: bool = False) -> Reader:
        """A reader of operand ``number`` as ``kind``; records the registers as read."""
        if number >= len(self.operands):
            raise self.unsupported(f"operand {number} is missing")
        span = self.span(number, TYPE_DWORDS.get(kind, 1))
        if span:
            (self.instruction.wave_reads if whole_wave else self.instruction.lane_reads).append(span)
        return reader(self.operands[number], kind, half)

    def sink(self, number: int, role: str, count: int = 1) -> None:
        """Operand ``number`` must be defined in every active lane."""
        if span := self.span(number, count):
            self.instruction.sinks.append((span, role))

    def destination(self, number: int, count: int = 1, kind: str = "") -> int:
        """Register index of destination operand ``number``; records ``count`` registers as written."""
        span = self.span(number, count)
        operand = self.operands[number]
        if (kind and operand.kind != kind) or operand.kind in ("const", "off"):
            raise self.unsupported(f"operand {operand.text!r} cannot be written here")
        if span:
            self.instruction.writes.append(span)
        return operand.index

    def read_also(self, kind: str, index: int, count: int = 1) -> None:
        """Record an implicit source."""
        self.instruction.lane_reads.append(Span(kind, index, count))

    def write_also(self, kind: str, index: int, count: int = 1) -> None:
        """Record an implicit destination."""
        self.instruction.writes.append(Span(kind, index, count))


@dataclass(frozen=True)
class KernelFacts:
    """What decoding needs to know of the whole kernel.

    ``vectors`` rows of vector registers, of which those from ``accumulator_base`` on are AGPRs;
    ``flush_f32`` if the kernel starts with float32 denormals flushed; ``scratch_bytes`` per lane and
    ``lds_bytes`` per work-group.
    """

    vectors: int
    accumulator_base: int
    flush_f32: bool
    scratch_bytes: int
    lds_bytes: int


Decoder = Callable[[Decoding], Execute]
SEMANTICS: dict[str, Decoder] = {}
SUFFIXES = ("_e64_dpp", "_e32", "_e64", "_dpp", "_sdwa")


def instruction(*names: str) -> Callable[[Decoder], Decoder]:
    """Register a decoder for the given mnemonics (without encoding suffix)."""

    def register(decoder: Decoder) -> Decoder:
        for name in names:
            if name in SEMANTICS:
                raise ValueError(f"{name} is already defined")
            SEMANTICS[name] = decoder
        return decoder

    return register


def base_mnemonic(mnemonic: str) -> str:
    """The mnemonic without encoding suffix and without the dual-issue prefix."""
    for suffix in SUFFIXES:
        mnemonic = mnemonic.removesuffix(suffix)
    return mnemonic.replace("v_dual_", "v_", 1)


def decode(line: AsmLine, target: Target, facts: KernelFacts) -> Instruction:
    """Decode ``line`` for ``target``; UnsupportedInstructionError with its line number if anything in it
    is unknown."""
    mnemonic = base_mnemonic(line.mnemonic)
    decoder = SEMANTICS.get(mnemonic)
    if decoder is None:
        raise line.unsupported(f"unknown instruction {mnemonic!r}")
    decoding = Decoding(line, mnemonic, target, facts)
    return decoding.finish(decoder(decoding))
