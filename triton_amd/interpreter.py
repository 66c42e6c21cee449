"""bfloat16 in Triton's interpreter (``TRITON_INTERPRET=1``), Triton 3.6 to 3.9.

The interpreter keeps a bfloat16 value as its bits in a uint16 and then computes with the bits as with an integer, and
it cuts bits off where a conversion should round. :func:`install` makes its operations widen bfloat16 to float32,
compute there and round the result to nearest even, as compiled code does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

# Operations of the interpreter, and which of their operands gives the result its dtype.
_OPERATIONS = {"binary_op": 0, "unary_op": 0, "create_clampf": 0, "create_fma": 2, "create_dot": 2}


def bf16_bits(values: Any) -> Any:
    """The uint16 bits of a float32 array rounded to bfloat16, ties to even; every NaN becomes one quiet NaN."""
    wide = np.ascontiguousarray(values, np.float32)
    bits = wide.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(wide), 0x7FC0, rounded).astype(np.uint16).reshape(np.shape(values))


def bf16_values(bits: Any) -> Any:
    """The float32 values of an array of bfloat16 bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


@functools.cache
def install() -> None:
    """Repair the interpreter of this process; a second call changes nothing."""
    InterpreterBuilder.get_bf16 = _constant  # Triton 3.6 to 3.8 have none
    InterpreterBuilder.cast_impl = _cast(InterpreterBuilder.cast_impl)
    for name, deciding in _OPERATIONS.items():
        setattr(InterpreterBuilder, name, _in_float32(getattr(InterpreterBuilder, name), deciding))


def _constant(builder: Any, value: float) -> Any:
    """A bfloat16 constant."""
    return _narrow(builder.get_fp32(value))


def _cast(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Conversions from and to bfloat16, by way of float32."""

    def cast_impl(builder: Any, source: Any, target: Any) -> Any:
        source_type, target_type = source.dtype.scalar, target.scalar
        if tl.bfloat16 not in (source_type, target_type) or source_type == target_type:
            return stock(builder, source, target)
        if target_type == tl.bfloat16:
            return _narrow(stock(builder, source, tl.float32))
        return stock(builder, _widen(source), target)

    return cast_impl


def _in_float32(stock: Callable[..., Any], deciding: int) -> Callable[..., Any]:
    """An operation that widens its bfloat16 operands, and narrows its result when the deciding operand was one."""

    def operation(builder: Any, *operands: Any) -> Any:
        if not any(_is_bf16(operand) for operand in operands):
            return stock(builder, *operands)
        result = stock(builder, *map(_widen, operands))
        # A comparison gives booleans.
        return _narrow(result) if _is_bf16(operands[deciding]) and result.data.dtype != np.bool_ else result

    return operation


def _is_bf16(operand: Any) -> bool:
    return isinstance(operand, TensorHandle) and operand.dtype.scalar == tl.bfloat16


def _widen(operand: Any) -> Any:
    """The float32 values of a bfloat16 operand; any other operand as it is."""
    return TensorHandle(bf16_values(operand.data), tl.float32) if _is_bf16(operand) else operand


def _narrow(handle: Any) -> Any:
    """The values of a float32 operand in bfloat16."""
    return TensorHandle(bf16_bits(handle.data), tl.bfloat16)
