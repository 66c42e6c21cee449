"""Checks of single arguments and of what arguments have in common; :mod:`flash_attn.validation` puts them together.

Wrong dtypes raise ``TypeError``, everything else ``ValueError``; a message names the argument, what came and what is
accepted. Nothing here reads the values of a tensor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flash_attn.attention_spec import FP8_DTYPES, AttentionSpec

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MAX_HEAD_DIM = 512
_LARGEST_SCALE = torch.finfo(torch.float32).max / 2
"""Of a factor of logits: backends multiply it by log2(e) in fp32."""


def check_shared(
    q: Tensor,
    batch_size: int,
    alibi_slopes: Tensor | None,
    learnable_sink: Tensor | None,
    softmax_scale: float | None,
    softcap: float,
    num_splits: int,
    qv_dim: int = 0,
) -> float:
    """Check what attention and decoding have in common; returns the softmax scale."""
    nheads_q = q.shape[-2]
    if softmax_scale is None:
        softmax_scale = float(q.shape[-1] + qv_dim) ** -0.5
    elif not abs(softmax_scale) <= _LARGEST_SCALE:
        raise ValueError(f"softmax_scale: got {softmax_scale}; accepted is None or a number in the range of float32")
    if not 0.0 <= softcap <= _LARGEST_SCALE or (softcap > 0.0 and abs(softmax_scale) > softcap * _LARGEST_SCALE):
        raise ValueError(
            f"softcap: got {softcap}; accepted is 0 (off) or a positive number, it and softmax_scale / softcap in the "
            "range of float32"
        )
    if num_splits < 0:
        raise ValueError(f"num_splits: got {num_splits}; accepted is 0 (automatic) or a positive number")
    if alibi_slopes is not None:
        check_device("alibi_slopes", alibi_slopes, q)
        if alibi_slopes.dtype != torch.float32:
            raise TypeError(f"alibi_slopes: got dtype {alibi_slopes.dtype}; accepted is torch.float32")
        if alibi_slopes.shape != (nheads_q,) and alibi_slopes.shape != (batch_size, nheads_q):
            raise ValueError(
                f"alibi_slopes: got shape {tuple(alibi_slopes.shape)}; accepted is ({nheads_q},) "
                f"or ({batch_size}, {nheads_q})"
            )
    if learnable_sink is not None:
        check_device("learnable_sink", learnable_sink, q)
        if not learnable_sink.dtype.is_floating_point:
            raise TypeError(f"learnable_sink: got dtype {learnable_sink.dtype}; accepted is a floating dtype")
        if learnable_sink.shape != (nheads_q,):
            raise ValueError(f"learnable_sink: got shape {tuple(learnable_sink.shape)}; accepted is ({nheads_q},)")
    return softmax_scale


def describe(tensor: Tensor) -> str:
    """Dtype and shape of a tensor, for a message."""
    return f"{tensor.dtype} of shape {tuple(tensor.shape)}"


def check_not_negative(name: str, value: int) -> None:
    """Check a length."""
    if value < 0:
        raise ValueError(f"{name}: got {value}; accepted is 0 or more")


def check_rank(name: str, tensor: Tensor, rank: int) -> None:
    """Check the number of dimensions of q, k or v."""
    if tensor.dim() != rank:
        layout = "(batch, seqlen, nheads, head_dim)" if rank == 4 else "(total, nheads, head_dim)"
        raise ValueError(f"{name}: got shape {tuple(tensor.shape)}; accepted is {layout}")


def check_device(name: str, tensor: Tensor, q: Tensor) -> None:
    """Check that a tensor is where q is."""
    if tensor.device != q.device:
        raise ValueError(f"{name}: got device {tensor.device}; accepted is that of q, {q.device}")


def check_index(name: str, tensor: Tensor, q: Tensor, shape: tuple[int, ...]) -> None:
    """Check an int32 tensor of lengths, offsets or pages."""
    check_device(name, tensor, q)
    if tensor.dtype != torch.int32:
        raise TypeError(f"{name}: got dtype {tensor.dtype}; accepted is torch.int32")
    if tensor.shape != shape:
        raise ValueError(f"{name}: got shape {tuple(tensor.shape)}; accepted is {shape}")
    check_last_stride(name, tensor)


def check_block_table(block_table: Tensor, q: Tensor, k: Tensor, batch_size: int) -> None:
    """Check the shape of a block table and of the pages it names."""
    if block_table.dim() != 2:
        raise ValueError(f"block_table: got shape {tuple(block_table.shape)}; accepted is ({batch_size}, max_pages)")
    check_index("block_table", block_table, q, (batch_size, block_table.shape[1]))
    if k.shape[1] < 1:
        raise ValueError("block_table: got pages of 0 rows; accepted are pages of at least one row")


def check_last_stride(name: str, tensor: Tensor) -> None:
    """Check that the last dimension is contiguous."""
    if tensor.stride(-1) != 1 and tensor.shape[-1] > 1:
        raise ValueError(
            f"{name}: got stride {tensor.stride(-1)} in the last dimension; accepted is 1 (call .contiguous())"
        )


def check_same_kind(name: str, tensor: Tensor, q: Tensor) -> None:
    """Check that a tensor has the device and the dtype of q."""
    check_device(name, tensor, q)
    if tensor.dtype != q.dtype:
        raise TypeError(f"{name}: got dtype {tensor.dtype}; accepted is that of q, {q.dtype}")


def check_key_value(q: Tensor, k: Tensor, v: Tensor, name_k: str, name_v: str, rank: int) -> tuple[int, int, int, int]:
    """Check q, k and v against each other; returns nheads_q, nheads_k, head_dim and head_dim_v."""
    if q.dtype not in DTYPES and q.dtype not in FP8_DTYPES:
        raise TypeError(f"q: got dtype {q.dtype}; accepted are {', '.join(map(str, DTYPES + FP8_DTYPES))}")
    if k.dim() != rank or v.dim() != rank:
        check_rank(name_k, k, rank)
        check_rank(name_v, v, rank)
    dtype, device = q.dtype, q.device
    if k.dtype != dtype or v.dtype != dtype or k.device != device or v.device != device:
        check_device(name_k, k, q)
        check_device(name_v, v, q)
        if k.dtype != dtype and k.dtype not in FP8_DTYPES:
            raise TypeError(
                f"{name_k}: got dtype {k.dtype}; accepted is that of q, {dtype}, or one of "
                f"{', '.join(map(str, FP8_DTYPES))}"
            )
        if v.dtype != k.dtype:
            raise TypeError(f"{name_v}: got dtype {v.dtype}; accepted is that of {name_k}, {k.dtype}")
    if q.stride(-1) != 1 or k.stride(-1) != 1 or v.stride(-1) != 1:
        check_last_stride("q", q)
        check_last_stride(name_k, k)
        check_last_stride(name_v, v)
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
    if nheads_q < 1:
        raise ValueError("q: got 0 heads; accepted is 1 or more")
    if nheads_k < 1 or nheads_q % nheads_k != 0:
        raise ValueError(
            f"{name_k}: got {nheads_k} heads for {nheads_q} heads of q; accepted is a divisor of {nheads_q}"
        )
    # A compiler's symbolic sizes become numbers here: a spec is hashed.
    return int(nheads_q), int(nheads_k), int(head_dim), int(head_dim_v)


def check_descale(name: str, descale: Tensor | None, q: Tensor, batch_size: int, nheads_k: int) -> None:
    """Check a scale of every sequence and KV head; an expanded view of one number will do."""
    if descale is None:
        return
    check_device(name, descale, q)
    if descale.dtype != torch.float32:
        raise TypeError(f"{name}: got dtype {descale.dtype}; accepted is torch.float32")
    if descale.shape != (batch_size, nheads_k):
        raise ValueError(
            f"{name}: got shape {tuple(descale.shape)}; accepted is (batch, nheads_k) = {(batch_size, nheads_k)}, "
            "which may be an expanded view"
        )


def check_qv(qv: Tensor, q: Tensor, head_dim_v: int) -> None:
    """Check the queries that meet v: laid out as q, with the head dim of v."""
    check_same_kind("qv", qv, q)
    if q.dtype in FP8_DTYPES:
        raise TypeError(f"qv: got a tensor with q of {q.dtype}; accepted are q and qv of {', '.join(map(str, DTYPES))}")
    accepted = (*q.shape[:-1], head_dim_v)
    if qv.shape != accepted:
        raise ValueError(f"qv: got shape {tuple(qv.shape)}; accepted is {accepted}")
    check_last_stride("qv", qv)


def sequences_of(name: str, cu_seqlens: Tensor) -> int:
    """How many sequences cumulative lengths tell of; -1 where there is no entry."""
    if cu_seqlens.dim() != 1:
        raise ValueError(f"{name}: got shape {tuple(cu_seqlens.shape)}; accepted is (batch + 1,)")
    return cu_seqlens.shape[0] - 1


def check_cumulative(name: str, cu_seqlens: Tensor, q: Tensor, batch_size: int) -> None:
    """Check the shape of cumulative lengths of ``batch_size`` sequences."""
    if batch_size < 0:
        raise ValueError(f"{name}: got no entry; accepted are batch_size + 1 entries")
    check_index(name, cu_seqlens, q, (batch_size + 1,))


def check_new_tokens(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    k: Tensor | None,
    v: Tensor | None,
    cache_seqlens: Tensor | None,
    cu_seqlens_k_new: Tensor | None,
    batch_size: int,
) -> None:
    """Check k and v that are to be appended to a cache."""
    if (k is None) != (v is None):
        raise ValueError("k, v: got only one of them; accepted are both or neither")
    if k is None or v is None:
        if cu_seqlens_k_new is not None:
            raise ValueError("cu_seqlens_k_new: got a tensor without new k and v; accepted is None without them")
        return
    if cache_seqlens is None:
        raise ValueError("cache_seqlens: got None with new k and v; accepted is an int or int32 (batch,)")
    if cu_seqlens_k_new is not None:
        check_cumulative("cu_seqlens_k_new", cu_seqlens_k_new, q, batch_size)
    for name, new, cache in (("k", k, k_cache), ("v", v, v_cache)):
        check_rank(name, new, 3 if cu_seqlens_k_new is not None else 4)
        check_device(name, new, q)
        if new.dtype != cache.dtype and (new.dtype != q.dtype or q.dtype in FP8_DTYPES):
            raise TypeError(
                f"{name}: got dtype {new.dtype}; accepted is that of {name}_cache, {cache.dtype}"
                + ("" if q.dtype in FP8_DTYPES or q.dtype == cache.dtype else f", or that of q, {q.dtype}")
            )
        check_last_stride(name, new)
        if any(cache.stride(dim) == 0 and cache.shape[dim] > 1 for dim in range(4)):
            raise ValueError(f"{name}_cache: got an expanded view with new {name}; accepted is memory for every row")
        rows = (batch_size, k.shape[1]) if cu_seqlens_k_new is None else (k.shape[0],)
        accepted = (*rows, cache.shape[2], cache.shape[3])
        if new.shape != accepted:
            raise ValueError(f"{name}: got shape {tuple(new.shape)}; accepted is {accepted}")
    if v.dtype != k.dtype:
        raise TypeError(f"v: got dtype {v.dtype}; accepted is that of k, {k.dtype}")


def check_rotary(
    q: Tensor,
    k: Tensor | None,
    cos: Tensor | None,
    sin: Tensor | None,
    cache_seqlens: Tensor | None,
    rotary_seqlens: Tensor | None,
    capacity: int,
) -> int:
    """Check the rotary tables; returns the rotary dimension, 0 without."""
    if (cos is None) != (sin is None):
        raise ValueError("rotary_cos, rotary_sin: got only one of them; accepted are both or neither")
    if cos is None or sin is None:
        if rotary_seqlens is not None:
            raise ValueError("rotary_seqlens: got a tensor without rotary_cos; accepted is None without rotary")
        return 0
    if k is None or cache_seqlens is None:
        raise ValueError("rotary_cos: got a tensor without new k and v; accepted is rotary with k and v only")
    for name, turned in (("q", q), ("k", k)):
        if turned.dtype in FP8_DTYPES:
            raise TypeError(
                f"{name}: got dtype {turned.dtype} with rotary_cos; accepted are {', '.join(map(str, DTYPES))}, "
                "whose rotation does not round away what fp8 holds"
            )
    for name, table in (("rotary_cos", cos), ("rotary_sin", sin)):
        check_same_kind(name, table, q)
        if table.dim() != 2 or table.shape != cos.shape:
            raise ValueError(
                f"{name}: got shape {tuple(table.shape)}; accepted is (seqlen_ro, rotary_dim / 2), "
                "alike for rotary_cos and rotary_sin"
            )
    rotary_dim = 2 * int(cos.shape[1])
    if not 2 <= rotary_dim <= q.shape[-1]:
        raise ValueError(f"rotary_cos: got rotary_dim {rotary_dim}; accepted is 2 to head_dim {q.shape[-1]}")
    if rotary_seqlens is None and cos.shape[0] < capacity:
        raise ValueError(f"rotary_cos: got {cos.shape[0]} positions; accepted is the cache's {capacity} or more")
    return rotary_dim


def check_extensions(
    spec: AttentionSpec,
    q: Tensor,
    k: Tensor,
    batch_size: int,
    q_descale: Tensor | None,
    k_descale: Tensor | None,
    v_descale: Tensor | None,
    qv: Tensor | None,
    attention_chunk: int,
) -> None:
    """Check what goes beyond FlashAttention-2: fp8 and its scales, queries for v, chunks."""
    check_not_negative("attention_chunk", attention_chunk)
    descales = (("q_descale", q_descale), ("k_descale", k_descale), ("v_descale", v_descale))
    for name, descale in descales:
        check_descale(name, descale, q, batch_size, spec.nheads_k)
    if qv is not None:
        check_qv(qv, q, spec.head_dim_v)
    if not spec.needs_backward:
        return
    for name, tensor in (("q", q), ("k", k)):
        if tensor.dtype in FP8_DTYPES:
            raise TypeError(
                f"{name}: got dtype {tensor.dtype} where gradients are needed; fp8 attention is forward only: accepted "
                "are tensors without requires_grad, torch.no_grad(), or another dtype"
            )
    for name, given in (*descales, ("qv", qv)):
        if given is not None:
            raise ValueError(f"{name}: got a tensor where gradients are needed; accepted is None there")
