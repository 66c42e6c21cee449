"""Operands of a second matrix product, from float32 to the dtype of the other operand."""

import triton
import triton.language as tl


@triton.jit
def narrow(x, DTYPE: tl.constexpr, ROUND_BY_ADD: tl.constexpr):
    """``x`` in ``DTYPE``, rounded to nearest.

    ``ROUND_BY_ADD`` rounds to bfloat16 with ties away from zero, in three instructions for two elements: for targets
    without a conversion instruction, where rounding ties to even takes ten.
    """
    if ROUND_BY_ADD and tl.bfloat16 == DTYPE:
        bits = x.to(tl.uint32, bitcast=True) + 0x8000
        narrowed = (bits >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        narrowed = x.to(DTYPE)
    return narrowed
