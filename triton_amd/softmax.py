"""Online softmax in base 2 (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018)."""

import triton
import triton.language as tl

_LN2 = tl.constexpr(0.6931471805599453)
_LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def initial_state(sink_ptr, head, BLOCK_M: tl.constexpr):
    """Maximum and sum of every row before the first key: those of the sink where there is one."""
    if sink_ptr is None:
        row_max = tl.full((BLOCK_M,), float("-inf"), tl.float32)
        row_sum = tl.zeros((BLOCK_M,), tl.float32)
    else:
        row_max = tl.zeros((BLOCK_M,), tl.float32) + tl.load(sink_ptr + head).to(tl.float32) * _LOG2E
        row_sum = tl.full((BLOCK_M,), 1.0, tl.float32)
    return row_max, row_sum


@triton.jit
def online_softmax(logits, factor, row_max, row_sum, HEADROOM: tl.constexpr, MASKED: tl.constexpr):
    """One block of keys: unnormalised probabilities, the factor for what was accumulated, the new maximum and sum.

    ``factor`` is applied to the logits inside of the exponent and is positive. A row whose every logit so far is
    -inf has probabilities 0; only a masked block can hold one. Probabilities reach ``2 ** HEADROOM``, for dtypes
    whose small numbers are coarse: the maximum that is kept lies that much below the true one.
    """
    new_max = tl.maximum(row_max, tl.max(logits, 1) * factor - HEADROOM)
    shift = new_max
    if MASKED:
        shift = tl.where(new_max == float("-inf"), 0.0, new_max)
    probs = tl.exp2(logits * factor - shift[:, None])
    decay = tl.exp2(row_max - shift)
    return probs, decay, new_max, row_sum * decay + tl.sum(probs, 1)


@triton.jit
def normaliser(row_max, row_sum):
    """Reciprocal of the denominator (0 where no key was seen) and the natural log-sum-exp (-inf there)."""
    empty = row_sum == 0.0
    divisor = tl.where(empty, 1.0, row_sum)
    lse = tl.where(empty, float("-inf"), (row_max + tl.log2(divisor)) * _LN2)
    return tl.where(empty, 0.0, 1.0 / divisor), lse


@triton.jit
def recompute_shift(lse):
    """What :func:`recompute_probs` subtracts: the log-sum-exp in base 2, +inf for rows that saw no key."""
    return tl.where(lse == float("-inf"), float("inf"), lse * _LOG2E)


@triton.jit
def recompute_probs(logits, factor, shift):
    """Normalised probabilities from logits in base 2; 0 in rows that saw no key. ``shift`` broadcasts."""
    return tl.exp2(logits * factor - shift)
