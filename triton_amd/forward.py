"""The forward pass: one kernel for dense, packed and paged keys, and its launcher."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .dropout import keep_mask
from .launch import Launch
from .logits import alibi_slope, base2_logits
from .masks import band_blocks, band_mask
from .narrow import narrow
from .operands import descaled, load_queries, point_to_keys, score_scales
from .problem import Problem
from .sequences import key_sequence, query_sequence
from .softmax import initial_state, normaliser, online_softmax
from .tiles import load_key_tile, locate_keys, store_tile, tile_offsets
from .tuning import ForwardConfig
from .work_order import tile_of_program

# Least depth of an 8-bit product on NVIDIA GPUs.
_FP8_DEPTH = 32
_NATIVE_FP8 = {
    torch.float8_e4m3fnuz: "fnuz",
    torch.float8_e5m2fnuz: "fnuz",
    torch.float8_e4m3fn: "ocp",
    torch.float8_e5m2: "ocp",
}


@triton.jit
def attend_blocks(
    acc, row_max, row_sum, q, qv, qk_scale, qv_scale, begin, end,
    rows, first_row, seqlen_q, seqlen_k,
    k_ptr, v_ptr, k_offsets, v_offsets, key_start, stride_kb, stride_ks, stride_vb, stride_vs, table_ptr, num_pages,
    slope, scale_log2, softcap_log2, window_left, window_right,
    rng_state, batch_head, dropout_threshold,
    HEAD_DIM: tl.constexpr, HEAD_DIM_V: tl.constexpr, PAGE_SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    HAS_WINDOW_LEFT: tl.constexpr, HAS_WINDOW_RIGHT: tl.constexpr, CHUNK: tl.constexpr, HAS_SOFTCAP: tl.constexpr,
    ROUND_BY_ADD: tl.constexpr, HEADROOM: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Accumulate the keys ``begin .. end``, block by block; without ``MASKED`` every row sees all of them.

    ``rows`` are positions of queries, and with their ``qv`` a score is ``qk_scale * q.k + qv_scale * qv.v``. ``slope``
    is ``None``, a scalar, or a column with a slope of every row. fp8 keys and values are widened to the dtype of q.
    """
    diagonal = seqlen_k - seqlen_q
    for first in tl.range(begin, end, BLOCK_N):
        page, row = locate_keys(first, seqlen_k, key_start, table_ptr, num_pages, MASKED, BLOCK_N, PAGE_SIZE)
        k = load_key_tile(
            k_ptr, k_offsets, page, row, seqlen_k - first, stride_kb, stride_ks, MASKED, HEAD_DIM, BLOCK_N, BLOCK_D
        ).to(q.dtype)
        cols = first + tl.arange(0, BLOCK_N)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee")
        if qv is not None:
            v = load_key_tile(
                v_ptr, v_offsets, page, row, seqlen_k - first, stride_vb, stride_vs,
                MASKED, HEAD_DIM_V, BLOCK_N, BLOCK_DV,
            ).to(q.dtype)  # fmt: skip
            scores = scores * qk_scale + tl.dot(qv, tl.trans(v), input_precision="ieee") * qv_scale
        logits, factor = base2_logits(
            scores, rows[:, None], cols[None, :], diagonal, slope, scale_log2, softcap_log2, HAS_SOFTCAP
        )
        if MASKED:
            visible = band_mask(
                rows[:, None], cols[None, :], diagonal, seqlen_q, seqlen_k, window_left, window_right,
                HAS_WINDOW_LEFT, HAS_WINDOW_RIGHT, CHUNK,
            )  # fmt: skip
            logits = tl.where(visible, logits, float("-inf"))
        probs, decay, row_max, row_sum = online_softmax(logits, factor, row_max, row_sum, HEADROOM, MASKED)
        if rng_state is not None:
            kept = keep_mask(rng_state, batch_head, first_row, first, dropout_threshold, BLOCK_M, BLOCK_N)
            probs = tl.where(kept, probs, 0.0)
        if qv is None:
            v = load_key_tile(
                v_ptr, v_offsets, page, row, seqlen_k - first, stride_vb, stride_vs,
                MASKED, HEAD_DIM_V, BLOCK_N, BLOCK_DV,
            ).to(q.dtype)  # fmt: skip
        acc = tl.dot(narrow(probs, v.dtype, ROUND_BY_ADD), v, acc * decay[:, None], input_precision="ieee")
    return acc, row_max, row_sum


