"""Sub-dword addressing (``_sdwa`` encodings of gfx9): sources and results that are a byte or half of a
register."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from amdgpu_sim.decoding import Decoding
from amdgpu_sim.operands import Reader
from amdgpu_sim.waves import Array, Waves

_FIELDS = {
    "DWORD": (0, 32), "WORD_0": (0, 16), "WORD_1": (16, 16),
    "BYTE_0": (0, 8), "BYTE_1": (8, 8), "BYTE_2": (16, 8), "BYTE_3": (24, 8),
}  # fmt: skip


def sdwa_reader(d: Decoding, number: int, kind: str) -> Reader:
    """Reader of source ``number``: the selected field, zero- or sign-extended, seen as ``kind``."""
    shift, bits = _FIELDS[d.modifier(f"src{number - 1}_sel", "DWORD")]
    operand = d.operands[number]
    read = d.source(number, "u32" if not (operand.negate or operand.absolute) else kind)
    if bits == 32 and kind in ("u32", "i32", "f32", "b32"):
        return d.source(number, kind)
    if operand.negate or operand.absolute or kind not in ("u32", "i32", "b32", "u16", "f16", "i16"):
        raise d.unsupported(f"SDWA selection of {operand.text!r} as {kind}")
    signed = operand.sign_extend

    def extract(w: Waves) -> Array:
        word = read(w) << np.uint32(32 - shift - bits)
        if signed:
            return (word.view(np.int32) >> np.int32(32 - bits)).view(np.uint32)
        return word >> np.uint32(32 - bits)

    if kind in ("u16", "i16", "f16"):
        dtype = {"u16": np.uint16, "i16": np.int16, "f16": np.float16}[kind]
        return lambda w: extract(w).astype(np.uint16).view(dtype)
    return (lambda w: extract(w).view(np.int32)) if kind == "i32" else extract


def sdwa_writer(d: Decoding, kind: str) -> Callable[[Waves, Array], None]:
    """Writer of operand 0 into ``dst_sel``, with the rest padded, sign-extended or kept."""
    shift, bits = _FIELDS[d.modifier("dst_sel", "DWORD")]
    unused = d.modifier("dst_unused", "UNUSED_PAD")
    register = d.destination(0, 1, "v")
    mask = np.uint32(((1 << bits) - 1) << shift)
    if unused == "UNUSED_SEXT":
        raise d.unsupported("dst_unused:UNUSED_SEXT is not modelled")

    def write(w: Waves, value: Array) -> None:
        raw = value.view({2: np.uint16, 4: np.uint32}[value.dtype.itemsize]).astype(np.uint32)
        word = (raw << np.uint32(shift)) & mask
        w.set_vector(register, word | (w.v[register] & ~mask) if unused == "UNUSED_PRESERVE" else word)

    return write
