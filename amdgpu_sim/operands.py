"""Instruction operands: registers and constants, and how a value of a given type is read from them."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from amdgpu_sim.conversions import bf16_bits_to_float, float_to_bf16_bits
from amdgpu_sim.waves import EXEC, M0, NULL, SCALAR_SHIFT, SCC, VCC, Array, Waves

Reader = Callable[[Waves], Array]

_NAMED = {
    "vcc": (VCC, 2), "vcc_lo": (VCC, 1), "vcc_hi": (VCC + 1, 1), "exec": (EXEC, 2), "exec_lo": (EXEC, 1),
    "exec_hi": (EXEC + 1, 1), "m0": (M0, 1), "flat_scratch": (102, 2), "flat_scratch_lo": (102, 1),
    "flat_scratch_hi": (103, 1),
}  # fmt: skip
# the apertures of flat addresses, see amdgpu_sim.instructions.flat_memory
_BASES = {"src_shared_base": 1 << 48, "src_private_base": 2 << 48}
_RANGE = re.compile(r"(s|v|a|ttmp)(?:(\d+)|\[(\d+)(?::(\d+))?\])")
_INTEGER = re.compile(r"-?(0x[0-9a-fA-F]+|\d+)")
_FLOAT = re.compile(r"-?\d+\.\d+(e[+-]?\d+)?|-?\d+e[+-]?\d+")
_TTMP_BASE = 108

TYPE_DWORDS = {"u64": 2, "i64": 2, "f64": 2, "b64": 2}
FLOATS = ("f16", "bf16", "f32", "f64")


@dataclass
class Operand:
    """A parsed operand.

    ``kind`` is "v" (``index`` counts accumulation registers after the vector ones), "s", "const" or "off";
    ``width`` is the number of registers named; ``half`` picks the low (0) or high (1) 16 bits.
    """

    text: str
    kind: str
    index: int = 0
    width: int = 1
    value: int | float = 0
    negate: bool = False
    absolute: bool = False
    sign_extend: bool = False
    half: int | None = None

    def bits(self, dwords: int = 1) -> int:
        """Register-set bits of ``dwords`` registers, scalar registers above ``SCALAR_SHIFT``."""
        if self.kind not in "vs":
            return 0
        shift = self.index + (SCALAR_SHIFT if self.kind == "s" else 0)
        return ((1 << dwords) - 1) << shift


def parse_operand(text: str, accumulator_base: int) -> Operand | None:
    """Parse one operand; None if it is none that exists."""
    body, operand = text, Operand(text, "const")
    if body.startswith("lit(") and body.endswith(")"):
        body = body[4:-1]
    if body.startswith("-") and not (_INTEGER.fullmatch(body) or _FLOAT.fullmatch(body)):
        operand.negate, body = True, body[1:]
    for name in ("neg", "abs", "sext"):
        if body.startswith(name + "(") and body.endswith(")"):
            body = body[len(name) + 1 : -1]
            operand.negate |= name == "neg"
            operand.absolute |= name == "abs"
            operand.sign_extend |= name == "sext"
    if body.startswith("|") and body.endswith("|"):
        operand.absolute, body = True, body[1:-1]
    if body[-2:] in (".l", ".h"):
        operand.half, body = int(body.endswith("h")), body[:-2]
    if match := _RANGE.fullmatch(body):
        first = int(match[2] or match[3])
        operand.width = int(match[4]) - first + 1 if match[4] else 1
        operand.kind = "v" if match[1] in "va" else "s"
        operand.index = first + {"a": accumulator_base, "ttmp": _TTMP_BASE}.get(match[1], 0)
        return operand
    if body in _NAMED:
        operand.kind, (operand.index, operand.width) = "s", _NAMED[body]
    elif body == "scc":
        operand.kind, operand.index = "s", SCC
    elif body == "null":
        operand.kind, operand.index = "s", NULL
    elif body in _BASES:
        operand.value = _BASES[body]
    elif body == "off":
        operand.kind = "off"
    elif _INTEGER.fullmatch(body):
        operand.value = int(body, 0)
    elif _FLOAT.fullmatch(body):
        operand.value = float(body)
    else:
        return None
    return operand


def _constant(value: int | float, kind: str) -> Array:
    """The constant as a (1, 1) array of the numpy type that readers of ``kind`` return."""
    if isinstance(value, float):
        raw = {
            "f64": lambda: np.float64(value).view(np.uint64),
            "f16": lambda: np.float16(value).view(np.uint16),
            "pk16": lambda: np.uint32(np.float16(value).view(np.uint16)),
            "bf16": lambda: float_to_bf16_bits(np.array([value], np.float32)).astype(np.uint16)[0],
        }.get(kind, lambda: np.uint32(struct.unpack("<I", struct.pack("<f", value))[0]))()
    elif kind == "f64":
        raw = np.uint64((value & 0xFFFFFFFF) << 32 if abs(value) > 64 else value & (2**64 - 1))
    elif kind in ("u64", "i64", "b64"):
        raw = np.uint64(value & (2**64 - 1))
    elif kind in ("u16", "i16", "f16", "bf16"):
        raw = np.uint16(value & 0xFFFF)
    else:
        raw = np.uint32(value & 0xFFFFFFFF)
    bits = np.array([[raw]])
    if kind == "bf16":
        return bf16_bits_to_float(bits)
    return bits.view(_NUMPY.get(kind, bits.dtype))


_NUMPY = {
    "i32": np.dtype(np.int32), "f32": np.dtype(np.float32), "i64": np.dtype(np.int64), "f64":
    np.dtype(np.float64),
    "i16": np.dtype(np.int16), "f16": np.dtype(np.float16),
}  # fmt: skip


def _register_reader(operand: Operand, kind: str, half: int) -> Reader:
    index, vector = operand.index, operand.kind == "v"
    if kind in ("u64", "i64", "f64", "b64"):
        dtype = _NUMPY.get(kind, np.dtype(np.uint64))

        def read_pair(w: Waves) -> Array:
            bank = w.v if vector else w.s
            low, high = bank[index], bank[index + 1]
            return (low | (high.astype(np.uint64) << np.uint64(32))).view(dtype)

        return read_pair
    if kind in ("u16", "i16", "f16", "bf16"):

        def read_half(w: Waves) -> Array:
            word = (w.v if vector else w.s)[index]
            return (word >> np.uint32(16) if half else word).astype(np.uint16)

        if kind == "bf16":
            return lambda w: bf16_bits_to_float(read_half(w))
        if kind == "u16":
            return read_half
        return lambda w: read_half(w).view(_NUMPY[kind])
    if index == SCC and not vector:
        return lambda w: w.scc.astype(np.uint32)
    if kind == "f32":
        return (lambda w: w.f[index]) if vector else (lambda w: w.sf[index])
    if kind == "i32":
        return (lambda w: w.i[index]) if vector else (lambda w: w.si[index])
    return (lambda w: w.v[index]) if vector else (lambda w: w.s[index])


def _always(value: Array) -> Reader:
    return lambda w: value


def reader(operand: Operand, kind: str, half: int = 0) -> Reader:
    """A function that reads ``operand`` as ``kind``.

    Kinds: u32 i32 f32 b32, u64 i64 f64 b64, u16 i16 f16, bf16 (returned as float32) and pk16 (two 16-bit
    halves as one uint32). Results broadcast against ``(wave, lane)``. ``half`` picks the 16-bit half unless
    the operand does.
    """
    if operand.kind == "const" or (operand.kind == "s" and operand.index == NULL):
        value = _constant(operand.value, kind)

        read = _always(value)
    else:
        read = _register_reader(operand, kind, operand.half if operand.half is not None else half)
    if kind == "b32" and (operand.negate or operand.absolute):
        keep = np.uint32(0x7FFFFFFF if operand.absolute else 0xFFFFFFFF)
        flip = np.uint32(0x80000000 if operand.negate else 0)
        return lambda w: (read(w) & keep) ^ flip
    if operand.absolute and operand.negate:
        return lambda w: -np.abs(read(w))
    if operand.absolute:
        return lambda w: np.abs(read(w))
    if operand.negate:
        return lambda w: -read(w)
    return read
