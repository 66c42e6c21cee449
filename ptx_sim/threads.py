"""The threads that run together: their registers, which of them execute, and the memories they see.

The blocks of a batch run side by side; their threads are numbered through, every block filling whole warps. A
register is one array over all of these threads, and is never changed in place: writing replaces it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ptx_sim.errors import DivergenceError
from ptx_sim.memory import GlobalMemory, LocalMemory
from ptx_sim.shared_memory import WARP, SharedMemory
from ptx_sim.types import Array

if TYPE_CHECKING:
    from ptx_sim.async_copies import AsyncCopies
    from ptx_sim.execution import Batch
    from ptx_sim.instructions.warpgroup_matrix import Products
    from ptx_sim.tensor_stores import TensorStores


@dataclass(frozen=True)
class Shape:
    """Of a launch: blocks of the grid and threads of a block, along x, y and z."""

    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    dynamic_shared: int = 0

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.block[0] * self.block[1] * self.block[2]

    @property
    def warps(self) -> int:
        """Warps of a block, the last of which may be partly empty."""
        return -(-self.threads // WARP)


class Threads:
    """What instructions work on. ``mask`` tells who executes.

    ``full`` says that every living thread does, so that registers may be replaced whole; ``everyone`` that all
    threads live and execute.
    """

    def __init__(
        self, shape: Shape, blocks: Sequence[int], registers: list[Array], shared: SharedMemory, memory: GlobalMemory
    ) -> None:
        """``blocks``: numbers in the grid; ``registers`` as they are at the start."""
        self.shape, self.shared, self.memory = shape, shared, memory
        self.registers = registers
        lanes = shape.warps * WARP
        self.count = len(blocks) * lanes
        thread = np.tile(np.arange(lanes), len(blocks))
        self.block = np.repeat(np.array(blocks), lanes)
        self.live: Array = thread < shape.threads
        self.mask = self.live
        self.full = True
        self.everyone = bool(self.live.all())
        self.all_threads: Array = np.arange(self.count)
        self.thread = thread
        self.local: LocalMemory
        self.parameters: int
        self.copies: AsyncCopies
        self.batch: Batch
        self.products: Products
        self.stores: TensorStores
        self._constants: dict[Any, Array] = {}

    @property
    def active(self) -> Array:
        """Numbers of the threads that execute."""
        return self.all_threads if self.everyone else np.flatnonzero(self.mask)

    def constant(self, value: Any) -> Array:
        """A register of one value (a numpy scalar) in every thread."""
        key = value.dtype, value.tobytes()
        if key not in self._constants:
            self._constants[key] = np.full(self.count, value)
        return self._constants[key]

    def put(self, slot: int, value: Array) -> None:
        """Write a register of the threads that execute; ``value`` has an element for every thread."""
        if self.full:
            self.registers[slot] = value
        else:
            old = self.registers[slot]
            self.registers[slot] = np.where(
                self.mask, value, old if old.dtype is value.dtype else old.view(value.dtype)
            )

    def spread(self, values: Array, active: Array) -> Array:
        """Values of the threads ``active`` as a register; the others' are zero."""
        if self.everyone:
            return np.ascontiguousarray(values)
        whole = np.zeros(self.count, values.dtype)
        whole[active] = values
        return whole

    def whole_warps(self, what: str) -> Array | None:
        """Numbers of the warps that execute, None for all. DivergenceError if a warp does so in part."""
        if self.everyone:
            return None
        lanes = self.mask.reshape(-1, WARP)
        some = lanes.any(1)
        partly = some & ~lanes.all(1)
        if partly.any():
            warp = int(partly.argmax())
            text = f"{what} by {int(lanes[warp].sum())} of the warp's {WARP} threads"
            raise DivergenceError(text, warp * WARP + int(lanes[warp].argmax()))
        return np.flatnonzero(some)

    def special(self, name: str) -> Array:
        """The value of a special register."""
        kind, _, axis = name[1:].partition(".")
        number = "xyz".find(axis) if axis else 0
        return _SPECIAL[kind](self, number)


def _split(index: Array, extent: Sequence[int], axis: int) -> Array:
    divided = index // [1, extent[0], extent[0] * extent[1]][axis]
    return (divided % extent[axis] if axis < 2 else divided).astype(np.uint32)


def _lanes(compare: Callable[[Array, Array], Array]) -> Callable[[Threads, int], Array]:
    def mask(t: Threads, axis: int) -> Array:
        lane = t.thread % WARP
        bits = compare(np.arange(WARP)[None], lane[:, None])
        numbers: Array = (bits * (1 << np.arange(WARP))).sum(1)
        return numbers.astype(np.uint32)

    return mask


def _uniform(value: Callable[[Threads, int], int], dtype: str = "u4") -> Callable[[Threads, int], Array]:
    return lambda t, axis: t.constant(np.dtype(dtype).type(value(t, axis)))


_SPECIAL: dict[str, Callable[[Threads, int], Array]] = {
    "tid": lambda t, axis: _split(t.thread, t.shape.block, axis),
    "ntid": _uniform(lambda t, axis: t.shape.block[axis]),
    "ctaid": lambda t, axis: _split(t.block, t.shape.grid, axis),
    "nctaid": _uniform(lambda t, axis: t.shape.grid[axis]),
    "laneid": lambda t, axis: (t.thread % WARP).astype(np.uint32),
    "warpid": lambda t, axis: (t.thread // WARP).astype(np.uint32),
    "nwarpid": _uniform(lambda t, axis: t.shape.warps),
    "smid": _uniform(lambda t, axis: 0),
    "nsmid": _uniform(lambda t, axis: 1),
    "gridid": _uniform(lambda t, axis: 0),
    "clock": _uniform(lambda t, axis: t.batch.steps & 0xFFFFFFFF),
    "clock_hi": _uniform(lambda t, axis: 0),
    "clock64": _uniform(lambda t, axis: t.batch.steps, "u8"),
    "globaltimer": _uniform(lambda t, axis: t.batch.steps, "u8"),
    "globaltimer_lo": _uniform(lambda t, axis: t.batch.steps & 0xFFFFFFFF),
    "globaltimer_hi": _uniform(lambda t, axis: 0),
    "dynamic_smem_size": _uniform(lambda t, axis: t.shape.dynamic_shared),
    "total_smem_size": _uniform(lambda t, axis: t.shared.size),
    "lanemask_eq": _lanes(lambda bit, lane: bit == lane),
    "lanemask_le": _lanes(lambda bit, lane: bit <= lane),
    "lanemask_lt": _lanes(lambda bit, lane: bit < lane),
    "lanemask_ge": _lanes(lambda bit, lane: bit >= lane),
    "lanemask_gt": _lanes(lambda bit, lane: bit > lane),
    # every block is a cluster of its own
    "is_explicit_cluster": lambda t, axis: np.zeros(t.count, bool),
    "clusterid": lambda t, axis: _split(t.block, t.shape.grid, axis),
    "nclusterid": _uniform(lambda t, axis: t.shape.grid[axis]),
    "cluster_ctaid": _uniform(lambda t, axis: 0),
    "cluster_nctaid": _uniform(lambda t, axis: 1),
    "cluster_ctarank": _uniform(lambda t, axis: 0),
    "cluster_nctarank": _uniform(lambda t, axis: 1),
}
SPECIAL_REGISTERS = frozenset(_SPECIAL)
