"""The structs of csrc_common/params.h, filled from tensors."""

from __future__ import annotations

import ctypes
from ctypes import c_bool, c_float, c_int32, c_uint32, c_void_p
from typing import Any

import torch
from torch import Tensor

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends.base import AttentionInputs
from flash_attn.backends.dropout import dropout_threshold

_Fields = list[tuple[str, Any]]


class Strides(ctypes.Structure):
    """Elements between neighbours."""

    _fields_ = [(name, c_int32) for name in ("batch", "row", "head")]


class Descale(ctypes.Structure):
    """Scales of an 8-bit tensor; null means 1."""

    _fields_ = [("values", c_void_p), ("batch", c_int32), ("head", c_int32)]


_INTS = ("dtype", "head_dim", "head_dim_v")
_FLAGS = ("varlen", "paged", "masked", "softcap", "alibi", "dropout", "deterministic")
_SIZES = ("batch", "nheads_q", "nheads_k", "seqlen_q", "seqlen_k", "window_left", "window_right")
_ATTENTION: _Fields = [
    *((name, c_int32) for name in _INTS),
    *((name, c_bool) for name in _FLAGS),
    *((name, c_int32) for name in _SIZES),
    *((name, c_float) for name in ("softmax_scale", "softcap_value", "dropout_p")),
    ("dropout_threshold", c_uint32),
    *((name, c_void_p) for name in ("cu_seqlens_q", "cu_seqlens_k", "alibi_slopes")),
    ("alibi_batch_stride", c_int32),
    *((name, c_void_p) for name in ("rng_state", "q", "k", "v")),
    *((name, Strides) for name in ("q_strides", "k_strides", "v_strides")),
    ("seqused_k", c_void_p),
    *((name, c_int32) for name in ("lse_batch_stride", "lse_head_stride")),
    *((name, Descale) for name in ("q_descale", "k_descale", "v_descale")),
]


class ForwardParams(ctypes.Structure):
    """Of one forward."""

    _fields_ = [
        *_ATTENTION,
        ("out", c_void_p),
        ("softmax_lse", c_void_p),
        ("out_strides", Strides),
    ]


class BackwardParams(ctypes.Structure):
    """Of one backward."""

    _fields_ = [
        *_ATTENTION,
        *((name, c_void_p) for name in ("dout", "softmax_lse", "softmax_d", "dq_accumulator", "dk", "dv")),
        *((f"{name}_strides", Strides) for name in ("dout", "dq", "dk", "dv")),
        ("dq_split_stride", c_int32),
    ]


class SplitParams(ctypes.Structure):
    """Of one forward over caches or pages."""

    _fields_ = [
        *_ATTENTION,
        *((name, c_void_p) for name in ("out", "softmax_lse")),
        ("num_splits", c_int32),
        *((name, c_void_p) for name in ("cache_batch_idx", "block_table")),
        *((name, c_int32) for name in ("block_table_stride", "page_size")),
        ("leftpad_k", c_void_p),
    ]


# DataType of csrc_common/params.h.
_DATA_TYPES = (torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e4m3fnuz)

Params = ForwardParams | BackwardParams | SplitParams


def strides(tensor: Tensor) -> Strides:
    """Of ``(batch, rows, heads, head_dim)`` or ``(rows, heads, head_dim)``."""
    batch = tensor.stride(0) if tensor.dim() == 4 else 0
    return Strides(batch, tensor.stride(-3), tensor.stride(-2))


def put(params: Params, **tensors: Tensor | None) -> None:
    """Store the addresses of ``tensors``, which the caller keeps alive, and their strides where the struct has them."""
    for name, tensor in tensors.items():
        setattr(params, name, None if tensor is None else tensor.data_ptr())
        if tensor is not None and hasattr(params, f"{name}_strides"):
            setattr(params, f"{name}_strides", strides(tensor))


def fill(params: Params, spec: AttentionSpec, inputs: AttentionInputs) -> None:
    """What every phase has."""
    longest = inputs.max_seqlen_q + inputs.max_seqlen_k
    params.dtype = _DATA_TYPES.index(spec.dtype)
    params.head_dim, params.head_dim_v = spec.head_dim, spec.head_dim_v
    params.batch, params.nheads_q, params.nheads_k = inputs.batch_size, spec.nheads_q, spec.nheads_k
    params.seqlen_q, params.seqlen_k = inputs.max_seqlen_q, inputs.max_seqlen_k
    params.window_left = longest if spec.window_left < 0 else min(spec.window_left, longest)
    params.window_right = longest if spec.window_right < 0 else min(spec.window_right, longest)
    params.softmax_scale, params.softcap_value = spec.softmax_scale, spec.softcap
    params.dropout_p = spec.dropout_p
    params.dropout_threshold = dropout_threshold(spec.dropout_p)
    slopes = inputs.alibi_slopes
    params.alibi_batch_stride = spec.nheads_q if slopes is not None and slopes.dim() == 2 else 0
    put(params, q=inputs.q, k=inputs.k, v=inputs.v, alibi_slopes=slopes, rng_state=inputs.rng_state)
    put(params, cu_seqlens_q=inputs.cu_seqlens_q, cu_seqlens_k=inputs.cu_seqlens_k, seqused_k=inputs.seqused_k)
    for name in ("q_descale", "k_descale", "v_descale"):
        descale = getattr(inputs, name)
        if descale is not None:
            setattr(params, name, Descale(descale.data_ptr(), *descale.stride()))
    rows = inputs.q.shape[0] if spec.varlen_q else inputs.max_seqlen_q
    params.lse_head_stride = rows
    params.lse_batch_stride = 0 if spec.varlen_q else spec.nheads_q * rows


def lengths_of_caches(inputs: AttentionInputs) -> AttentionInputs:
    """The same call with the lengths of its sequences where a kernel over caches reads them."""
    if inputs.cu_seqlens_k is None:
        return inputs
    used = inputs.cu_seqlens_k.diff() if inputs.seqused_k is None else inputs.seqused_k
    return inputs._replace(seqused_k=used, cu_seqlens_k=None)


def fill_split(
    params: SplitParams, spec: AttentionSpec, inputs: AttentionInputs, num_splits: int
) -> tuple[Tensor, Tensor]:
    """All that a split call has; returns its results, NaN until a kernel writes them."""
    fill(params, spec, inputs)
    packed = (spec.nheads_q, inputs.q.shape[0])
    lse_shape = packed if spec.varlen_q else (inputs.batch_size, spec.nheads_q, inputs.max_seqlen_q)
    out = torch.full((num_splits, *inputs.q.shape[:-1], spec.head_dim_v), float("nan"))
    lse = torch.full((num_splits, *lse_shape), float("nan"))
    put(params, out=out, softmax_lse=lse, leftpad_k=inputs.leftpad_k)
    put(params, cache_batch_idx=inputs.cache_batch_idx, block_table=inputs.block_table)
    params.paged = inputs.block_table is not None
    params.num_splits, params.page_size = num_splits, inputs.k.shape[1]
    params.block_table_stride = 0 if inputs.block_table is None else inputs.block_table.stride(0)
    params.seqlen_k = inputs.k.shape[1] * (1 if inputs.block_table is None else inputs.block_table.shape[1])
    return out, lse
