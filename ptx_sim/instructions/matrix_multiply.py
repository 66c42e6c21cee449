"""mma.sync: D = A * B + C on the registers of each warp.

Thread ``4 * g + t`` of a warp holds rows (of A and the results) or columns (of B) ``g``, and the elements ``t`` along
the other dimension: the layouts of the PTX manual's section on warp-level matrix fragments. Products of narrow types
are exact in float32; the sum over k is one float32 matrix product, and the accumulator is added to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ptx_sim.decoding import Decoding, Execute, instruction
from ptx_sim.instructions.elementwise import scalar_safe
from ptx_sim.number_formats import F16, F32, U8, U16, U32, from_bf16, from_float8
from ptx_sim.shared_memory import WARP
from ptx_sim.threads import Threads
from ptx_sim.types import Array

_TF32_BITS = U32(0xFFFFE000)
# element type: (bytes, words (..., n) of uint32 to float32 elements (..., n * elements of a word))
ELEMENTS: dict[str, tuple[int, Callable[[Array], Array]]] = {
    "f16": (2, lambda words: words.view(F16).astype(F32)),
    "bf16": (2, lambda words: from_bf16(words.view(U16))),
    "tf32": (4, lambda words: (words & _TF32_BITS).view(F32)),
    "e4m3": (1, lambda words: from_float8(words.view(U8), "e4m3")),
    "e5m2": (1, lambda words: from_float8(words.view(U8), "e5m2")),
}
# bytes along k that one register of A or B covers for the four threads of a group
_REGISTER_BYTES = 16


@instruction("mma")
def _(d: Decoding) -> Execute:
    if not (d.flag("sync") and d.flag("aligned") and d.flag("row") and d.flag("col")):
        raise d.unsupported("only .sync.aligned with .row.col is modelled")
    shape = d.choice("m16n8k4", "m16n8k8", "m16n8k16", "m16n8k32")
    if not shape or len(d.modifiers) != 4:
        raise d.unsupported("a shape or a type that is not modelled")
    result, a_kind, b_kind, addend = d.modifiers
    d.modifiers = []
    k = int(shape[6:])
    if a_kind not in ELEMENTS or b_kind not in ELEMENTS or result != addend or result not in ("f32", "f16"):
        raise d.unsupported("types that are not modelled")
    size = ELEMENTS[a_kind][0]
    slabs = k * size // _REGISTER_BYTES
    if k * size % _REGISTER_BYTES or slabs not in (1, 2) or ELEMENTS[b_kind][0] != size:
        raise d.unsupported("a shape that the types do not have")
    d.category = "matrix"
    a, b, c = (
        [scalar_safe(d.source(item, kind)) for item in d.elements(d.operand(number))]
        for number, kind in ((1, "b32"), (2, "b32"), (3, "f32" if result == "f32" else "b32"))
    )
    writes = [d.destination(item, "f32" if result == "f32" else "b32") for item in d.elements(d.operand(0))]
    held = 4 if result == "f32" else 2
    if [len(a), len(b), len(c), len(writes)] != [2 * slabs, slabs, held, held]:
        raise d.unsupported("another number of registers is expected")
    decode_a, decode_b = ELEMENTS[a_kind][1], ELEMENTS[b_kind][1]
    accumulate = _accumulate32 if result == "f32" else _accumulate16

    def execute(t: Threads) -> None:
        t.whole_warps("mma.sync")
        warps = t.count // WARP
        words_a = np.stack([read(t) for read in a]).reshape(slabs, 2, warps, 8, 4)
        words_b = np.stack([read(t) for read in b]).reshape(slabs, warps, 8, 4)
        # (warp, row, k), (warp, column, k): the same order of k on both sides
        left = decode_a(words_a).transpose(2, 1, 3, 0, 4).reshape(warps, 16, -1)
        right = decode_b(words_b).transpose(1, 2, 0, 3).reshape(warps, 8, -1)
        accumulate(t, np.matmul(left, right.transpose(0, 2, 1)), c, writes)

    return execute


def _accumulate32(t: Threads, product: Array, c: list[Any], writes: list[Any]) -> None:
    # (warp, upper or lower half, row, thread, column of a pair) -> (half, column, warp, row, thread)
    parts = product.reshape(-1, 2, 8, 4, 2).transpose(1, 4, 0, 2, 3).reshape(4, -1)
    for number, (read, write) in enumerate(zip(c, writes, strict=True)):
        write(t, parts[number] + read(t))


def _accumulate16(t: Threads, product: Array, c: list[Any], writes: list[Any]) -> None:
    parts = product.reshape(-1, 2, 8, 4, 2).transpose(1, 0, 2, 3, 4).reshape(2, -1)
    for number, (read, write) in enumerate(zip(c, writes, strict=True)):
        total = parts[number] + np.ascontiguousarray(read(t)).view(F16).astype(F32)
        write(t, total.astype(F16).view(U32))
