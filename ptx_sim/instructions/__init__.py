"""The semantics of the instructions, one family a file; importing this package fills the decoding table."""

from ptx_sim.instructions import (
    access,
    arithmetic,
    async_copy,
    atomics,
    bits,
    compare,
    control,
    convert,
    cross_lane,
    matrix_loads,
    matrix_multiply,
    mbarriers,
    moves,
    tensor_copies,
    warpgroup_matrix,
)

__all__ = [
    "access",
    "arithmetic",
    "async_copy",
    "atomics",
    "bits",
    "compare",
    "control",
    "convert",
    "cross_lane",
    "matrix_loads",
    "matrix_multiply",
    "mbarriers",
    "moves",
    "tensor_copies",
    "warpgroup_matrix",
]
