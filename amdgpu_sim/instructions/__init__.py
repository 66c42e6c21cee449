"""The semantics of the instructions, one family a file; importing this package fills the decoding table."""

from amdgpu_sim.instructions import (
    atomics,
    control,
    cross_lane,
    lds,
    matrix_mfma,
    matrix_wmma,
    packed,
    program_counter,
    scalar,
    scalar_memory,
    scratch,
    transcendental,
    vector_compare,
    vector_float,
    vector_integer,
    vector_memory,
)

__all__ = [
    "atomics",
    "control",
    "cross_lane",
    "lds",
    "matrix_mfma",
    "matrix_wmma",
    "packed",
    "program_counter",
    "scalar",
    "scalar_memory",
    "scratch",
    "transcendental",
    "vector_compare",
    "vector_float",
    "vector_integer",
    "vector_memory",
]