@triton.jit
def _attn_fwd_kernel(
    out_ptr, lse_ptr, sink_ptr, stride_ob, stride_os, stride_oh, stride_lse_b, stride_lse_h, num_blocks,
    q_ptr, qv_ptr, k_ptr, v_ptr, stride_qvb, stride_qvs, stride_qvh,
    stride_qb, stride_qs, stride_qh, stride_kb, stride_ks, stride_kh, stride_vb, stride_vs, stride_vh,
    cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k, leftpad_k, block_table, stride_table, cache_batch_idx,
    rows_q, rows_k, sequences_k, nheads_q, nheads_per_group,
    alibi_slopes, stride_alibi, scale_log2, softcap_log2, window_left, window_right,
    rng_state, dropout_threshold, dropout_scale,
    q_descale, k_descale, v_descale,
    stride_q_descale_b, stride_q_descale_h, stride_k_descale_b, stride_k_descale_h,
    stride_v_descale_b, stride_v_descale_h,
    HEAD_DIM: tl.constexpr, HEAD_DIM_V: tl.constexpr, PAGE_SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    HAS_WINDOW_LEFT: tl.constexpr, HAS_WINDOW_RIGHT: tl.constexpr, CHUNK: tl.constexpr, HAS_SOFTCAP: tl.constexpr,
    NEGATIVE_SCALE: tl.constexpr, WIDE_OFFSETS: tl.constexpr, NUM_XCDS: tl.constexpr,
    ROUND_BY_ADD: tl.constexpr, HEADROOM: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Output and log-sum-exp of ``BLOCK_M`` rows of one head of one sequence."""
    block, head, batch = tile_of_program(num_blocks, nheads_q, NUM_XCDS, HAS_WINDOW_RIGHT)
    query_start, seqlen_q = query_sequence(batch, cu_seqlens_q, seqused_q, rows_q)
    first_row = block * BLOCK_M
    if first_row >= seqlen_q:
        return
    key_index, key_start, seqlen_k = key_sequence(
        batch, cu_seqlens_k, seqused_k, leftpad_k, cache_batch_idx, rows_k, sequences_k, PAGE_SIZE
    )
    batch_wide, head_wide, row_wide = batch.to(tl.int64), head.to(tl.int64), query_start + first_row
    head_k = head_wide // nheads_per_group
    k_ptr, v_ptr = point_to_keys(
        k_ptr, v_ptr, key_index, key_start, head_k,
        stride_kb, stride_ks, stride_kh, stride_vb, stride_vs, stride_vh, PAGE_SIZE,
    )  # fmt: skip
    table_ptr = block_table
    if PAGE_SIZE > 0:
        table_ptr += batch_wide * stride_table

    rows = first_row + tl.arange(0, BLOCK_M)
    q_ptr += batch_wide * stride_qb + row_wide * stride_qs + head_wide * stride_qh
    q_offsets = tile_offsets(stride_qs, BLOCK_M, BLOCK_D, WIDE_OFFSETS)
    q = load_queries(q_ptr, q_offsets, seqlen_q - first_row, HEAD_DIM, BLOCK_M, BLOCK_D, UPCAST, NEGATIVE_SCALE)
    qv = None
    if qv_ptr is not None:
        qv_ptr += batch_wide * stride_qvb + row_wide * stride_qvs + head_wide * stride_qvh
        qv_offsets = tile_offsets(stride_qvs, BLOCK_M, BLOCK_DV, WIDE_OFFSETS)
        qv = load_queries(
            qv_ptr, qv_offsets, seqlen_q - first_row, HEAD_DIM_V, BLOCK_M, BLOCK_DV, UPCAST, NEGATIVE_SCALE
        )
    scale_log2, qk_scale, qv_scale = score_scales(
        scale_log2, q_descale, k_descale, v_descale, stride_q_descale_b, stride_q_descale_h,
        stride_k_descale_b, stride_k_descale_h, stride_v_descale_b, stride_v_descale_h, batch, head_k,
        qv_ptr is not None,
    )  # fmt: skip
    k_offsets = tile_offsets(stride_ks, BLOCK_N, BLOCK_D, WIDE_OFFSETS)
    v_offsets = tile_offsets(stride_vs, BLOCK_N, BLOCK_DV, WIDE_OFFSETS)
    slope = None
    if alibi_slopes is not None:
        slope = alibi_slope(alibi_slopes, stride_alibi, batch, head)

    row_max, row_sum = initial_state(sink_ptr, head, BLOCK_M)
    acc = tl.zeros((BLOCK_M, BLOCK_DV), tl.float32)
    begin, full_begin, full_end, end = band_blocks(
        first_row, tl.minimum(first_row + BLOCK_M, seqlen_q) - 1, seqlen_k - seqlen_q, seqlen_k,
        window_left, window_right, 0, BLOCK_N, HAS_WINDOW_LEFT, HAS_WINDOW_RIGHT, CHUNK,
    )  # fmt: skip
    # Left edge of a window or chunk, blocks without a mask, right edge.
    for part in tl.static_range(0 if HAS_WINDOW_LEFT or CHUNK > 0 else 1, 3):
        acc, row_max, row_sum = attend_blocks(
            acc, row_max, row_sum, q, qv, qk_scale, qv_scale,
            begin if part == 0 else full_begin if part == 1 else full_end,
            full_begin if part == 0 else full_end if part == 1 else end,
            rows, first_row, seqlen_q, seqlen_k,
            k_ptr, v_ptr, k_offsets, v_offsets, key_start if leftpad_k is not None else None,
            stride_kb, stride_ks, stride_vb, stride_vs, table_ptr, sequences_k,
            slope, scale_log2, softcap_log2, window_left, window_right,
            rng_state, batch * nheads_q + head, dropout_threshold,
            HEAD_DIM, HEAD_DIM_V, PAGE_SIZE, BLOCK_M, BLOCK_N, BLOCK_D, BLOCK_DV,
            HAS_WINDOW_LEFT, HAS_WINDOW_RIGHT, CHUNK, HAS_SOFTCAP, ROUND_BY_ADD, HEADROOM, part != 1,
        )  # fmt: skip

    reciprocal, lse = normaliser(row_max, row_sum)
    if rng_state is not None:
        reciprocal *= dropout_scale
    reciprocal = descaled(reciprocal, v_descale, stride_v_descale_b, stride_v_descale_h, batch, head_k)
    out = (acc * reciprocal[:, None]).to(out_ptr.dtype.element_ty)
    out_ptr += batch_wide * stride_ob + row_wide * stride_os + head_wide * stride_oh
    out_offsets = tile_offsets(stride_os, BLOCK_M, BLOCK_DV, WIDE_OFFSETS)
    store_tile(out_ptr, out_offsets, out, seqlen_q - first_row, HEAD_DIM_V, BLOCK_M, BLOCK_DV)
    lse_ptr += batch_wide * stride_lse_b + head_wide * stride_lse_h + row_wide
    tl.store(lse_ptr + tl.arange(0, BLOCK_M), lse, mask=rows < seqlen_q)


def new_results(problem: Problem) -> tuple[Tensor, Tensor]:
    """Output in the layout of q and fp32 log-sum-exp ``(batch, nheads_q, seqlen_q)`` or ``(nheads_q, total_q)``.

    The output has the dtype of q, bfloat16 for 8-bit inputs.

    Rows that may belong to no sequence are no program's, so that they start as 0 and -inf.
    """
    q, shape = problem.q, (*problem.q.shape[:-1], problem.head_dim_v)
    dtype = torch.bfloat16 if q.dtype.itemsize == 1 else q.dtype
    per_row = (*q.shape[:-3], q.shape[-2], q.shape[-3])
    if problem.has_unused_rows:
        return q.new_zeros(shape, dtype=dtype), q.new_full(per_row, float("-inf"), dtype=torch.float32)
    return q.new_empty(shape, dtype=dtype), q.new_empty(per_row, dtype=torch.float32)


def result_arguments(problem: Problem, out: Tensor, softmax_lse: Tensor) -> dict[str, Any]:
    """Arguments that say where results go."""
    packed = problem.cu_seqlens_q is not None
    return {
        "out_ptr": out,
        "lse_ptr": softmax_lse,
        "stride_ob": 0 if packed else out.stride(0),
        "stride_os": out.stride(-3),
        "stride_oh": out.stride(-2),
        "stride_lse_b": 0 if packed else softmax_lse.stride(0),
        "stride_lse_h": softmax_lse.stride(-2),
    }


def forward_launch(problem: Problem, out: Tensor, softmax_lse: Tensor, config: ForwardConfig) -> Launch:
    """The launch that fills ``out`` and ``softmax_lse``."""
    num_blocks = triton.cdiv(problem.max_seqlen_q, config.block_m)
    arguments = {
        **result_arguments(problem, out, softmax_lse),
        "sink_ptr": problem.learnable_sink,
        "num_blocks": num_blocks,
        **problem.kernel_arguments(),
        "BLOCK_M": config.block_m,
        "BLOCK_N": config.block_n,
        "ROUND_BY_ADD": config.round_by_add,
        **fp8_arguments(problem, config),
        "NUM_XCDS": config.num_xcds,
    }
    grid = (num_blocks * problem.nheads_q * problem.batch_size,)
    return Launch(_attn_fwd_kernel, grid, arguments, config.options())


def fp8_arguments(problem: Problem, config: ForwardConfig) -> dict[str, int | bool]:
    """How 8-bit products are done: natively, probabilities filling the dtype's range, or in bfloat16.

    Native ones widen the tile to the depth that they need.
    """
    if config.fp8 is None or _NATIVE_FP8.get(problem.q.dtype) != config.fp8:
        return {"UPCAST": problem.q.dtype.itemsize == 1, "HEADROOM": 0}
    return {
        "UPCAST": False,
        "HEADROOM": int(math.log2(torch.finfo(problem.q.dtype).max)),
        "BLOCK_N": max(config.block_n, _FP8_DEPTH),
        "BLOCK_D": max(triton.next_power_of_2(problem.head_dim), _FP8_DEPTH),
    }


def attention_forward(problem: Problem, config: ForwardConfig) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp of a problem."""
    out, softmax_lse = new_results(problem)
    forward_launch(problem, out, softmax_lse, config).run()
    return out, softmax_lse
