"""Gradients of keys and values: a program holds a block of keys and walks over the rows that see it.

Tiles lie as ``keys x rows``, so that probabilities and score gradients are left operands of the products with dout
and q as they come. The query heads that share a KV head are walked one after the other into the same accumulators.
"""

import triton
import triton.language as tl

from .dropout import keep_mask
from .logits import alibi_slope
from .masks import band_blocks
from .narrow import narrow
from .score_gradient import score_gradient, tile_probs
from .sequences import key_sequence, query_sequence
from .tiles import load_tile, store_tile, tile_offsets
from .work_order import tile_of_program


@triton.jit
def _gather_from_rows(
    dk, dv, k, v, begin, end,
    first_key, seqlen_q, seqlen_k,
    q_ptr, dout_ptr, shift_ptr, softmax_d_ptr, weight_ptr, q_offsets, dout_offsets, stride_qs, stride_dos,
    slope, scale_log2, softcap_log2, window_left, window_right,
    rng_state, batch_head, dropout_threshold, dropout_scale,
    HEAD_DIM: tl.constexpr, HEAD_DIM_V: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    HAS_WINDOW_LEFT: tl.constexpr, HAS_WINDOW_RIGHT: tl.constexpr, CHUNK: tl.constexpr, HAS_SOFTCAP: tl.constexpr,
    ROUND_BY_ADD: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Accumulate what rows ``begin .. end`` of one head give; without ``MASKED`` all of them see every key."""
    cols = first_key + tl.arange(0, BLOCK_N)[:, None]
    for first in tl.range(begin, end, BLOCK_M):
        row_wide, rows_left = tl.cast(first, tl.int64), seqlen_q - first
        q = load_tile(q_ptr + row_wide * stride_qs, q_offsets, rows_left, MASKED, HEAD_DIM, BLOCK_M, BLOCK_D)
        rows = first + tl.arange(0, BLOCK_M)
        if MASKED:
            shift = tl.load(shift_ptr + rows, mask=rows < seqlen_q, other=float("inf"))
            softmax_d = tl.load(softmax_d_ptr + rows, mask=rows < seqlen_q, other=0.0)
        else:
            shift = tl.load(shift_ptr + rows)
            softmax_d = tl.load(softmax_d_ptr + rows)
        scores = tl.dot(k, tl.trans(q), input_precision="ieee")
        probs = tile_probs(
            scores, shift[None, :], rows[None, :], cols, seqlen_q, seqlen_k,
            slope, scale_log2, softcap_log2, window_left, window_right,
            HAS_WINDOW_LEFT, HAS_WINDOW_RIGHT, CHUNK, HAS_SOFTCAP, MASKED,
        )  # fmt: skip
        if weight_ptr is not None:
            probs *= tl.load(weight_ptr + rows, mask=rows < seqlen_q, other=0.0)[None, :]
        dout = load_tile(
            dout_ptr + row_wide * stride_dos, dout_offsets, rows_left, MASKED, HEAD_DIM_V, BLOCK_M, BLOCK_DV
        )
        kept, dropped = None, probs
        if rng_state is not None:
            kept = tl.trans(keep_mask(rng_state, batch_head, first, first_key, dropout_threshold, BLOCK_M, BLOCK_N))
            dropped = tl.where(kept, probs, 0.0)
        dv = tl.dot(narrow(dropped, dout.dtype, ROUND_BY_ADD), dout, dv, input_precision="ieee")
        dprobs = tl.dot(v, tl.trans(dout), input_precision="ieee")
        dscores = score_gradient(
            probs, dprobs, softmax_d[None, :], scores, kept, dropout_scale, scale_log2, softcap_log2, HAS_SOFTCAP
        )
        dk = tl.dot(narrow(dscores, q.dtype, ROUND_BY_ADD), q, dk, input_precision="ieee")
    return dk, dv


@triton.jit
def attn_bwd_dkdv_kernel(
    dout_ptr, shift_ptr, softmax_d_ptr, weight_ptr, dk_ptr, dv_ptr,
    stride_dob, stride_dos, stride_doh, stride_lse_b, stride_lse_h,
    stride_dkb, stride_dks, stride_dkh, stride_dvb, stride_dvs, stride_dvh, num_blocks,
    q_ptr, k_ptr, v_ptr,
    stride_qb, stride_qs, stride_qh, stride_kb, stride_ks, stride_kh, stride_vb, stride_vs, stride_vh,
    cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k, leftpad_k, rows_q, rows_k, sequences_k, nheads_q, nheads_k,
    alibi_slopes, stride_alibi, softmax_scale, scale_log2, softcap_log2, window_left, window_right,
    rng_state, dropout_threshold, dropout_scale,
    HEAD_DIM: tl.constexpr, HEAD_DIM_V: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    HAS_WINDOW_LEFT: tl.constexpr, HAS_WINDOW_RIGHT: tl.constexpr, CHUNK: tl.constexpr, HAS_SOFTCAP: tl.constexpr,
    NEGATIVE_SCALE: tl.constexpr, WIDE_OFFSETS: tl.constexpr, ROUND_BY_ADD: tl.constexpr, NUM_XCDS: tl.constexpr,
):  # fmt: skip
    """dK and dV of ``BLOCK_N`` keys of one KV head of one sequence; keys that no sequence has are left alone."""
    block, head_k, batch = tile_of_program(num_blocks, nheads_k, NUM_XCDS, False)
    key_index, key_start, seqlen_k = key_sequence(
        batch, cu_seqlens_k, seqused_k, leftpad_k, None, rows_k, sequences_k, 0
    )
    first_key = block * BLOCK_N
    if first_key >= seqlen_k:
        return
    query_start, seqlen_q = query_sequence(batch, cu_seqlens_q, seqused_q, rows_q)
    batch_wide, head_k_wide, key_wide = batch.to(tl.int64), head_k.to(tl.int64), key_start + first_key
    keys_left = seqlen_k - first_key

    k_ptr += key_index * stride_kb + head_k_wide * stride_kh + key_wide * stride_ks
    v_ptr += key_index * stride_vb + head_k_wide * stride_vh + key_wide * stride_vs
    k_offsets = tile_offsets(stride_ks, BLOCK_N, BLOCK_D, WIDE_OFFSETS)
    v_offsets = tile_offsets(stride_vs, BLOCK_N, BLOCK_DV, WIDE_OFFSETS)
    k = load_tile(k_ptr, k_offsets, keys_left, True, HEAD_DIM, BLOCK_N, BLOCK_D)
    v = load_tile(v_ptr, v_offsets, keys_left, True, HEAD_DIM_V, BLOCK_N, BLOCK_DV)
    if NEGATIVE_SCALE:
        k = (-k).to(k.dtype)
    q_offsets = tile_offsets(stride_qs, BLOCK_M, BLOCK_D, WIDE_OFFSETS)
    dout_offsets = tile_offsets(stride_dos, BLOCK_M, BLOCK_DV, WIDE_OFFSETS)
    q_ptr += batch_wide * stride_qb + query_start * stride_qs
    dout_ptr += batch_wide * stride_dob + query_start * stride_dos
    shift_ptr += batch_wide * stride_lse_b + query_start
    softmax_d_ptr += batch_wide * stride_lse_b + query_start
    if weight_ptr is not None:
        weight_ptr += batch_wide * stride_lse_b + query_start

    dk = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    dv = tl.zeros((BLOCK_N, BLOCK_DV), tl.float32)
    # Rows and keys have changed roles.
    begin, full_begin, full_end, end = band_blocks(
        first_key, tl.minimum(first_key + BLOCK_N, seqlen_k) - 1, seqlen_q - seqlen_k, seqlen_q,
        window_right, window_left, seqlen_q - seqlen_k, BLOCK_M, HAS_WINDOW_RIGHT, HAS_WINDOW_LEFT, CHUNK,
    )  # fmt: skip
    nheads_per_group = nheads_q // nheads_k
    for head in tl.range(head_k * nheads_per_group, (head_k + 1) * nheads_per_group):
        head_wide = tl.cast(head, tl.int64)
        slope = None
        if alibi_slopes is not None:
            slope = alibi_slope(alibi_slopes, stride_alibi, batch, head)
        head_weight_ptr = None
        if weight_ptr is not None:
            head_weight_ptr = weight_ptr + head_wide * stride_lse_h
        # Edge that the causal mask, window or chunk makes, blocks without a mask, far edge.
        for part in tl.static_range(0 if HAS_WINDOW_RIGHT or CHUNK > 0 else 1, 3):
            dk, dv = _gather_from_rows(
                dk, dv, k, v,
                begin if part == 0 else full_begin if part == 1 else full_end,
                full_begin if part == 0 else full_end if part == 1 else end,
                first_key, seqlen_q, seqlen_k,
                q_ptr + head_wide * stride_qh, dout_ptr + head_wide * stride_doh,
                shift_ptr + head_wide * stride_lse_h, softmax_d_ptr + head_wide * stride_lse_h,
                head_weight_ptr,
                q_offsets, dout_offsets, stride_qs, stride_dos,
                slope, scale_log2, softcap_log2, window_left, window_right,
                rng_state, batch * nheads_q + head, dropout_threshold, dropout_scale,
                HEAD_DIM, HEAD_DIM_V, BLOCK_M, BLOCK_N, BLOCK_D, BLOCK_DV,
                HAS_WINDOW_LEFT, HAS_WINDOW_RIGHT, CHUNK, HAS_SOFTCAP, ROUND_BY_ADD, part != 1,
            )  # fmt: skip

    if rng_state is not None:
        dv *= dropout_scale
    dk *= softmax_scale
    dk_ptr += key_index * stride_dkb + head_k_wide * stride_dkh + key_wide * stride_dks
    dv_ptr += key_index * stride_dvb + head_k_wide * stride_dvh + key_wide * stride_dvs
    dk_offsets = tile_offsets(stride_dks, BLOCK_N, BLOCK_D, WIDE_OFFSETS)
    dv_offsets = tile_offsets(stride_dvs, BLOCK_N, BLOCK_DV, WIDE_OFFSETS)
    store_tile(dk_ptr, dk_offsets, dk.to(dk_ptr.dtype.element_ty), keys_left, HEAD_DIM, BLOCK_N, BLOCK_D)
    store_tile(dv_ptr, dv_offsets, dv.to(dv_ptr.dtype.element_ty), keys_left, HEAD_DIM_V, BLOCK_N, BLOCK_DV)
