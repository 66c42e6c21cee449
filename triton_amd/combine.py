"""Joining attention over parts of the keys: a mean weighted by the exponentials of the log-sum-exps."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .forward import result_arguments
from .launch import Launch
from .problem import Problem
from .sequences import query_sequence
from .softmax import normaliser, online_softmax

_LOG2E = tl.constexpr(1.4426950408889634)
_BLOCK_SPLITS = 16


@triton.jit
def _combine_kernel(
    out_ptr, lse_ptr, partial_out_ptr, partial_lse_ptr,
    stride_ob, stride_os, stride_oh, stride_lse_b, stride_lse_h, stride_out_split, stride_lse_split, num_splits,
    cu_seqlens_q, seqused_q, rows_q, max_seqlen_q, nheads_q,
    HEAD_DIM_V: tl.constexpr, BLOCK_DV: tl.constexpr, BLOCK_SPLITS: tl.constexpr,
):  # fmt: skip
    """Output and log-sum-exp of one row of one head; partial results lie as the results do."""
    head = (tl.program_id(0) % nheads_q).to(tl.int64)
    row = tl.program_id(0) // nheads_q % max_seqlen_q
    batch = tl.program_id(0) // nheads_q // max_seqlen_q
    query_start, seqlen_q = query_sequence(batch, cu_seqlens_q, seqused_q, rows_q)
    if row >= seqlen_q:
        return
    dims = tl.arange(0, BLOCK_DV)
    out_offset = batch.to(tl.int64) * stride_ob + (query_start + row) * stride_os + head * stride_oh
    lse_offset = batch.to(tl.int64) * stride_lse_b + head * stride_lse_h + query_start + row
    row_max = tl.full((1,), float("-inf"), tl.float32)
    row_sum = tl.zeros((1,), tl.float32)
    acc = tl.zeros((BLOCK_DV,), tl.float32)
    for first in range(0, num_splits, BLOCK_SPLITS):
        splits = first + tl.arange(0, BLOCK_SPLITS).to(tl.int64)
        exists = splits < num_splits
        lse = tl.load(partial_lse_ptr + lse_offset + splits * stride_lse_split, mask=exists, other=float("-inf"))
        weights, decay, row_max, row_sum = online_softmax(lse[None, :], _LOG2E, row_max, row_sum, 0, True)
        part = tl.load(
            partial_out_ptr + out_offset + splits[:, None] * stride_out_split + dims[None, :],
            mask=exists[:, None] & (dims < HEAD_DIM_V)[None, :],
            other=0.0,
        )
        acc = acc * decay + tl.sum(tl.reshape(weights, (BLOCK_SPLITS, 1)) * part, 0)
    reciprocal, lse = normaliser(row_max, row_sum)
    out = (acc * reciprocal).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + out_offset + dims, out, mask=dims < HEAD_DIM_V)
    tl.store(lse_ptr + lse_offset + tl.arange(0, 1), lse)


def combine_launch(
    problem: Problem, out: Tensor, softmax_lse: Tensor, partial_out: Tensor, partial_lse: Tensor
) -> Launch:
    """The launch that fills ``out`` and ``softmax_lse`` from fp32 partial results, one more dimension in front.

    Apart from that dimension, a partial result has the strides of its result.
    """
    arguments = {
        **result_arguments(problem, out, softmax_lse),
        "partial_out_ptr": partial_out,
        "partial_lse_ptr": partial_lse,
        "stride_out_split": partial_out.stride(0),
        "stride_lse_split": partial_lse.stride(0),
        "num_splits": partial_out.shape[0],
        **problem.kernel_arguments(),
        "BLOCK_SPLITS": _BLOCK_SPLITS,
    }
    grid = (problem.max_seqlen_q * problem.nheads_q * problem.batch_size,)
    return Launch(_combine_kernel, grid, arguments, {"num_warps": 2, "enable_fp_fusion": True})
