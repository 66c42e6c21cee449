"""Probabilities and gradient of the scores of one tile, recomputed from the log-sum-exp of the forward.

With ``P`` the probabilities and ``dP = dout v^T``, the gradient of the logits is ``P * (dP - softmax_d)`` (Dao,
"FlashAttention-2", 2023, algorithm 2), where dropout removes and scales elements of ``dP``. Rows, keys and the
numbers of a row broadcast against each other, so that a tile may lie as ``rows x keys`` or ``keys x rows``.
"""

import triton
import triton.language as tl

from .logits import base2_logits, softcap_gradient
from .masks import band_mask
from .softmax import recompute_probs

_LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def tile_probs(
    scores, shift, rows, cols, seqlen_q, seqlen_k, slope, scale_log2, softcap_log2, window_left, window_right,
    HAS_WINDOW_LEFT: tl.constexpr, HAS_WINDOW_RIGHT: tl.constexpr, CHUNK: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Probabilities (fp32) before dropout; without ``MASKED`` every row sees every key of the tile."""
    diagonal = seqlen_k - seqlen_q
    logits, factor = base2_logits(scores, rows, cols, diagonal, slope, scale_log2, softcap_log2, HAS_SOFTCAP)
    if MASKED:
        visible = band_mask(
            rows, cols, diagonal, seqlen_q, seqlen_k, window_left, window_right,
            HAS_WINDOW_LEFT, HAS_WINDOW_RIGHT, CHUNK,
        )  # fmt: skip
        logits = tl.where(visible, logits, float("-inf"))
    return recompute_probs(logits, factor, shift)


@triton.jit
def score_gradient(
    probs, dprobs, softmax_d, scores, kept, dropout_scale, scale_log2, softcap_log2, HAS_SOFTCAP: tl.constexpr
):
    """Gradient of the scores, less the softmax scale; ``kept`` is dropout's mask or ``None``."""
    if kept is not None:
        dprobs = tl.where(kept, dprobs * dropout_scale, 0.0)
    dscores = probs * (dprobs - softmax_d)
    if HAS_SOFTCAP:
        dscores *= softcap_gradient(scores, scale_log2, softcap_log2)
    return dscores


@triton.jit
def row_weight(row_sum, shift, sink_ptr, head):
    """What makes recomputed probabilities of a row, and its sink's where there is one, sum to 1; 0 without keys."""
    total = row_sum
    if sink_ptr is not None:
        total += tl.exp2(tl.load(sink_ptr + head).to(tl.float32) * _LOG2E - shift)
    return tl.where(total == 0.0, 0.0, 1.0 / total)
