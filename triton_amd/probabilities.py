"""The probability matrix of an attention call, recomputed from its log-sum-exp; for inspection, never for training."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .dropout import keep_mask
from .launch import Launch
from .logits import alibi_slope, base2_logits
from .masks import band_blocks, band_mask
from .problem import Problem
from .sequences import key_sequence, query_sequence
from .softmax import recompute_probs, recompute_shift
from .tiles import load_key_tile, load_tile, locate_keys, tile_offsets
from .work_order import tile_of_program

_BLOCK_M, _BLOCK_N = 32, 64


@triton.jit
def _attn_probs_kernel(
    probs_ptr, stride_pb, stride_ph, stride_ps, lse_ptr, stride_lse_b, stride_lse_h, num_blocks, max_seqlen_k,
    q_ptr, k_ptr, stride_qb, stride_qs, stride_qh, stride_kb, stride_ks, stride_kh,
    cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k, leftpad_k, block_table, stride_table, cache_batch_idx,
    rows_q, rows_k, sequences_k, nheads_q, nheads_per_group,
    alibi_slopes, stride_alibi, scale_log2, softcap_log2, window_left, window_right, rng_state, dropout_threshold,
    HEAD_DIM: tl.constexpr, PAGE_SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    HAS_WINDOW_LEFT: tl.constexpr, HAS_WINDOW_RIGHT: tl.constexpr, CHUNK: tl.constexpr, HAS_SOFTCAP: tl.constexpr,
    NEGATIVE_SCALE: tl.constexpr, WIDE_OFFSETS: tl.constexpr,
):  # fmt: skip
    """Probabilities of ``BLOCK_M`` rows of one head of one sequence; what no row sees is left as it is."""
    block, head, batch = tile_of_program(num_blocks, nheads_q, 1, HAS_WINDOW_RIGHT)
    query_start, seqlen_q = query_sequence(batch, cu_seqlens_q, seqused_q, rows_q)
    first_row = block * BLOCK_M
    if first_row >= seqlen_q:
        return
    key_index, key_start, seqlen_k = key_sequence(
        batch, cu_seqlens_k, seqused_k, leftpad_k, cache_batch_idx, rows_k, sequences_k, PAGE_SIZE
    )
    batch_wide, head_wide, row_wide = batch.to(tl.int64), head.to(tl.int64), query_start + first_row
    k_ptr += head_wide // nheads_per_group * stride_kh
    table_ptr = block_table
    if PAGE_SIZE == 0:
        k_ptr += key_index * stride_kb + key_start * stride_ks
    else:
        table_ptr += batch_wide * stride_table

    rows = first_row + tl.arange(0, BLOCK_M)
    q_ptr += batch_wide * stride_qb + row_wide * stride_qs + head_wide * stride_qh
    q_offsets = tile_offsets(stride_qs, BLOCK_M, BLOCK_D, WIDE_OFFSETS)
    q = load_tile(q_ptr, q_offsets, seqlen_q - first_row, True, HEAD_DIM, BLOCK_M, BLOCK_D)
    if NEGATIVE_SCALE:
        q = (-q).to(q.dtype)
    k_offsets = tile_offsets(stride_ks, BLOCK_N, BLOCK_D, WIDE_OFFSETS)
    slope = None
    if alibi_slopes is not None:
        slope = alibi_slope(alibi_slopes, stride_alibi, batch, head)
    lse_ptr += batch_wide * stride_lse_b + head_wide * stride_lse_h + row_wide
    lse = tl.load(lse_ptr + tl.arange(0, BLOCK_M), mask=rows < seqlen_q, other=float("-inf"))
    shift = recompute_shift(lse)[:, None]
    probs_ptr += batch_wide * stride_pb + head_wide * stride_ph
    diagonal = seqlen_k - seqlen_q
    begin, _, _, end = band_blocks(
        first_row, tl.minimum(first_row + BLOCK_M, seqlen_q) - 1, diagonal, seqlen_k,
        window_left, window_right, 0, BLOCK_N, HAS_WINDOW_LEFT, HAS_WINDOW_RIGHT, CHUNK,
    )  # fmt: skip
    for first in tl.range(begin, end, BLOCK_N):
        page, row = locate_keys(first, seqlen_k, key_start, table_ptr, sequences_k, True, BLOCK_N, PAGE_SIZE)
        k = load_key_tile(
            k_ptr, k_offsets, page, row, seqlen_k - first, stride_kb, stride_ks, True, HEAD_DIM, BLOCK_N, BLOCK_D
        )
        cols = first + tl.arange(0, BLOCK_N)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee")
        logits, factor = base2_logits(
            scores, rows[:, None], cols[None, :], diagonal, slope, scale_log2, softcap_log2, HAS_SOFTCAP
        )
        visible = band_mask(
            rows[:, None], cols[None, :], diagonal, seqlen_q, seqlen_k, window_left, window_right,
            HAS_WINDOW_LEFT, HAS_WINDOW_RIGHT, CHUNK,
        )  # fmt: skip
        probs = recompute_probs(tl.where(visible, logits, float("-inf")), factor, shift)
        if rng_state is not None:
            kept = keep_mask(rng_state, batch * nheads_q + head, first_row, first, dropout_threshold, BLOCK_M, BLOCK_N)
            probs = tl.where(kept, probs, -probs)
        offsets = rows.to(tl.int64)[:, None] * stride_ps + cols[None, :]
        tl.store(probs_ptr + offsets, probs.to(probs_ptr.dtype.element_ty), visible & (cols[None, :] < max_seqlen_k))


def attention_probabilities(problem: Problem, softmax_lse: Tensor) -> Tensor:
    """Normalised probabilities ``(batch, nheads_q, max_seqlen_q, max_seqlen_k)`` in the dtype of q.

    Negative where dropout removes an element, 0 where a row does not see a key or does not exist. ``softmax_lse`` is
    the forward's.
    """
    shape = (problem.batch_size, problem.nheads_q, problem.max_seqlen_q, problem.max_seqlen_k)
    probs = problem.q.new_zeros(shape)
    num_blocks = triton.cdiv(problem.max_seqlen_q, _BLOCK_M)
    arguments = {
        **problem.kernel_arguments(),
        "probs_ptr": probs,
        "stride_pb": probs.stride(0),
        "stride_ph": probs.stride(1),
        "stride_ps": probs.stride(2),
        "lse_ptr": softmax_lse,
        "stride_lse_b": 0 if problem.cu_seqlens_q is not None else softmax_lse.stride(0),
        "stride_lse_h": softmax_lse.stride(-2),
        "num_blocks": num_blocks,
        "max_seqlen_k": problem.max_seqlen_k,
        "BLOCK_M": _BLOCK_M,
        "BLOCK_N": _BLOCK_N,
    }
    grid = (num_blocks * problem.nheads_q * problem.batch_size,)
    Launch(_attn_probs_kernel, grid, arguments, {"num_warps": 4}).run()
    return probs
