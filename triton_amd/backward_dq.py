"""Gradient of queries: a program holds a block of rows and walks over the keys that it sees."""

import triton
import triton.language as tl

from .dropout import keep_mask
from .logits import alibi_slope
from .masks import band_blocks
from .narrow import narrow
from .score_gradient import row_weight, score_gradient, tile_probs
from .sequences import key_sequence, query_sequence
from .tiles import load_tile, store_tile, tile_offsets
from .work_order import tile_of_program


@triton.jit
def _gather_from_keys(
    dq, row_sum, q, dout, shift, softmax_d, begin, end,
    first_row, seqlen_q, seqlen_k, k_ptr, v_ptr, k_offsets, v_offsets, stride_ks, stride_vs,
    slope, scale_log2, softcap_log2, window_left, window_right,
    rng_state, batch_head, dropout_threshold, dropout_scale,
    HEAD_DIM: tl.constexpr, HEAD_DIM_V: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    HAS_WINDOW_LEFT: tl.constexpr, HAS_WINDOW_RIGHT: tl.constexpr, CHUNK: tl.constexpr, HAS_SOFTCAP: tl.constexpr,
    ROUND_BY_ADD: tl.constexpr, SUM_ROWS: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Accumulate what keys ``begin .. end`` give; without ``MASKED`` every row sees all of them."""
    rows = first_row + tl.arange(0, BLOCK_M)[:, None]
    for first in tl.range(begin, end, BLOCK_N):
        key_wide, keys_left = tl.cast(first, tl.int64), seqlen_k - first
        k = load_tile(k_ptr + key_wide * stride_ks, k_offsets, keys_left, MASKED, HEAD_DIM, BLOCK_N, BLOCK_D)
        v = load_tile(v_ptr + key_wide * stride_vs, v_offsets, keys_left, MASKED, HEAD_DIM_V, BLOCK_N, BLOCK_DV)
        cols = first + tl.arange(0, BLOCK_N)[None, :]
        scores = tl.dot(q, tl.trans(k), input_precision="ieee")
        probs = tile_probs(
            scores, shift[:, None], rows, cols, seqlen_q, seqlen_k,
            slope, scale_log2, softcap_log2, window_left, window_right,
            HAS_WINDOW_LEFT, HAS_WINDOW_RIGHT, CHUNK, HAS_SOFTCAP, MASKED,
        )  # fmt: skip
        if SUM_ROWS:
            row_sum += tl.sum(probs, 1)
        kept = None
        if rng_state is not None:
            kept = keep_mask(rng_state, batch_head, first_row, first, dropout_threshold, BLOCK_M, BLOCK_N)
        dprobs = tl.dot(dout, tl.trans(v), input_precision="ieee")
        dscores = score_gradient(
            probs, dprobs, softmax_d[:, None], scores, kept, dropout_scale, scale_log2, softcap_log2, HAS_SOFTCAP
        )
        dq = tl.dot(narrow(dscores, k.dtype, ROUND_BY_ADD), k, dq, input_precision="ieee")
    return dq, row_sum


@triton.jit
def attn_bwd_dq_kernel(
    dout_ptr, shift_ptr, softmax_d_ptr, weight_ptr, sink_ptr, dq_ptr,
    stride_dob, stride_dos, stride_doh, stride_lse_b, stride_lse_h, stride_dqb, stride_dqs, stride_dqh, num_blocks,
    q_ptr, k_ptr, v_ptr,
    stride_qb, stride_qs, stride_qh, stride_kb, stride_ks, stride_kh, stride_vb, stride_vs, stride_vh,
    cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k, leftpad_k, rows_q, rows_k, sequences_k,
    nheads_q, nheads_per_group, alibi_slopes, stride_alibi, softmax_scale, scale_log2, softcap_log2,
    window_left, window_right, rng_state, dropout_threshold, dropout_scale,
    HEAD_DIM: tl.constexpr, HEAD_DIM_V: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    HAS_WINDOW_LEFT: tl.constexpr, HAS_WINDOW_RIGHT: tl.constexpr, CHUNK: tl.constexpr, HAS_SOFTCAP: tl.constexpr,
    NEGATIVE_SCALE: tl.constexpr, WIDE_OFFSETS: tl.constexpr, ROUND_BY_ADD: tl.constexpr, NUM_XCDS: tl.constexpr,
):  # fmt: skip
    """dQ of ``BLOCK_M`` rows of one head of one sequence."""
    block, head, batch = tile_of_program(num_blocks, nheads_q, NUM_XCDS, HAS_WINDOW_RIGHT)
    query_start, seqlen_q = query_sequence(batch, cu_seqlens_q, seqused_q, rows_q)
    first_row = block * BLOCK_M
    if first_row >= seqlen_q:
        return
    key_index, key_start, seqlen_k = key_sequence(
        batch, cu_seqlens_k, seqused_k, leftpad_k, None, rows_k, sequences_k, 0
    )
    batch_wide, head_wide, row_wide = batch.to(tl.int64), head.to(tl.int64), query_start + first_row
    rows_left = seqlen_q - first_row
    head_k = head_wide // nheads_per_group
    k_ptr += key_index * stride_kb + head_k * stride_kh + key_start * stride_ks
    v_ptr += key_index * stride_vb + head_k * stride_vh + key_start * stride_vs

    q_ptr += batch_wide * stride_qb + row_wide * stride_qs + head_wide * stride_qh
    dout_ptr += batch_wide * stride_dob + row_wide * stride_dos + head_wide * stride_doh
    q_offsets = tile_offsets(stride_qs, BLOCK_M, BLOCK_D, WIDE_OFFSETS)
    dout_offsets = tile_offsets(stride_dos, BLOCK_M, BLOCK_DV, WIDE_OFFSETS)
    q = load_tile(q_ptr, q_offsets, rows_left, True, HEAD_DIM, BLOCK_M, BLOCK_D)
    dout = load_tile(dout_ptr, dout_offsets, rows_left, True, HEAD_DIM_V, BLOCK_M, BLOCK_DV)
    if NEGATIVE_SCALE:
        q = (-q).to(q.dtype)
    lines = tl.arange(0, BLOCK_M)
    row_numbers = batch_wide * stride_lse_b + head_wide * stride_lse_h + row_wide
    shift = tl.load(shift_ptr + row_numbers + lines, mask=lines < rows_left, other=float("inf"))
    softmax_d = tl.load(softmax_d_ptr + row_numbers + lines, mask=lines < rows_left, other=0.0)
    slope = None
    if alibi_slopes is not None:
        slope = alibi_slope(alibi_slopes, stride_alibi, batch, head)
    k_offsets = tile_offsets(stride_ks, BLOCK_N, BLOCK_D, WIDE_OFFSETS)
    v_offsets = tile_offsets(stride_vs, BLOCK_N, BLOCK_DV, WIDE_OFFSETS)

    dq = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    row_sum = tl.zeros((BLOCK_M,), tl.float32)
    begin, full_begin, full_end, end = band_blocks(
        first_row, tl.minimum(first_row + BLOCK_M, seqlen_q) - 1, seqlen_k - seqlen_q, seqlen_k,
        window_left, window_right, 0, BLOCK_N, HAS_WINDOW_LEFT, HAS_WINDOW_RIGHT, CHUNK,
    )  # fmt: skip
    # Left edge of a window or chunk, blocks without a mask, right edge.
    for part in tl.static_range(0 if HAS_WINDOW_LEFT or CHUNK > 0 else 1, 3):
        dq, row_sum = _gather_from_keys(
            dq, row_sum, q, dout, shift, softmax_d,
            begin if part == 0 else full_begin if part == 1 else full_end,
            full_begin if part == 0 else full_end if part == 1 else end,
            first_row, seqlen_q, seqlen_k, k_ptr, v_ptr, k_offsets, v_offsets, stride_ks, stride_vs,
            slope, scale_log2, softcap_log2, window_left, window_right,
            rng_state, batch * nheads_q + head, dropout_threshold, dropout_scale,
            HEAD_DIM, HEAD_DIM_V, BLOCK_M, BLOCK_N, BLOCK_D, BLOCK_DV,
            HAS_WINDOW_LEFT, HAS_WINDOW_RIGHT, CHUNK, HAS_SOFTCAP,
            ROUND_BY_ADD, weight_ptr is not None, part != 1,
        )  # fmt: skip

    if weight_ptr is not None:
        weight = row_weight(row_sum, shift, sink_ptr, head)
        tl.store(weight_ptr + row_numbers + lines, weight, mask=lines < rows_left)
        dq *= weight[:, None]
    dq *= softmax_scale
    dq_ptr += batch_wide * stride_dqb + row_wide * stride_dqs + head_wide * stride_dqh
    dq_offsets = tile_offsets(stride_dqs, BLOCK_M, BLOCK_D, WIDE_OFFSETS)
    store_tile(dq_ptr, dq_offsets, dq.to(dq_ptr.dtype.element_ty), rows_left, HEAD_DIM, BLOCK_M, BLOCK_D)
