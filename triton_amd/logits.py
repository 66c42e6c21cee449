"""From scores q.k to logits in base 2: scale, softcap and ALiBi, and the way back for gradients."""

import triton
import triton.language as tl

_LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _tanh(x):
    """tanh by exp2, by its series where the difference would cancel."""
    square = x * x
    series = x * (
        1.0
        + square
        * (-1.0 / 3 + square * (2.0 / 15 + square * (-17.0 / 315 + square * (62.0 / 2835 - square * 1382.0 / 155925))))
    )
    far = 1.0 - 2.0 / (tl.exp2(x * (2.0 * _LOG2E)) + 1.0)
    return tl.where(tl.abs(x) < 0.3, series, far)


@triton.jit
def alibi_slope(alibi_slopes, stride_alibi, batch, head):
    """Slope of a head in base 2."""
    return tl.load(alibi_slopes + batch * stride_alibi + head).to(tl.float32) * _LOG2E


@triton.jit
def base2_logits(scores, rows, cols, diagonal, slope, scale_log2, softcap_log2, HAS_SOFTCAP: tl.constexpr):
    """Logits in base 2, and the factor (1 or the scale) that the softmax still has to apply to them.

    A ``slope`` of ``None`` is no ALiBi. The scale is left to the softmax where it can be folded into its exponent.
    """
    factor = scale_log2
    if HAS_SOFTCAP:
        scores = softcap_log2 * _tanh(scores * (scale_log2 / softcap_log2))
        factor = 1.0
    if slope is not None:
        if not HAS_SOFTCAP:
            scores = scores * scale_log2
            factor = 1.0
        scores = scores - slope * tl.abs(rows + diagonal - cols).to(tl.float32)
    return scores, factor


@triton.jit
def softcap_gradient(scores, scale_log2, softcap_log2):
    """Derivative of the capped logit by the logit before the cap, from the scores."""
    capped = _tanh(scores * (scale_log2 / softcap_log2))
    return 1.0 - capped * capped
