"""wgmma: matrix products of warpgroups, whose operands lie in shared memory, A's in registers if it likes.

The layouts are those of the PTX manual's section on asynchronous warpgroup matrix instructions. A product is computed
when its warpgroup waits for it, as late as it may be; until then the accumulator keeps its old value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ptx_sim.decoding import Decoding, Execute, Read, Write, instruction
from ptx_sim.errors import DivergenceError, KernelError
from ptx_sim.instructions.elementwise import scalar_safe
from ptx_sim.instructions.matrix_multiply import ELEMENTS
from ptx_sim.number_formats import F32
from ptx_sim.shared_memory import WARP
from ptx_sim.syntax import Immediate, Vector, integer
from ptx_sim.tensor_maps import swizzled
from ptx_sim.threads import Threads
from ptx_sim.types import Array

WARPGROUP = 4 * WARP
_ROWS = 64
# bytes of a product's sum that one row of a K-major operand holds
_DEPTH_BYTES = 32


@instruction("wgmma")
def _(d: Decoding) -> Execute:
    d.category = "matrix"
    action = d.choice("fence", "commit_group", "wait_group", "mma_async")
    if not action or not (d.flag("sync") and d.flag("aligned")):
        raise d.unsupported("an operation that is not modelled")
    if action == "fence":
        return lambda t: None
    if action == "commit_group":
        return lambda t: _for_warpgroups(t, t.products.commit)
    if action == "wait_group":
        newest = d.operand(0)
        if not isinstance(newest, Immediate):
            raise d.unsupported("a constant is expected")
        count = integer(newest.text)
        return lambda t: _for_warpgroups(t, lambda group: t.products.wait(t, group, count))
    return _product(d)


def _for_warpgroups(t: Threads, act: Callable[[int], None]) -> None:
    lanes = t.mask.reshape(-1, WARPGROUP)
    some = lanes.any(1)
    partly = some & ~lanes.all(1)
    if partly.any():
        group = int(partly.argmax())
        text = f"wgmma by {int(lanes[group].sum())} of the warpgroup's {WARPGROUP} threads"
        raise DivergenceError(text, group * WARPGROUP + int(lanes[group].argmax()))
    for group in np.flatnonzero(some).tolist():
        act(group)


class Products:
    """Products that warpgroups have begun: of each one its committed groups and the group that is open."""

    def __init__(self, warpgroups: int) -> None:
        """None has begun."""
        self._committed: list[list[list[Callable[[], None]]]] = [[] for _ in range(warpgroups)]
        self._open: list[list[Callable[[], None]]] = [[] for _ in range(warpgroups)]

    def begin(self, warpgroup: int, compute: Callable[[], None]) -> None:
        """``compute`` is called when the warpgroup waits."""
        self._open[warpgroup].append(compute)

    def commit(self, warpgroup: int) -> None:
        """Close the open group."""
        self._committed[warpgroup].append(self._open[warpgroup])
        self._open[warpgroup] = []

    def wait(self, t: Threads, warpgroup: int, newest: int) -> None:
        """All groups but the ``newest`` ones complete."""
        groups = self._committed[warpgroup]
        done, self._committed[warpgroup] = groups[: len(groups) - newest], groups[len(groups) - newest :]
        if newest >= len(groups):
            done, self._committed[warpgroup] = [], groups
        before = t.mask, t.full, t.everyone
        mask: Array = np.zeros(t.count, bool)
        mask[warpgroup * WARPGROUP : (warpgroup + 1) * WARPGROUP] = True
        t.mask, t.full, t.everyone = mask, False, False
        for group in done:
            for compute in group:
                compute()
        t.mask, t.full, t.everyone = before


def _product(d: Decoding) -> Execute:
    shape = next((m for m in d.modifiers if m.startswith("m64n")), "")
    columns, _, depth = shape[4:].partition("k")
    if not depth or not columns.isdigit():
        raise d.unsupported("a shape that is not modelled")
    n = int(columns)
    d.modifiers.remove(shape)
    if len(d.modifiers) != 3 or d.modifiers[0] != "f32" or any(m not in ELEMENTS for m in d.modifiers[1:]):
        raise d.unsupported("types that are not modelled")
    (size, decode_a), (size_b, decode_b) = (ELEMENTS[element] for element in d.modifiers[1:])
    if size_b != size or int(depth) * size != _DEPTH_BYTES or n % 8 or not 8 <= n <= 256:
        raise d.unsupported("a shape that the types do not have")
    if size != 1 and d.modifiers[1] != d.modifiers[2]:
        raise d.unsupported("only 8-bit types may differ")
    d.modifiers = []
    results = d.elements(d.operand(0))
    if len(results) != n // 2:
        raise d.unsupported(f"{n // 2} registers are expected")
    reads = [scalar_safe(d.source(item, "f32")) for item in results]
    writes = [d.destination(item, "f32") for item in results]
    in_registers = isinstance(d.operand(1), Vector)
    a = [scalar_safe(d.source(item, "b32")) for item in d.elements(d.operand(1))] if in_registers else []
    a_matrix = None if in_registers else d.source(1, "u64")
    b_matrix, accumulates = d.source(2, "u64"), d.source(3, "pred")
    constants = [_constant(d, number) for number in range(4, len(d.operands))]
    # only 16-bit types may be transposed, and only in shared memory
    transpositions = 0 if size != 2 else 1 if in_registers else 2
    if len(constants) != 2 + transpositions or (in_registers and len(a) != 4):
        raise d.unsupported("another number of operands is expected")
    if any(c not in (1, -1) for c in constants[:2]) or any(c not in (0, 1) for c in constants[2:]):
        raise d.unsupported("signs of 1 or -1 and transpositions of 0 or 1 are expected")
    sign = F32(constants[0] * constants[1])
    a_across, b_across = [0, 0, *constants[2:]][-2:]

    def execute(t: Threads) -> None:
        b_descriptors = np.broadcast_to(b_matrix(t), t.count)
        a_descriptors = None if a_matrix is None else np.broadcast_to(a_matrix(t), t.count)
        adding = np.broadcast_to(accumulates(t), t.count)

        def begin(group: int) -> None:
            first = group * WARPGROUP
            lanes = slice(first, first + WARPGROUP)
            b = _uniform(b_descriptors[lanes], first)
            adds = bool(_uniform(adding[lanes], first))
            left = None if a_descriptors is None else _uniform(a_descriptors[lanes], first)

            def compute() -> None:
                # (row, k) and (column, k)
                if left is None:
                    a_values = decode_a(_fragment(t, a, lanes))
                else:
                    a_values = decode_a(_operand(t, group, int(left), _ROWS, bool(a_across)))
                product = sign * np.matmul(a_values, decode_b(_operand(t, group, int(b), n, bool(b_across))).T)
                _accumulate(t, product, lanes, reads if adds else None, writes)

            t.products.begin(group, compute)

        _for_warpgroups(t, begin)

    return execute


def _constant(d: Decoding, number: int) -> int:
    operand = d.operand(number)
    if not isinstance(operand, Immediate):
        raise d.unsupported("a constant is expected")
    return integer(operand.text)


def _uniform(values: Array, first: int) -> Any:
    if (values != values[0]).any():
        raise DivergenceError("wgmma with operands that differ between the warpgroup's threads", first)
    return values[0]


def _fragment(t: Threads, a: list[Read], lanes: slice) -> Array:
    """A in registers as words (64, 8): register 2 * half + lower has k words 4 * half on, rows 8 * lower on."""
    words = np.stack([read(t)[lanes] for read in a]).reshape(2, 2, 4, 8, 4)
    return np.ascontiguousarray(words.transpose(2, 1, 3, 0, 4)).reshape(_ROWS, 8)


def _operand(t: Threads, group: int, descriptor: int, rows: int, across: bool) -> Array:
    """A matrix in shared memory as words (rows, 8), read by all warps of the group.

    ``across``: neighbours in memory are neighbours along the rows, not along the sum.
    """
    swizzle = {0: 0, 1: 128, 2: 64, 3: 32}[descriptor >> 62]
    if descriptor >> 49 & 7:
        raise KernelError("wgmma: matrices with a base offset are not modelled", group * WARPGROUP)
    start, leading, stride = (16 * (descriptor >> shift & 0x3FFF) for shift in (0, 16, 32))
    # without a swizzle the 16 bytes of a row stand alone, and the two distances change their places
    width = swizzle or 16
    if across:
        # width / 2 elements along the rows; 8 of the sum
        row, depth = np.arange(0, rows, 8), np.arange(16)
        along, deep = (leading, stride) if swizzle else (stride, leading)
        chunks = (row // (width // 2) * along + row % (width // 2) * 2) + (depth // 8 * deep + depth % 8 * width)[
            :, None
        ]
    else:
        row, chunk = np.arange(rows), np.arange(2)
        chunks = (row // 8 * stride + row % 8 * width)[:, None] + chunk * (16 if swizzle else leading)
    addresses = swizzled(start + chunks.reshape(-1), swizzle)
    words = _read(t, group, addresses)
    if not across:
        return words.reshape(rows, 8)
    halves = words.view(np.uint16).reshape(16, rows)
    return np.ascontiguousarray(halves.T).view(np.uint32)


def _read(t: Threads, group: int, addresses: Array) -> Array:
    for warp in range(3, 0, -1):
        t.shared.touch(np.full(len(addresses), group * WARPGROUP + warp * WARP), addresses, 16)
    return t.shared.load(np.full(len(addresses), group * WARPGROUP), addresses, 16, 4)


def _accumulate(t: Threads, product: Array, lanes: slice, reads: list[Read] | None, writes: list[Write]) -> None:
    # (warp, lower, row, column block, quad thread, column of a pair) -> (block, lower, column, thread)
    parts = product.reshape(4, 2, 8, -1, 4, 2).transpose(3, 1, 5, 0, 2, 4).reshape(-1, WARPGROUP)
    for number, write in enumerate(writes):
        value = np.zeros(t.count, F32)
        value[lanes] = parts[number] if reads is None else parts[number] + reads[number](t)[lanes]
        write(t, value)
