"""The backward pass: what to launch for the gradients of a problem."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from .backward_dkdv import attn_bwd_dkdv_kernel
from .backward_dq import attn_bwd_dq_kernel
from .backward_preprocess import attn_bwd_preprocess_kernel
from .launch import Launch
from .problem import Problem, needs_wide_offsets, strides
from .tuning import BackwardConfig

# Order of the launches; dK and dV need the row sums of dQ.
BACKWARD_ORDER = ("backward_preprocess", "backward_dq", "backward_dkdv")
# Elements of a tile of the preprocessing, which is bound by memory.
_PREPROCESS_ELEMENTS = 8192


def new_gradients(problem: Problem) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Empty dq, dk and dv in the layouts of q, k and v, and fp32 softmax_d in that of softmax_lse.

    Rows that may belong to no sequence are no program's, so that their tensors start as 0.
    """
    q, k, v = problem.q, problem.k, problem.v
    partly_read = any(x is not None for x in (problem.cu_seqlens_k, problem.seqused_k, problem.leftpad_k))
    dq = q.new_zeros(q.shape) if problem.has_unused_rows else q.new_empty(q.shape)
    dk, dv = (x.new_zeros(x.shape) if partly_read else x.new_empty(x.shape) for x in (k, v))
    per_row = (*q.shape[:-3], q.shape[-2], q.shape[-3])
    return dq, dk, dv, q.new_empty(per_row, dtype=torch.float32)


def backward_launches(
    problem: Problem,
    out: Tensor,
    softmax_lse: Tensor,
    dout: Tensor,
    dlse: Tensor | None,
    gradients: tuple[Tensor, Tensor, Tensor, Tensor],
    config: BackwardConfig,
) -> list[Launch]:
    """The launches, in order, that fill ``gradients`` (:func:`new_gradients`).

    ``out`` and ``softmax_lse`` are the results of the forward, ``dout`` and ``dlse`` their gradients, of the same
    shapes. The last dimension of ``dout`` is contiguous. Paged keys, a ``cache_batch_idx`` and ``qv`` have no
    gradient: ValueError.

    In float32 the rounding of ``softmax_lse`` would be the largest error of all: dQ then adds up what the recomputed
    probabilities of a row sum to, and all three gradients divide by it.
    """
    if problem.block_table is not None or problem.cache_batch_idx is not None:
        raise ValueError("the Triton backward does not take block_table or cache_batch_idx: a cache has no gradient")
    if problem.qv is not None:
        raise ValueError("the Triton backward does not take qv; accepted is qv beside q and v beside k")
    dq, dk, dv, softmax_d = gradients
    packed = problem.cu_seqlens_q is not None
    shared = {
        **problem.kernel_arguments(),
        **strides("do", dout),
        "dout_ptr": dout,
        "lse_ptr": softmax_lse,
        "softmax_d_ptr": softmax_d,
        "shift_ptr": torch.empty_like(softmax_lse),
        "weight_ptr": torch.empty_like(softmax_lse) if problem.q.dtype == torch.float32 else None,
        "sink_ptr": problem.learnable_sink,
        "stride_lse_b": 0 if packed else softmax_lse.stride(0),
        "stride_lse_h": softmax_lse.stride(-2),
        "nheads_k": problem.nheads_k,
        "WIDE_OFFSETS": needs_wide_offsets(problem.q, problem.k, problem.v, out, dout),
    }
    block_m = _PREPROCESS_ELEMENTS // shared["BLOCK_DV"]
    blocks = triton.cdiv(problem.q.shape[-3], block_m)
    batches = 1 if packed else problem.batch_size
    preprocess = {
        **shared,
        **strides("o", out),
        "out_ptr": out,
        "dlse_ptr": dlse,
        "stride_dlse_b": 0 if dlse is None or packed else dlse.stride(0),
        "stride_dlse_h": 0 if dlse is None else dlse.stride(-2),
        "stride_dlse_s": 0 if dlse is None else dlse.stride(-1),
        "num_blocks": blocks,
        "BLOCK_M": block_m,
    }
    return [
        Launch(attn_bwd_preprocess_kernel, (blocks * problem.nheads_q * batches,), preprocess, {"num_warps": 4}),
        _dq_launch(problem, shared, dq, config),
        _dkdv_launch(problem, shared, dk, dv, config),
    ]


def attention_backward(
    problem: Problem, out: Tensor, softmax_lse: Tensor, dout: Tensor, dlse: Tensor | None, config: BackwardConfig
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dq, dk, dv and softmax_d of a problem; see :func:`backward_launches`."""
    if dout.stride(-1) != 1:
        dout = dout.contiguous()
    gradients = new_gradients(problem)
    for launch in backward_launches(problem, out, softmax_lse, dout, dlse, gradients, config):
        launch.run()
    return gradients


def _dkdv_launch(problem: Problem, shared: dict[str, object], dk: Tensor, dv: Tensor, config: BackwardConfig) -> Launch:
    num_blocks = triton.cdiv(problem.max_seqlen_k, config.dkdv.block_n)
    arguments = {
        **shared,
        **strides("dk", dk),
        **strides("dv", dv),
        "dk_ptr": dk,
        "dv_ptr": dv,
        "num_blocks": num_blocks,
        "BLOCK_M": config.dkdv.block_m,
        "BLOCK_N": config.dkdv.block_n,
        "ROUND_BY_ADD": config.dkdv.round_by_add,
        "NUM_XCDS": config.num_xcds,
    }
    grid = (num_blocks * problem.nheads_k * problem.batch_size,)
    return Launch(attn_bwd_dkdv_kernel, grid, arguments, config.dkdv.options())


def _dq_launch(problem: Problem, shared: dict[str, object], dq: Tensor, config: BackwardConfig) -> Launch:
    num_blocks = triton.cdiv(problem.max_seqlen_q, config.dq.block_m)
    arguments = {
        **shared,
        **strides("dq", dq),
        "dq_ptr": dq,
        "num_blocks": num_blocks,
        "BLOCK_M": config.dq.block_m,
        "BLOCK_N": config.dq.block_n,
        "ROUND_BY_ADD": config.dq.round_by_add,
        "NUM_XCDS": config.num_xcds,
    }
    grid = (num_blocks * problem.nheads_q * problem.batch_size,)
    return Launch(attn_bwd_dq_kernel, grid, arguments, config.dq.options())
