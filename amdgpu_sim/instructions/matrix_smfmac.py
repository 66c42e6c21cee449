"""Sparse matrix multiply-accumulate of CDNA 3 and 4 (``v_smfmac_``): D += A * B with A four-to-two sparse.

Of every four elements of a row of A along K only two are stored; an index register says which. Layout ("Example
of Printing Compression Index Information for a Sparse Matrix Instruction" of AMD's matrix instruction
calculator): rows, columns, results and the split of K over groups of lanes are those of the dense instruction of
half the depth. Each lane holds ``depth / groups / 2`` elements of A, twice as many of B, and two bits of index for
every element of A, from the low end; the elements 2n and 2n + 1 lie in the n-th four of the lane's K. Where the
32-bit index register holds several sets, ABID picks one, unless CBSZ is set.
"""

from __future__ import annotations

import re

import numpy as np

from amdgpu_sim.decoding import Decoding, Execute, instruction
from amdgpu_sim.instructions.matrix_layout import ELEMENT_BYTES, accumulator, multiply, register_rows, unpack
from amdgpu_sim.instructions.matrix_mfma import result_rows
from amdgpu_sim.waves import Array, Waves

_NAME = re.compile(r"v_smfmac_(f32|i32)_(\d+)x\d+x(\d+)_(f16|bf16|i8|fp8|bf8)(?:_(fp8|bf8))?")


def expand(values: Array, index: Array) -> Array:
    """Dense rows: ``values`` (..., n) placed where ``index`` (..., n), 0 to 3, says in the fours; others are zero."""
    *shape, count = values.shape
    dense = np.zeros((*shape, count // 2, 4), values.dtype)
    pairs, places = (x.reshape(*shape, count // 2, 2) for x in (values, index))
    # the second of a pair wins where both name one place
    for half in (0, 1):
        np.put_along_axis(dense, places[..., half, None], pairs[..., half, None], axis=-1)
    return dense.reshape(*shape, 2 * count)


def _define(name: str, targets: tuple[str, ...]) -> None:
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"matrix mnemonic {name} is not understood")
    size, depth, elements = int(match[2]), int(match[3]), (match[4], match[5] or match[4])
    groups = 64 // size
    per_lane = depth // groups // 2
    rows = result_rows(size, 1)
    columns = np.broadcast_to(np.arange(64) % size, rows.shape)
    dtype = np.float32 if match[1] == "f32" else np.int32

    @instruction(name)
    def _(d: Decoding) -> Execute:
        if d.target.name not in targets:
            raise d.unsupported(f"{d.target.name} has no such sparse matrix instruction")
        d.parse_operands()
        d.instruction.category = "matrix"
        d.instruction.flops = 2 * size * size * depth
        single, selected = bool(d.modifier("cbsz", 0)), d.modifier("abid", 0)
        sets = 32 // (2 * per_lane)
        if not single and selected >= sets:
            raise d.unsupported(f"abid:{selected}: the index register holds {sets} sets")
        shift = 0 if single else 2 * per_lane * selected
        bits = np.arange(per_lane, dtype=np.uint32) * np.uint32(2) + np.uint32(shift)
        counts = [per_lane * ELEMENT_BYTES[elements[n]] * (n + 1) // 4 for n in (0, 1)]
        a, b = register_rows(d, 1, counts[0]), register_rows(d, 2, counts[1])
        index = register_rows(d, 3, 1)
        add = accumulator(d, 0, len(rows), dtype)
        target = d.destination(0, len(rows), "v")

        def execute(w: Waves) -> None:
            left = unpack(w.v[a : a + counts[0]], elements[0], d.target.fp8)
            right = unpack(w.v[b : b + counts[1]], elements[1], d.target.fp8)
            places = (w.v[index][..., None] >> bits & np.uint32(3)).astype(np.int64)
            lines = [
                x.reshape(w.count, groups, size, 2 * per_lane).transpose(0, 2, 1, 3).reshape(w.count, size, depth)
                for x in (expand(left, places), right)
            ]
            product = multiply(lines[0], lines[1].swapaxes(1, 2))
            result = np.moveaxis(product[:, rows, columns], 0, 1).astype(dtype) + add(w)
            w.v[target : target + len(rows)] = np.ascontiguousarray(result, dtype).view(np.uint32)

        return execute


_CDNA3, _CDNA4 = ("gfx942", "gfx950"), ("gfx950",)
for _kind in ("f16", "bf16"):
    for _shape, _targets in (("16x16x32", _CDNA3), ("32x32x16", _CDNA3), ("16x16x64", _CDNA4), ("32x32x32", _CDNA4)):
        _define(f"v_smfmac_f32_{_shape}_{_kind}", _targets)
for _shape, _targets in (("16x16x64", _CDNA3), ("32x32x32", _CDNA3), ("16x16x128", _CDNA4), ("32x32x64", _CDNA4)):
    _define(f"v_smfmac_i32_{_shape}_i8", _targets)
    for _left in ("fp8", "bf8"):
        for _right in ("fp8", "bf8"):
            _define(f"v_smfmac_f32_{_shape}_{_left}_{_right}", _targets)
