"""The fundamental types of PTX, and how their values are held: a register is one numpy array, a thread an element."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# b and packed types are bits; bf16 has no numpy type and is held as its bits
DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(code)
    for names, code in {
        "u8 b8": "u1", "s8": "i1", "u16 b16 bf16": "u2", "s16": "i2", "f16": "f2",
        "u32 b32 f16x2 bf16x2 tf32 e4m3x4 e5m2x4": "u4", "s32": "i4", "f32": "f4",
        "u64 b64 f32x2": "u8", "s64": "i8", "f64": "f8", "pred": "?", "e4m3x2 e5m2x2": "u2",
    }.items()
    for name in names.split()
}  # fmt: skip
UNSIGNED: dict[int, np.dtype[Any]] = {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)}
POISON = {size: np.frombuffer(b"\xff" * size, f"u{size}")[0] for size in (1, 2, 4, 8)}


def size_of(name: str) -> int:
    """Bytes of a type."""
    return DTYPES[name].itemsize


def is_float(name: str) -> bool:
    """Whether ``name`` is a floating-point type that numpy computes with."""
    return DTYPES[name].kind == "f"


def is_signed(name: str) -> bool:
    """Whether ``name`` is a signed integer type."""
    return DTYPES[name].kind == "i"
