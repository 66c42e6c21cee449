"""How a lane-wise vector instruction is built from a plain function of arrays: sources, DPP, SDWA, clamp,
result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from amdgpu_sim.conversions import float_to_bf16_bits
from amdgpu_sim.decoding import Decoding, Execute, instruction
from amdgpu_sim.instructions.dpp import Dpp
from amdgpu_sim.instructions.sdwa import sdwa_reader, sdwa_writer
from amdgpu_sim.operands import TYPE_DWORDS, Reader
from amdgpu_sim.waves import Array, Waves

Function = Callable[..., Any]
Writer = Callable[[Waves, Array], None]

_TINY = np.float32(2.0**-126)
_SATURATING = ("v_add_u", "v_add_i", "v_add_nc", "v_sub_u", "v_sub_i", "v_sub_nc", "v_subrev")
_UPWARD = ("v_lshlrev_b64", "v_lshl_add_u64", "v_mov_b64")
_ALIAS = {"f32": "f", "i32": "i", "u32": "v", "b32": "v"}


def flush(value: Array) -> Array:
    """float32 denormals become zero of the same sign."""
    return np.where(np.abs(value) < _TINY, np.copysign(np.float32(0), value), value)


def halfword_writer(d: Decoding, register: int, half: int | None) -> Writer:
    """Writes 16-bit results. Without a half, gfx9 clears the other 16 bits and later targets keep them.

    Definedness is followed by whole registers: writing one half makes the register defined.
    """
    clears = d.target.generation == 9 and half is None
    shift, keep = np.uint32(16 if half else 0), np.uint32(0x0000FFFF if half else 0xFFFF0000)

    def write(w: Waves, bits: Array) -> None:
        word = bits.astype(np.uint32)
        w.set_vector(register, word if clears else (w.v[register] & keep) | (word << shift))

    return write


def result_writer(d: Decoding, number: int, kind: str, half: int | None = None) -> Writer:
    """A function that writes operand ``number`` as ``kind`` in the active lanes, with output modifier and
    clamp."""
    register = d.destination(number, TYPE_DWORDS.get(kind, 1), "v")
    half = d.operands[number].half if d.operands[number].half is not None else half
    if kind in ("u16", "i16", "f16", "bf16"):
        write_half = halfword_writer(d, register, half)
        clamp16 = bool(d.modifier("clamp")) and kind == "f16"
        if kind == "bf16":
            return lambda w, x: write_half(w, float_to_bf16_bits(x))
        return lambda w, x: write_half(w, (np.clip(x, 0, 1) if clamp16 else x).view(np.uint16))
    if TYPE_DWORDS.get(kind) == 2:
        return lambda w, x: w.set_vector64(register, x.view(np.uint64))
    bank = _ALIAS[kind]

    def write(w: Waves, x: Array) -> None:
        if w.full:
            getattr(w, bank)[register] = x
        else:
            np.copyto(getattr(w, bank)[register], x, where=w.active)

    if kind != "f32":
        return write
    scale = np.float32(d.modifier("mul", 1) / d.modifier("div", 1))
    clamp, flushing = bool(d.modifier("clamp")), d.facts.flush_f32
    if scale == 1 and not clamp and not flushing:
        return write

    def write_modified(w: Waves, x: Array) -> None:
        y = x * scale
        if clamp:
            y = np.where(np.isnan(y), np.float32(0), np.clip(y, np.float32(0), np.float32(1)))
        write(w, flush(y) if flushing else y)

    return write_modified


def select_halves(d: Decoding, sources: int) -> list[int]:
    """``op_sel`` of a 16-bit VOP3 instruction: one bit a source, then the destination."""
    selected = d.modifier("op_sel", [0] * (sources + 1))
    return list(selected) + [0] * (sources + 1 - len(selected))


def vector_reader(d: Decoding, number: int, kind: str, half: int, dpp: Dpp | None) -> Reader:
    """Reader of source ``number`` (1-based operand) with SDWA selection or DPP applied."""
    if d.line.mnemonic.endswith("_sdwa"):
        return sdwa_reader(d, number, kind)
    read = d.source(number, kind, half)
    if dpp is None or number != dpp.operand:
        return read
    return lambda w: dpp.apply(w, np.broadcast_to(read(w), w.active.shape))


def decode_vector(d: Decoding, result: str, kinds: list[str], function: Function) -> Execute:
    """The common decoder: operand 0 is the result, the others the sources; ``dst`` as a kind re-reads
    operand 0."""
    d.parse_operands()
    explicit = [kind for kind in kinds if kind != "dst"]
    if len(d.operands) != len(explicit) + 1:
        raise d.unsupported(f"{len(explicit) + 1} operands expected")
    narrow = any(kind in ("u16", "i16", "f16", "bf16") for kind in [*kinds, result])
    halves = select_halves(d, len(explicit)) if narrow else [0] * (len(explicit) + 1)
    dpp = Dpp.decode(d, 1) if "dpp" in d.line.mnemonic else None
    readers = [vector_reader(d, n, kind, halves[n - 1], dpp) for n, kind in enumerate(explicit, 1)]
    if "dst" in kinds:
        readers.append(d.source(0, result))
    if d.line.mnemonic.endswith("_sdwa"):
        write = sdwa_writer(d, result)
    else:
        write = result_writer(d, 0, result, 1 if halves[-1] else None)
    if dpp:
        return dpp.execute(d, readers, function, write)
    flushing = d.facts.flush_f32
    if flushing and "f32" in kinds:
        readers = [_flushing(r) if k == "f32" else r for r, k in zip(readers, [*explicit, result], strict=False)]
    if len(readers) == 1:
        (first,) = readers
        return lambda w: write(w, function(first(w)))
    if len(readers) == 2:
        a, b = readers
        return lambda w: write(w, function(a(w), b(w)))
    return lambda w: write(w, function(*[read(w) for read in readers]))


def _flushing(read: Reader) -> Reader:
    return lambda w: flush(read(w))


def saturated(function: Function, result: str) -> Function:
    """The integer function with ``clamp``: computed exactly, then limited to the range of ``result``."""
    limits = np.iinfo(np.dtype({"u32": "uint32", "i32": "int32", "u16": "uint16", "i16": "int16"}[result]))

    def clamped(*values: Array) -> Array:
        exact = function(*[value.astype(np.int64) for value in values])
        return np.clip(exact, limits.min, limits.max).astype(limits.dtype)

    return clamped


def vector(names: str, result: str, sources: str, function: Function, category: str = "valu") -> None:
    """Define lane-wise instructions: ``names`` (space separated) compute ``result`` from ``sources``
    kinds."""
    kinds = sources.split()

    @instruction(*names.split())
    def _(d: Decoding) -> Execute:
        d.instruction.category = category
        d.instruction.upward = d.mnemonic in _UPWARD
        if d.mnemonic.startswith(_SATURATING) and result[0] in "ui" and d.modifier("clamp"):
            return decode_vector(d, result, kinds, saturated(function, result))
        return decode_vector(d, result, kinds, function)
