"""The one place that checks arguments: from what a caller passed to a spec and validated inputs.

Shapes, dtypes and devices are checked for real and for fake tensors; the values inside of index tensors are
checked by :mod:`flash_attn.value_checks`. Wrong dtypes raise ``TypeError``, everything else ``ValueError``;
a message names the argument, what came and what is accepted.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from flash_attn.attention_spec import AttentionSpec, KVLayout
from flash_attn.backends.base import AttentionInputs, DecodeInputs

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MAX_HEAD_DIM = 512


def attention_request(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor | None,
    cu_seqlens_k: Tensor | None,
    max_seqlen_q: int,
    max_seqlen_k: int,
    seqused_k: Tensor | None,
    leftpad_k: Tensor | None,
    block_table: Tensor | None,
    alibi_slopes: Tensor | None,
    learnable_sink: Tensor | None,
    rng_state: Tensor | None,
    dropout_p: float,
    softmax_scale: float | None,
    causal: bool,
    window_size_left: int,
    window_size_right: int,
    softcap: float,
    deterministic: bool,
    return_attn_probs: bool,
    num_splits: int,
    needs_backward: bool,
) -> tuple[AttentionSpec, AttentionInputs]:
    """Check the arguments of an attention call; they mean what ``flash_attn_varlen_func`` says of them."""
    varlen_q = cu_seqlens_q is not None
    paged = block_table is not None
    varlen_k = cu_seqlens_k is not None and not paged
    if varlen_q != (cu_seqlens_k is not None):
        raise ValueError("cu_seqlens_q, cu_seqlens_k: got only one of them; accepted are both or neither")
    if q.dim() != (3 if varlen_q else 4):
        _check_rank("q", q, 3 if varlen_q else 4)
    nheads_q, nheads_k, head_dim, head_dim_v = _check_key_value(q, k, v, "k", "v", 3 if varlen_k else 4)
    batch_size = q.shape[0]
    if cu_seqlens_q is not None and cu_seqlens_k is not None:
        batch_size = cu_seqlens_q.shape[0] - 1
        _check_index("cu_seqlens_q", cu_seqlens_q, q, (batch_size + 1,))
        _check_index("cu_seqlens_k", cu_seqlens_k, q, (batch_size + 1,))
        if batch_size < 0:
            raise ValueError("cu_seqlens_q: got no entry; accepted are batch_size + 1 entries")
        _check_not_negative("max_seqlen_q", max_seqlen_q)
        _check_not_negative("max_seqlen_k", max_seqlen_k)
    else:
        if not paged and k.shape[0] != batch_size:
            raise ValueError(f"k: got batch size {k.shape[0]}; accepted is that of q, {batch_size}")
        max_seqlen_q = q.shape[1]
        max_seqlen_k = k.shape[1] if block_table is None else k.shape[1] * block_table.shape[1]
    if seqused_k is not None:
        _check_index("seqused_k", seqused_k, q, (batch_size,))
    if leftpad_k is not None:
        _check_index("leftpad_k", leftpad_k, q, (batch_size,))
    if block_table is not None:
        _check_block_table(block_table, q, k, batch_size)
    if rng_state is not None:
        _check_device("rng_state", rng_state, q)
        if rng_state.dtype != torch.int64 or rng_state.shape != (2,):
            raise ValueError(f"rng_state: got {_describe(rng_state)}; accepted is int64 of shape (2,)")
    elif dropout_p > 0:
        raise ValueError(f"rng_state: got None with dropout_p {dropout_p}; accepted is int64 of shape (2,)")
    if not 0.0 <= dropout_p < 1.0:
        raise ValueError(f"dropout_p: got {dropout_p}; accepted is 0 <= dropout_p < 1")
    layout: KVLayout = "paged" if paged else "varlen" if varlen_k else "dense"
    scale = _check_shared(q, batch_size, alibi_slopes, learnable_sink, softmax_scale, softcap, num_splits)
    # By position: this is the way of every call, and keywords double its cost.
    spec = AttentionSpec(
        q.dtype,
        nheads_q,
        nheads_k,
        head_dim,
        head_dim_v,
        scale,
        *_window(causal, window_size_left, window_size_right),
        softcap,
        dropout_p,
        varlen_q,
        layout,
        int(k.shape[1]) if paged else 0,
        alibi_slopes is not None,
        learnable_sink is not None,
        seqused_k is not None,
        leftpad_k is not None,
        needs_backward=needs_backward,
        deterministic=deterministic,
        return_attn_probs=return_attn_probs and dropout_p > 0,
        num_splits=num_splits,
    )
    inputs = AttentionInputs(
        q,
        k,
        v,
        max_seqlen_q,
        max_seqlen_k,
        cu_seqlens_q,
        cu_seqlens_k,
        seqused_k,
        leftpad_k,
        block_table,
        None,
        alibi_slopes,
        learnable_sink,
        rng_state,
    )
    return spec, inputs


def decode_request(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    k: Tensor | None,
    v: Tensor | None,
    rotary_cos: Tensor | None,
    rotary_sin: Tensor | None,
    cache_seqlens: Tensor | None,
    cache_batch_idx: Tensor | None,
    cache_leftpad: Tensor | None,
    block_table: Tensor | None,
    alibi_slopes: Tensor | None,
    learnable_sink: Tensor | None,
    softmax_scale: float | None,
    causal: bool,
    window_size_left: int,
    window_size_right: int,
    softcap: float,
    rotary_interleaved: bool,
    num_splits: int,
) -> tuple[AttentionSpec, DecodeInputs]:
    """Check the arguments of ``flash_attn_with_kvcache``; they mean what it says of them."""
    _check_rank("q", q, 4)
    nheads_q, nheads_k, head_dim, head_dim_v = _check_key_value(q, k_cache, v_cache, "k_cache", "v_cache", 4)
    batch_size = q.shape[0]
    paged = block_table is not None
    if block_table is not None:
        _check_block_table(block_table, q, k_cache, batch_size)
        if cache_batch_idx is not None:
            raise ValueError("cache_batch_idx: got a tensor together with block_table; accepted is one of them")
    elif cache_batch_idx is not None:
        _check_index("cache_batch_idx", cache_batch_idx, q, (batch_size,))
    elif k_cache.shape[0] != batch_size:
        raise ValueError(
            f"k_cache: got batch size {k_cache.shape[0]}; accepted is that of q, {batch_size}, "
            "unless cache_batch_idx or block_table is given"
        )
    if cache_seqlens is not None:
        _check_index("cache_seqlens", cache_seqlens, q, (batch_size,))
    if cache_leftpad is not None:
        _check_index("cache_leftpad", cache_leftpad, q, (batch_size,))
    _check_new_tokens(q, k_cache, v_cache, k, v, cache_seqlens)
    capacity = k_cache.shape[1] * (1 if block_table is None else block_table.shape[1])
    rotary_dim = _check_rotary(q, rotary_cos, rotary_sin, cache_seqlens, capacity, k is not None)
    scale = _check_shared(q, batch_size, alibi_slopes, learnable_sink, softmax_scale, softcap, num_splits)
    window_left, window_right = _window(causal, window_size_left, window_size_right)
    spec = AttentionSpec(
        dtype=q.dtype,
        nheads_q=nheads_q,
        nheads_k=nheads_k,
        head_dim=head_dim,
        head_dim_v=head_dim_v,
        softmax_scale=scale,
        window_left=window_left,
        window_right=window_right,
        softcap=softcap,
        kv_layout="paged" if paged else "dense",
        page_size=int(k_cache.shape[1]) if paged else 0,
        has_alibi=alibi_slopes is not None,
        has_sink=learnable_sink is not None,
        has_seqused_k=cache_seqlens is not None,
        has_leftpad_k=cache_leftpad is not None,
        has_cache_batch_idx=cache_batch_idx is not None,
        phase="decode",
        appends_kv=k is not None,
        rotary_dim=rotary_dim,
        rotary_interleaved=rotary_interleaved,
        num_splits=num_splits,
    )
    inputs = DecodeInputs(
        q,
        k_cache,
        v_cache,
        k,
        v,
        rotary_cos,
        rotary_sin,
        cache_seqlens,
        cache_batch_idx,
        cache_leftpad,
        block_table,
        alibi_slopes,
        learnable_sink,
    )
    return spec, inputs


def check_backward(
    spec: AttentionSpec, inputs: AttentionInputs, dout: Tensor, dlse: Tensor | None, out: Tensor, lse: Tensor
) -> None:
    """Check what a backward call passes beyond its forward's arguments."""
    q = inputs.q
    out_shape = (*q.shape[:-1], spec.head_dim_v)
    lse_shape = (q.shape[1], q.shape[0]) if spec.varlen_q else (q.shape[0], q.shape[2], q.shape[1])
    expected = (
        ("dout", dout, out_shape, q.dtype),
        ("out", out, out_shape, q.dtype),
        ("softmax_lse", lse, lse_shape, torch.float32),
        ("dlse", dlse, lse_shape, torch.float32),
    )
    for name, tensor, shape, dtype in expected:
        if tensor is None:
            continue
        _check_device(name, tensor, q)
        if tensor.shape != shape or tensor.dtype != dtype:
            raise ValueError(f"{name}: got {_describe(tensor)}; accepted is {dtype} of shape {shape}")


