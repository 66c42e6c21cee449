"""Small flash-attention kernels that exist to exercise the simulator: forward and backward, nothing tuned."""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"

# ruff: noqa: ANN001, ANN201
from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def attention_forward(
    Q, K, V, Out, Lse,
    stride_b, stride_s, stride_h,
    softmax_scale, seqlen, nheads,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, CAUSAL: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """O and LSE of one block of query rows; all tensors (batch, seqlen, nheads, head_dim), same strides."""
    block_m = tl.program_id(0)
    batch = tl.program_id(1) // nheads
    head = tl.program_id(1) % nheads
    base = batch * stride_b + head * stride_h
    rows = block_m * BLOCK_M + tl.arange(0, BLOCK_M)
    dims = tl.arange(0, BLOCK_D)
    columns = tl.arange(0, BLOCK_N)
    row_ok = rows[:, None] < seqlen
    if BLOCK_D != HEAD_DIM:
        row_ok = row_ok & (dims[None, :] < HEAD_DIM)
    row_offsets = base + rows[:, None] * stride_s + dims[None, :]
    q = tl.load(Q + row_offsets, mask=row_ok, other=0.0)
    row_max = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    row_sum = tl.zeros((BLOCK_M,), tl.float32)
    acc = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    end = tl.minimum((block_m + 1) * BLOCK_M, seqlen) if CAUSAL else seqlen
    for start in range(0, end, BLOCK_N):
        keys = start + columns
        key_ok = keys[:, None] < seqlen
        if BLOCK_D != HEAD_DIM:
            key_ok = key_ok & (dims[None, :] < HEAD_DIM)
        offsets = base + keys[:, None] * stride_s + dims[None, :]
        k = tl.load(K + offsets, mask=key_ok, other=0.0)
        scores = tl.dot(q, tl.trans(k)) * (softmax_scale * LOG2E)
        visible = keys[None, :] < seqlen
        if CAUSAL:
            visible = visible & (rows[:, None] >= keys[None, :])
        scores = tl.where(visible, scores, -1.0e30)
        new_max = tl.maximum(row_max, tl.max(scores, 1))
        p = tl.exp2(scores - new_max[:, None])
        decay = tl.exp2(row_max - new_max)
        row_sum = row_sum * decay + tl.sum(p, 1)
        v = tl.load(V + offsets, mask=key_ok, other=0.0)
        acc = acc * decay[:, None]
        acc += tl.dot(p.to(v.dtype), v)
        row_max = new_max
    acc = acc / row_sum[:, None]
    tl.store(Out + row_offsets, acc.to(Out.dtype.element_ty), mask=row_ok)
    lse = row_max / LOG2E + tl.log(row_sum)
    tl.store(Lse + tl.program_id(1) * seqlen + rows, lse, mask=rows < seqlen)


@triton.jit
def attention_backward(
    Q, K, V, Dout, Lse, Delta, Dq, Dk, Dv,
    stride_b, stride_s, stride_h,
    softmax_scale, seqlen, nheads,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, CAUSAL: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """dK and dV of one block of keys; dQ (float32, zeroed) by atomic addition."""
    block_n = tl.program_id(0)
    batch = tl.program_id(1) // nheads
    head = tl.program_id(1) % nheads
    base = batch * stride_b + head * stride_h
    dims = tl.arange(0, BLOCK_D)
    keys = block_n * BLOCK_N + tl.arange(0, BLOCK_N)
    key_ok = keys[:, None] < seqlen
    if BLOCK_D != HEAD_DIM:
        key_ok = key_ok & (dims[None, :] < HEAD_DIM)
    key_offsets = base + keys[:, None] * stride_s + dims[None, :]
    k = tl.load(K + key_offsets, mask=key_ok, other=0.0)
    v = tl.load(V + key_offsets, mask=key_ok, other=0.0)
    dk = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    dv = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    begin = (block_n * BLOCK_N) // BLOCK_M * BLOCK_M if CAUSAL else 0
    for start in range(begin, seqlen, BLOCK_M):
        rows = start + tl.arange(0, BLOCK_M)
        row_ok = rows < seqlen
        tile_ok = row_ok[:, None]
        if BLOCK_D != HEAD_DIM:
            tile_ok = tile_ok & (dims[None, :] < HEAD_DIM)
        offsets = base + rows[:, None] * stride_s + dims[None, :]
        q = tl.load(Q + offsets, mask=tile_ok, other=0.0)
        dout = tl.load(Dout + offsets, mask=tile_ok, other=0.0)
        lse = tl.load(Lse + tl.program_id(1) * seqlen + rows, mask=row_ok, other=float("inf"))
        delta = tl.load(Delta + tl.program_id(1) * seqlen + rows, mask=row_ok, other=0.0)
        p = tl.exp2((tl.dot(q, tl.trans(k)) * softmax_scale - lse[:, None]) * LOG2E)
        visible = row_ok[:, None] & (keys[None, :] < seqlen)
        if CAUSAL:
            visible = visible & (rows[:, None] >= keys[None, :])
        p = tl.where(visible, p, 0.0)
        dv += tl.dot(tl.trans(p.to(dout.dtype)), dout)
        dp = tl.dot(dout, tl.trans(v))
        ds = (p * (dp - delta[:, None]) * softmax_scale).to(q.dtype)
        dk += tl.dot(tl.trans(ds), q)
        tl.atomic_add(Dq + offsets, tl.dot(ds, k), mask=tile_ok)
    tl.store(Dk + key_offsets, dk.to(Dk.dtype.element_ty), mask=key_ok)
    tl.store(Dv + key_offsets, dv.to(Dv.dtype.element_ty), mask=key_ok)
