"""The step before decoding: write new keys and values into the cache in place, rotating keys and queries.

One launch does all of it. Queries are rotated here and not where attention loads them: every part of the split keys
would turn them again, and a pair of the GPT-NeoX order lies in two threads there.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Launch
from .problem import Problem, strides
from .sequences import query_sequence
from .tiles import packed_offsets

_BLOCK_ROWS = 16
# Products are rounded before they are added, as PyTorch does it: keys rotated here and there are the same.
_OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}


@dataclass(frozen=True)
class NewTokens:
    """What a decoding step brings.

    ``k`` ``(batch, seqlen_new, nheads_k, head_dim)`` and ``v`` ``(batch, seqlen_new, nheads_k, head_dim_v)``, or with
    int32 ``cu_seqlens`` ``(batch + 1,)`` ``(total_new, nheads_k, ...)``, are written behind the ``seqused_k`` keys of
    each sequence. ``rotary_cos`` and ``rotary_sin`` ``(seqlen_ro, rotary_dim / 2)`` turn k and q by their positions in
    the cache, or from ``rotary_seqlens`` ``(batch,)`` on, pairs being neighbours (``rotary_interleaved``) or halves.
    """

    k: Tensor
    v: Tensor
    rotary_cos: Tensor | None = None
    rotary_sin: Tensor | None = None
    rotary_interleaved: bool = True
    cu_seqlens: Tensor | None = None
    rotary_seqlens: Tensor | None = None


@triton.jit
def _load_wide(ptrs, mask):
    """Rows of a tensor in fp32, 0 where masked; 8-bit floats by way of bfloat16, which every target converts to."""
    x = tl.load(ptrs, mask=mask, other=0.0)
    if x.dtype.primitive_bitwidth == 8:
        x = x.to(tl.bfloat16)
    return x.to(tl.float32)


@triton.jit
def _load_rotated(
    ptr, offsets, positions, exists, cos_ptr, sin_ptr, seqlen_ro, stride_cs, stride_cd, stride_ss, stride_sd,
    DIM: tl.constexpr, BLOCK_D: tl.constexpr, ROTARY_DIM: tl.constexpr, INTERLEAVED: tl.constexpr,
):  # fmt: skip
    """Rows of a tensor in fp32, turned by their positions; a position outside of the table turns nothing."""
    dims = tl.arange(0, BLOCK_D)
    mask = exists[:, None] & (dims < DIM)[None, :]
    x = _load_wide(ptr + offsets, mask)
    if ROTARY_DIM > 0:
        if INTERLEAVED:
            partner = dims ^ 1
            angle = dims // 2
            is_first = dims % 2 == 0
        else:
            partner = tl.where(dims < ROTARY_DIM // 2, dims + ROTARY_DIM // 2, dims - ROTARY_DIM // 2)
            angle = dims % (ROTARY_DIM // 2)
            is_first = dims < ROTARY_DIM // 2
        turned = exists & (positions >= 0) & (positions < seqlen_ro)
        turns = turned[:, None] & (dims < ROTARY_DIM)[None, :]
        entries = positions.to(tl.int64)[:, None]
        cos = tl.load(cos_ptr + entries * stride_cs + angle[None, :] * stride_cd, mask=turns, other=1.0).to(tl.float32)
        sin = tl.load(sin_ptr + entries * stride_ss + angle[None, :] * stride_sd, mask=turns, other=0.0).to(tl.float32)
        other = tl.load(ptr + offsets + (partner - dims)[None, :], mask=turns, other=0.0).to(tl.float32)
        x = x * cos + other * tl.where(is_first[None, :], -sin, sin)
    return x


@triton.jit
def _store_cached(ptrs, x, mask, FP8_MAX: tl.constexpr):
    """Store rows in the dtype of the cache, of which fp8 saturates."""
    if FP8_MAX > 0:
        x = tl.minimum(tl.maximum(x, -FP8_MAX), FP8_MAX)
    tl.store(ptrs, x.to(ptrs.dtype.element_ty), mask=mask)


@triton.jit
def _append_kernel(
    q_ptr, k_ptr, v_ptr, rotated_ptr, lengths_ptr, k_new_ptr, v_new_ptr, cos_ptr, sin_ptr,
    stride_qb, stride_qs, stride_qh, stride_kb, stride_ks, stride_kh, stride_vb, stride_vs, stride_vh,
    stride_rb, stride_rs, stride_rh, stride_nkb, stride_nks, stride_nkh, stride_nvb, stride_nvs, stride_nvh,
    cu_seqlens_q, cu_seqlens_new, seqused_k, rotary_seqlens, block_table, stride_table, cache_batch_idx,
    k_descale, v_descale, stride_k_descale_b, stride_k_descale_h, stride_v_descale_b, stride_v_descale_h,
    rows_q, rows_k, sequences_k, nheads_q, nheads_k, rows_new, blocks_k,
    seqlen_ro, stride_cs, stride_cd, stride_ss, stride_sd,
    HEAD_DIM: tl.constexpr, HEAD_DIM_V: tl.constexpr, PAGE_SIZE: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_DV: tl.constexpr, BLOCK_ROWS: tl.constexpr, ROTARY_DIM: tl.constexpr, INTERLEAVED: tl.constexpr,
    FOLLOWS: tl.constexpr, FP8_MAX: tl.constexpr,
):  # fmt: skip
    """``BLOCK_ROWS`` rows (token, head) of a sequence's new keys and values, or further on of its queries."""
    block, batch = tl.program_id(0), tl.program_id(1)
    batch_wide = batch.to(tl.int64)
    length = tl.load(seqused_k + batch)
    turn = length
    if rotary_seqlens is not None:
        turn = tl.load(rotary_seqlens + batch)
    rows = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    if block < blocks_k:
        new_start, seqlen_new = query_sequence(batch, cu_seqlens_new, None, rows_new)
        if block == 0:
            tl.store(lengths_ptr + batch, length + seqlen_new)
        tokens = rows // nheads_k
        heads = rows % nheads_k
        exists = tokens < seqlen_new
        positions = length + tokens
        fits = exists & (positions >= 0) & (positions < rows_k)
        if PAGE_SIZE > 0:
            page = tl.load(block_table + batch_wide * stride_table + positions // PAGE_SIZE, mask=fits, other=0)
            slots = positions % PAGE_SIZE
        else:
            page = batch + tl.zeros_like(rows)
            slots = positions
            if cache_batch_idx is not None:
                page = tl.load(cache_batch_idx + batch) + tl.zeros_like(rows)
        fits &= (page >= 0) & (page < sequences_k)
        page = page.to(tl.int64)[:, None]

        dims = tl.arange(0, BLOCK_D)
        k_new_offsets = packed_offsets(tokens, heads, stride_nks, stride_nkh, BLOCK_D)
        k = _load_rotated(
            k_new_ptr + batch_wide * stride_nkb + new_start * stride_nks, k_new_offsets, turn + tokens, exists,
            cos_ptr, sin_ptr, seqlen_ro, stride_cs, stride_cd, stride_ss, stride_sd,
            HEAD_DIM, BLOCK_D, ROTARY_DIM, INTERLEAVED,
        )  # fmt: skip
        k_offsets = page * stride_kb + packed_offsets(slots, heads, stride_ks, stride_kh, BLOCK_D)
        k_mask = fits[:, None] & (dims < HEAD_DIM)[None, :]
        if k_descale is not None:
            scale = tl.load(k_descale + batch * stride_k_descale_b + heads * stride_k_descale_h)
            k = tl.div_rn(k, tl.zeros_like(k) + scale[:, None])
        _store_cached(k_ptr + k_offsets, k, k_mask, FP8_MAX)

        dims_v = tl.arange(0, BLOCK_DV)
        v_mask = fits[:, None] & (dims_v < HEAD_DIM_V)[None, :]
        v_new_offsets = packed_offsets(tokens, heads, stride_nvs, stride_nvh, BLOCK_DV)
        v_new_ptr += batch_wide * stride_nvb + new_start * stride_nvs
        v = _load_wide(v_new_ptr + v_new_offsets, v_mask)
        v_offsets = page * stride_vb + packed_offsets(slots, heads, stride_vs, stride_vh, BLOCK_DV)
        if v_descale is not None:
            scale = tl.load(v_descale + batch * stride_v_descale_b + heads * stride_v_descale_h)
            v = tl.div_rn(v, tl.zeros_like(v) + scale[:, None])
        _store_cached(v_ptr + v_offsets, v, v_mask, FP8_MAX)
    else:
        rows -= blocks_k * BLOCK_ROWS
        tokens = rows // nheads_q
        heads = rows % nheads_q
        query_start, seqlen_q = query_sequence(batch, cu_seqlens_q, None, rows_q)
        exists = tokens < seqlen_q
        positions = turn + (tokens if FOLLOWS else tl.zeros_like(tokens))
        q_offsets = packed_offsets(tokens, heads, stride_qs, stride_qh, BLOCK_D)
        q = _load_rotated(
            q_ptr + batch_wide * stride_qb + query_start * stride_qs, q_offsets, positions, exists,
            cos_ptr, sin_ptr, seqlen_ro, stride_cs, stride_cd, stride_ss, stride_sd,
            HEAD_DIM, BLOCK_D, ROTARY_DIM, INTERLEAVED,
        )  # fmt: skip
        rotated_ptr += batch_wide * stride_rb + query_start * stride_rs
        rotated_offsets = packed_offsets(tokens, heads, stride_rs, stride_rh, BLOCK_D)
        mask = exists[:, None] & (tl.arange(0, BLOCK_D) < HEAD_DIM)[None, :]
        tl.store(rotated_ptr + rotated_offsets, q.to(rotated_ptr.dtype.element_ty), mask=mask)


def append_launch(problem: Problem, new: NewTokens) -> tuple[Problem, Launch]:
    """The attention call after the step, and the launch that makes it true.

    ``problem`` has the lengths before the step as its ``seqused_k``. The caches change in place; a token without room
    in the cache, or whose page or cache row does not exist, is dropped.

    Raises:
        ValueError: the problem has no ``seqused_k``, or sequences are packed in k.
    """
    if problem.seqused_k is None or problem.k.dim() != 4:
        raise ValueError("new tokens need seqused_k and a cache of 4 dimensions")
    rotates = new.rotary_cos is not None
    # The host does not know the longest of ragged sequences, only their sum.
    rows_new = new.k.shape[-3]
    lengths = torch.empty_like(problem.seqused_k)
    rotated = torch.empty_like(problem.q) if rotates else problem.q
    blocks_k = max(1, triton.cdiv(rows_new * problem.nheads_k, _BLOCK_ROWS))
    blocks_q = triton.cdiv(problem.max_seqlen_q * problem.nheads_q, _BLOCK_ROWS) if rotates else 0
    # Tokens in the dtype of the cache are stored as they are, whatever a unit of it is worth.
    quantises = problem.k.dtype.itemsize == 1 and new.k.dtype != problem.k.dtype
    arguments = {
        **problem.kernel_arguments(),
        "rotated_ptr": rotated,
        "lengths_ptr": lengths,
        "k_new_ptr": new.k,
        "v_new_ptr": new.v,
        **strides("r", rotated),
        **strides("nk", new.k),
        **strides("nv", new.v),
        "cu_seqlens_new": new.cu_seqlens,
        "rotary_seqlens": new.rotary_seqlens,
        "rows_new": rows_new,
        **_table_arguments(new),
        "blocks_k": blocks_k,
        "BLOCK_ROWS": _BLOCK_ROWS,
        "FOLLOWS": problem.is_banded,
        "FP8_MAX": torch.finfo(problem.k.dtype).max if quantises else 0.0,
    }
    if not quantises:
        arguments |= {"k_descale": None, "v_descale": None}
    launch = Launch(_append_kernel, (blocks_k + blocks_q, problem.batch_size), arguments, _OPTIONS)
    return dataclasses.replace(problem, q=rotated, seqused_k=lengths), launch


def _table_arguments(new: NewTokens) -> dict[str, Any]:
    """Arguments that describe the rotary table; without one, one of no dimensions."""
    cos, sin = new.rotary_cos, new.rotary_sin
    cos_strides, sin_strides = ((0, 0) if x is None else x.stride() for x in (cos, sin))
    seqlen_ro, pairs = (0, 0) if cos is None else cos.shape
    return {
        "cos_ptr": cos,
        "sin_ptr": sin,
        "seqlen_ro": seqlen_ro,
        "stride_cs": cos_strides[0],
        "stride_cd": cos_strides[1],
        "stride_ss": sin_strides[0],
        "stride_sd": sin_strides[1],
        "ROTARY_DIM": 2 * pairs,
        "INTERLEAVED": new.rotary_interleaved,
    }