def check_tensors(q: Any, k: Any, v: Any) -> None:
    """Check that q, k and v are tensors with dimensions, before anything is asked of them."""
    tensors = isinstance(q, Tensor) and isinstance(k, Tensor) and isinstance(v, Tensor)
    if tensors and q.dim() > 2 and k.dim() > 2 and v.dim() > 2:
        return
    for name, value in (("q", q), ("k", k), ("v", v)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: got {type(value).__name__}; accepted is a torch.Tensor")
        if value.dim() < 3:
            _check_rank(name, value, 4)


def window_bounds(window_size: tuple[int, int]) -> tuple[int, int]:
    """``(left, right)`` of a sliding window."""
    accepted = (int, torch.SymInt)
    if len(window_size) != 2 or not isinstance(window_size[0], accepted) or not isinstance(window_size[1], accepted):
        raise ValueError(f"window_size: got {window_size}; accepted is a pair of ints (left, right), -1 for no bound")
    return window_size


def check_gradient_buffer(name: str, buffer: Tensor | None, like: Tensor) -> None:
    """Check a buffer that a caller gave for the gradient of ``like``."""
    if buffer is not None and (buffer.shape != like.shape or buffer.dtype != like.dtype):
        raise ValueError(f"{name}: got {_describe(buffer)}; accepted is {_describe(like)}")


def packed_parts(name: str, packed: Tensor, parts: int) -> tuple[Tensor, ...]:
    """Views of ``(..., parts, nheads, head_dim)`` along its third last dimension."""
    if not isinstance(packed, Tensor):
        raise TypeError(f"{name}: got {type(packed).__name__}; accepted is a torch.Tensor")
    if packed.dim() not in (4, 5) or packed.shape[-3] != parts:
        raise ValueError(
            f"{name}: got shape {tuple(packed.shape)}; accepted is (batch, seqlen, {parts}, nheads, head_dim) "
            f"or (total, {parts}, nheads, head_dim)"
        )
    return packed.unbind(-3)


def _window(causal: bool, left: int, right: int) -> tuple[int, int]:
    """Window bounds of a spec: -1 for any negative bound, and 0 to the right under a causal mask."""
    return int(left) if left >= 0 else -1, 0 if causal else int(right) if right >= 0 else -1


def _check_shared(
    q: Tensor,
    batch_size: int,
    alibi_slopes: Tensor | None,
    learnable_sink: Tensor | None,
    softmax_scale: float | None,
    softcap: float,
    num_splits: int,
) -> float:
    """Check what attention and decoding have in common; returns the softmax scale."""
    nheads_q = q.shape[-2]
    if softmax_scale is None:
        softmax_scale = float(q.shape[-1]) ** -0.5
    elif not math.isfinite(softmax_scale):
        raise ValueError(f"softmax_scale: got {softmax_scale}; accepted is a finite number or None")
    if not (softcap >= 0.0 and math.isfinite(softcap)):
        raise ValueError(f"softcap: got {softcap}; accepted is 0 (off) or a finite positive number")
    if num_splits < 0:
        raise ValueError(f"num_splits: got {num_splits}; accepted is 0 (automatic) or a positive number")
    if alibi_slopes is not None:
        _check_device("alibi_slopes", alibi_slopes, q)
        if alibi_slopes.dtype != torch.float32:
            raise TypeError(f"alibi_slopes: got dtype {alibi_slopes.dtype}; accepted is torch.float32")
        if alibi_slopes.shape != (nheads_q,) and alibi_slopes.shape != (batch_size, nheads_q):
            raise ValueError(
                f"alibi_slopes: got shape {tuple(alibi_slopes.shape)}; accepted is ({nheads_q},) "
                f"or ({batch_size}, {nheads_q})"
            )
    if learnable_sink is not None:
        _check_device("learnable_sink", learnable_sink, q)
        if not learnable_sink.dtype.is_floating_point:
            raise TypeError(f"learnable_sink: got dtype {learnable_sink.dtype}; accepted is a floating dtype")
        if learnable_sink.shape != (nheads_q,):
            raise ValueError(f"learnable_sink: got shape {tuple(learnable_sink.shape)}; accepted is ({nheads_q},)")
    return softmax_scale


def _describe(tensor: Tensor) -> str:
    return f"{tensor.dtype} of shape {tuple(tensor.shape)}"


def _check_not_negative(name: str, value: int) -> None:
    if value < 0:
        raise ValueError(f"{name}: got {value}; accepted is 0 or more")


def _check_rank(name: str, tensor: Tensor, rank: int) -> None:
    if tensor.dim() != rank:
        layout = "(batch, seqlen, nheads, head_dim)" if rank == 4 else "(total, nheads, head_dim)"
        raise ValueError(f"{name}: got shape {tuple(tensor.shape)}; accepted is {layout}")


def _check_device(name: str, tensor: Tensor, q: Tensor) -> None:
    if tensor.device != q.device:
        raise ValueError(f"{name}: got device {tensor.device}; accepted is that of q, {q.device}")


def _check_index(name: str, tensor: Tensor, q: Tensor, shape: tuple[int, ...]) -> None:
    _check_device(name, tensor, q)
    if tensor.dtype != torch.int32:
        raise TypeError(f"{name}: got dtype {tensor.dtype}; accepted is torch.int32")
    if tensor.shape != shape:
        raise ValueError(f"{name}: got shape {tuple(tensor.shape)}; accepted is {shape}")
    _check_last_stride(name, tensor)


def _check_block_table(block_table: Tensor, q: Tensor, k: Tensor, batch_size: int) -> None:
    if block_table.dim() != 2:
        raise ValueError(f"block_table: got shape {tuple(block_table.shape)}; accepted is ({batch_size}, max_pages)")
    _check_index("block_table", block_table, q, (batch_size, block_table.shape[1]))
    if k.shape[1] < 1:
        raise ValueError("block_table: got pages of 0 rows; accepted are pages of at least one row")


def _check_last_stride(name: str, tensor: Tensor) -> None:
    if tensor.stride(-1) != 1 and tensor.shape[-1] > 1:
        raise ValueError(
            f"{name}: got stride {tensor.stride(-1)} in the last dimension; accepted is 1 (call .contiguous())"
        )


def _check_same_kind(name: str, tensor: Tensor, q: Tensor) -> None:
    _check_device(name, tensor, q)
    if tensor.dtype != q.dtype:
        raise TypeError(f"{name}: got dtype {tensor.dtype}; accepted is that of q, {q.dtype}")


def _check_key_value(q: Tensor, k: Tensor, v: Tensor, name_k: str, name_v: str, rank: int) -> tuple[int, int, int, int]:
    """Check q, k and v against each other; returns nheads_q, nheads_k, head_dim and head_dim_v."""
    if q.dtype not in DTYPES:
        raise TypeError(f"q: got dtype {q.dtype}; accepted are {', '.join(map(str, DTYPES))}")
    if k.dim() != rank or v.dim() != rank:
        _check_rank(name_k, k, rank)
        _check_rank(name_v, v, rank)
    dtype, device = q.dtype, q.device
    if k.dtype != dtype or v.dtype != dtype or k.device != device or v.device != device:
        _check_same_kind(name_k, k, q)
        _check_same_kind(name_v, v, q)
    if q.stride(-1) != 1 or k.stride(-1) != 1 or v.stride(-1) != 1:
        _check_last_stride("q", q)
        _check_last_stride(name_k, k)
        _check_last_stride(name_v, v)
    k_shape, v_shape = k.shape, v.shape
    nheads_q, head_dim = q.shape[-2:]
    nheads_k, head_dim_k = k_shape[-2:]
    head_dim_v = v_shape[-1]
    if not 1 <= head_dim <= MAX_HEAD_DIM:
        raise ValueError(f"q: got head_dim {head_dim}; accepted is 1 to {MAX_HEAD_DIM}")
    if not 1 <= head_dim_v <= MAX_HEAD_DIM:
        raise ValueError(f"{name_v}: got head_dim {head_dim_v}; accepted is 1 to {MAX_HEAD_DIM}")
    if head_dim_k != head_dim:
        raise ValueError(f"{name_k}: got head_dim {head_dim_k}; accepted is that of q, {head_dim}")
    if k_shape != v_shape and k_shape[:-1] != v_shape[:-1]:
        raise ValueError(
            f"{name_v}: got shape {tuple(v_shape)}; accepted is {tuple(k_shape[:-1])} of {name_k}, then any head_dim"
        )
    if nheads_k < 1 or nheads_q < 1 or nheads_q % nheads_k != 0:
        raise ValueError(
            f"{name_k}: got {nheads_k} heads for {nheads_q} heads of q; accepted is a divisor of {nheads_q}"
        )
    # A compiler's symbolic sizes become numbers here: a spec is hashed.
    return int(nheads_q), int(nheads_k), int(head_dim), int(head_dim_v)


def _check_new_tokens(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    k: Tensor | None,
    v: Tensor | None,
    cache_seqlens: Tensor | None,
) -> None:
    """Check k and v that are to be appended to a cache."""
    if (k is None) != (v is None):
        raise ValueError("k, v: got only one of them; accepted are both or neither")
    if k is None or v is None:
        return
    if cache_seqlens is None:
        raise ValueError("cache_seqlens: got None with new k and v; accepted is an int or int32 (batch,)")
    for name, new, cache in (("k", k, k_cache), ("v", v, v_cache)):
        _check_rank(name, new, 4)
        _check_same_kind(name, new, q)
        _check_last_stride(name, new)
        accepted = (q.shape[0], k.shape[1], cache.shape[2], cache.shape[3])
        if new.shape != accepted:
            raise ValueError(f"{name}: got shape {tuple(new.shape)}; accepted is {accepted}")


def _check_rotary(
    q: Tensor,
    cos: Tensor | None,
    sin: Tensor | None,
    cache_seqlens: Tensor | None,
    capacity: int,
    appends: bool,
) -> int:
    """Check the rotary tables; returns the rotary dimension, 0 without."""
    if (cos is None) != (sin is None):
        raise ValueError("rotary_cos, rotary_sin: got only one of them; accepted are both or neither")
    if cos is None or sin is None:
        return 0
    if not appends or cache_seqlens is None:
        raise ValueError("rotary_cos: got a tensor without new k and v; accepted is rotary with k and v only")
    for name, table in (("rotary_cos", cos), ("rotary_sin", sin)):
        _check_same_kind(name, table, q)
        if table.dim() != 2 or table.shape != cos.shape:
            raise ValueError(
                f"{name}: got shape {tuple(table.shape)}; accepted is (seqlen_ro, rotary_dim / 2), "
                "alike for rotary_cos and rotary_sin"
            )
    rotary_dim = 2 * int(cos.shape[1])
    if not 2 <= rotary_dim <= q.shape[-1]:
        raise ValueError(f"rotary_cos: got rotary_dim {rotary_dim}; accepted is 2 to head_dim {q.shape[-1]}")
    if cos.shape[0] < capacity:
        raise ValueError(f"rotary_cos: got {cos.shape[0]} positions; accepted is the cache's {capacity} or more")
    return rotary_dim
