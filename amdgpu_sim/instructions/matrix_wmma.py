"""Wave matrix multiply-accumulate of RDNA (``v_wmma_``), 16x16x16, wave32.

gfx11: lanes 0-15 and again lanes 16-31 hold the whole row of A (column of B); the result has even rows in
the lower half-wave and odd rows in the upper; 16-bit results take the half of each register that OP_SEL
picks. gfx12: each half-wave holds half of K, and eight consecutive
result rows.
"""

from __future__ import annotations

import numpy as np

from amdgpu_sim.conversions import float_to_bf16_bits
from amdgpu_sim.decoding import Decoding, Execute, instruction
from amdgpu_sim.instructions.matrix_layout import ELEMENT_BYTES, accumulator, multiply, register_rows, unpack
from amdgpu_sim.waves import Array, Waves

_LANE = np.arange(32)
_COLUMNS = np.broadcast_to(_LANE & 15, (8, 32))


def result_rows(generation: int) -> Array:
    """Row of every (register, lane) of a 32-bit result."""
    register, upper = np.arange(8)[:, None], (_LANE >> 4)[None, :]
    return upper * 8 + register if generation >= 12 else 2 * register + upper


def _define(result: str, first: str, second: str) -> None:
    suffix = f"{first}_{second}" if ELEMENT_BYTES[first] == 1 and first not in ("i8",) else first
    mnemonic = f"v_wmma_{result}_16x16x16_{'iu8' if first == 'i8' else suffix}"

    @instruction(mnemonic)
    def _(d: Decoding) -> Execute:
        if d.target.generation < 11 or (d.target.generation == 11 and first in ("fp8", "bf8")):
            raise d.unsupported(f"{d.target.name} has no such matrix instruction")
        d.parse_operands()
        d.instruction.category = "matrix"
        d.instruction.flops = 2 * 16**3
        elements = [first, second]
        if first == "i8":
            signs = d.modifier("neg_lo", [0, 0, 0])
            elements = ["i8" if signs[n] else "u8" for n in (0, 1)]
        split = d.target.generation >= 12
        count = ELEMENT_BYTES[first] * (8 if split else 16) // 4
        a, b = register_rows(d, 1, count), register_rows(d, 2, count)
        rows = result_rows(d.target.generation)

        def lines(w: Waves, register: int, element: str) -> Array:
            values = unpack(w.v[register : register + count], element, d.target.fp8)
            if not split:
                return values[:, :16]
            return np.concatenate([values[:, :16], values[:, 16:]], axis=2)

        def product(w: Waves) -> Array:
            left, right = lines(w, a, elements[0]), lines(w, b, elements[1])
            return np.moveaxis(multiply(left, right.swapaxes(1, 2))[:, rows, _COLUMNS], 0, 1)

        if result in ("f32", "i32"):
            dtype = np.float32 if result == "f32" else np.int32
            clamp = bool(d.modifier("clamp")) and result == "i32"
            add = accumulator(d, 3, 8, dtype)
            target = d.destination(0, 8, "v")

            def execute(w: Waves) -> None:
                total = np.clip(product(w) + np.int64(add(w)), -(2**31), 2**31 - 1) if clamp else product(w) + add(w)
                w.v[target : target + 8] = np.ascontiguousarray(total.astype(dtype)).view(np.uint32)

            return execute
        registers = 4 if split else 8
        high = 0 if split else list(d.modifier("op_sel", [0, 0, 0]))[2]
        addend = accumulator(d, 3, registers, np.uint32)
        narrow_target = d.destination(0, registers, "v")
        if not split:
            # the other half of the destination stays
            d.instruction.wave_reads.append(d.instruction.writes[0])

        def execute_narrow(w: Waves) -> None:
            words = np.broadcast_to(addend(w), (registers, w.count, 32))
            old = np.moveaxis(unpack(words, result, ""), 2, 0)
            total = product(w) + (old if split else old[high::2])
            bits = float_to_bf16_bits(total) if result == "bf16" else total.astype(np.float16).view(np.uint16)
            bits = bits.astype(np.uint32)
            if split:
                w.v[narrow_target : narrow_target + 4] = bits[0::2] | (bits[1::2] << np.uint32(16))
            else:
                kept = w.v[narrow_target : narrow_target + 8] & np.uint32(0x0000FFFF if high else 0xFFFF0000)
                w.v[narrow_target : narrow_target + 8] = kept | (bits << np.uint32(16 * high))

        return execute_narrow


for _result, _element in (("f32", "f16"), ("f32", "bf16"), ("f16", "f16"), ("bf16", "bf16"), ("i32", "i8")):
    _define(_result, _element, _element)
for _left in ("fp8", "bf8"):
    for _right in ("fp8", "bf8"):
        _define("f32", _left, _right)
