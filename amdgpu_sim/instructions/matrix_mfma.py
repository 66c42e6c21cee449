"""Matrix fused multiply-add of CDNA (``v_mfma_``): every one- and multi-block shape of wave64.

Layout (AMD matrix instruction calculator): with M = N and ``blocks`` independent products, lane ``l``
holds row ``l % M`` of A and column ``l % M`` of B; lanes of the same row differ in K (one block) or in
the block. The result has lane ``l`` in column ``l % N`` and rows in groups of four.
"""

from __future__ import annotations

import re

import numpy as np

from amdgpu_sim.decoding import Decoding, Execute, instruction
from amdgpu_sim.instructions.matrix_layout import ELEMENT_BYTES, accumulator, multiply, register_rows, unpack
from amdgpu_sim.waves import Array, Waves

_NAME = re.compile(
    r"v_mfma_(f32|i32|f64)_(\d+)x(\d+)x(\d+)_?(\d+b_)?_?(xf32|bf16|f16|bf8|fp8|f32|f64|i8)(?:_(fp8|bf8))?(_1k)?"
)


def result_rows(size: int, blocks: int, generation_f64: bool = False) -> Array:
    """Row (block * size + row) of every (register, lane) of the result."""
    lane = np.arange(64)
    registers = size * size * blocks // 64
    register = np.arange(registers)[:, None]
    if generation_f64:
        return register * 4 + lane[None, :] // 16 if registers > 1 else lane[None, :] // 16
    if size == 4:
        return 4 * (lane[None, :] // 4) + register
    per_block = size * size // 64
    block, inner = register // per_block, register % per_block
    groups = 64 // size
    return block * size + 4 * groups * (inner // 4) + 4 * (lane[None, :] // size) + inner % 4


def _define(name: str) -> None:
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"matrix mnemonic {name} is not understood")
    kind, size, depth = match[1], int(match[2]), int(match[4])
    elements = match[6], match[7] or match[6]
    lanes_per_line = 64 // size
    blocks = int(match[5][:-2]) if match[5] else {(32, "f32", 1): 2, (32, "f16", 4): 2, (32, "i8", 4): 2,
        (32, "bf16", 4): 2, (16, "f32", 1): 4, (16, "f16", 4): 4, (16, "i8", 4): 4, (16, "bf16", 4): 4,
        (4, "f32", 1): 16, (4, "f16", 4): 16, (4, "i8", 4): 16, (4, "bf16", 4): 16,
        (4, "f64", 4): 4}.get((size, elements[0], depth), 1)  # fmt: skip
    groups = lanes_per_line // blocks
    per_lane = depth // groups
    if kind == "f64" and size == 4:
        raise ValueError(f"{name}: layout not modelled")
    rows = result_rows(size, blocks, kind == "f64")
    columns = np.broadcast_to(np.arange(64) % size, rows.shape)
    dtype = {"f32": np.float32, "i32": np.int32, "f64": np.float64}[kind]

    @instruction(name)
    def _(d: Decoding) -> Execute:
        if d.target.generation != 9:
            raise d.unsupported(f"{d.target.name} has no MFMA")
        d.parse_operands()
        d.instruction.category = "matrix"
        d.instruction.flops = 2 * size * size * depth * blocks
        if any(d.modifier(field, 0) for field in ("cbsz", "abid", "blgp")) or "neg" in d.line.modifiers:
            raise d.unsupported("broadcast and permutation fields are not modelled")
        wide = 2 if kind == "f64" else 1
        a, b = (register_rows(d, n, per_lane * ELEMENT_BYTES[elements[n - 1]] // 4) for n in (1, 2))
        counts = [d.operands[n].width for n in (1, 2)]
        add = accumulator(d, 3, len(rows) * wide, dtype)
        target = d.destination(0, len(rows) * wide, "v")

        def lines(w: Waves, first: int, count: int, element: str) -> Array:
            """(wave, block, line, depth) of one operand."""
            values = unpack(w.v[first : first + count], element, d.target.fp8)
            shaped = values.reshape(w.count, blocks, groups, size, per_lane)
            return shaped.transpose(0, 1, 3, 2, 4).reshape(w.count, blocks, size, depth)

        def execute(w: Waves) -> None:
            left, right = lines(w, a, counts[0], elements[0]), lines(w, b, counts[1], elements[1])
            product = multiply(left, right.swapaxes(2, 3)).reshape(w.count, blocks * size, size)
            result = np.moveaxis(product[:, rows, columns], 0, 1).astype(dtype) + add(w)
            words = np.ascontiguousarray(result).astype(dtype, copy=False)
            if wide == 1:
                w.v[target : target + len(rows)] = words.view(np.uint32)
            else:
                bits = words.view(np.uint64)
                w.v[target : target + 2 * len(rows) : 2] = bits.astype(np.uint32)
                w.v[target + 1 : target + 2 * len(rows) : 2] = (bits >> np.uint64(32)).astype(np.uint32)

        return execute


for _shape in ("32x32x8f16", "16x16x16f16", "32x32x4f16", "16x16x4f16", "4x4x4f16",
               "32x32x2f32", "16x16x4f32", "32x32x1f32", "16x16x1f32", "4x4x1f32",
               "32x32x8bf16_1k", "16x16x16bf16_1k", "32x32x4bf16_1k", "16x16x4bf16_1k", "4x4x4bf16_1k",
               "32x32x8_f16", "16x16x16_f16", "32x32x4_2b_f16", "16x16x4_4b_f16", "4x4x4_16b_f16",
               "32x32x2_f32", "16x16x4_f32", "32x32x1_2b_f32", "16x16x1_4b_f32", "4x4x1_16b_f32",
               "32x32x8_bf16", "16x16x16_bf16", "32x32x4_2b_bf16", "16x16x4_4b_bf16", "4x4x4_16b_bf16",
               "32x32x16_f16", "16x16x32_f16", "32x32x16_bf16", "16x16x32_bf16",
               "16x16x8_xf32", "32x32x4_xf32"):  # fmt: skip
    _define(f"v_mfma_f32_{_shape}")
for _left in ("fp8", "bf8"):
    for _right in ("fp8", "bf8"):
        _define(f"v_mfma_f32_16x16x32_{_left}_{_right}")
        _define(f"v_mfma_f32_32x32x16_{_left}_{_right}")
for _shape in ("32x32x8i8", "16x16x16i8", "32x32x4i8", "16x16x4i8", "4x4x4i8", "32x32x16_i8", "16x16x32_i8",
               "32x32x4_2b_i8", "16x16x4_4b_i8", "4x4x4_16b_i8", "32x32x32_i8", "16x16x64_i8"):  # fmt: skip
    _define(f"v_mfma_i32_{_shape}")
for _shape in ("16x16x4f64", "16x16x4_f64"):
    _define(f"v_mfma_f64_{_shape}")


def _define_f8f6f4(size: int, depth: int) -> None:
    """gfx950's mixed 8/6/4-bit instruction; only the 8-bit formats (cbsz, blgp 0 and 1) are modelled."""
    rows = result_rows(size, 1)
    columns = np.broadcast_to(np.arange(64) % size, rows.shape)
    groups = 64 // size

    @instruction(f"v_mfma_f32_{size}x{size}x{depth}_f8f6f4")
    def _(d: Decoding) -> Execute:
        if d.target.name != "gfx950":
            raise d.unsupported(f"{d.target.name} has no f8f6f4")
        d.parse_operands()
        d.instruction.category = "matrix"
        d.instruction.flops = 2 * size * size * depth
        formats = [d.modifier("cbsz", 0), d.modifier("blgp", 0)]
        if max(formats) > 1:
            raise d.unsupported("6- and 4-bit formats are not modelled")
        a, b = register_rows(d, 1, 8), register_rows(d, 2, 8)
        add = accumulator(d, 3, len(rows), np.float32)
        target = d.destination(0, len(rows), "v")

        def lines(w: Waves, first: int, element: str) -> Array:
            values = unpack(w.v[first : first + 8], element, "ocp").reshape(w.count, groups, size, 32)
            return values.transpose(0, 2, 1, 3).reshape(w.count, size, depth)

        def execute(w: Waves) -> None:
            left = lines(w, a, ("fp8", "bf8")[formats[0]])
            right = lines(w, b, ("fp8", "bf8")[formats[1]])
            product = multiply(left, right.swapaxes(1, 2))
            result = np.moveaxis(product[:, rows, columns], 0, 1) + add(w)
            w.v[target : target + len(rows)] = np.ascontiguousarray(result, np.float32).view(np.uint32)

        return execute


_define_f8f6f4(16, 128)
_define_f8f6f4(32, 64)
