"""The FlashAttention-3 functions, with upstream's names, signatures and defaults.

They are the same attention as :mod:`flash_attn.flash_attn_interface`, through the same operators and backends. FA3
(Shah et al. 2024, arXiv 2407.08608) adds fp8 with scales, chunks, queries for the values and ragged caches; it has no
dropout and no ALiBi. ``pack_gqa``, ``sm_margin`` and ``scheduler_metadata`` say how upstream's kernels are to run, not
what they compute: they are checked and change nothing. The distribution in ``flash_attn_3_distribution/`` gives these
functions upstream's import paths ``flash_attn_interface`` and ``flash_attn_3``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flash_attn.argument_checks import check_index, check_not_negative
from flash_attn.custom_ops import attention, decode
from flash_attn.partial_results import flash_attn_combine
from flash_attn.validation import check_tensor, host_int, packed_parts

Output = Tensor | tuple[Tensor, Tensor]


def _check_hints(pack_gqa: bool | None, sm_margin: int, scheduler_metadata: Tensor | None = None) -> None:
    """Check what has no effect on a result."""
    if pack_gqa is not None and not isinstance(pack_gqa, bool):
        raise TypeError(f"pack_gqa: got {type(pack_gqa).__name__}; accepted is True, False or None")
    check_not_negative("sm_margin", sm_margin)
    if scheduler_metadata is None:
        return
    check_tensor("scheduler_metadata", scheduler_metadata)
    if scheduler_metadata.dtype != torch.int32:
        raise TypeError(f"scheduler_metadata: got dtype {scheduler_metadata.dtype}; accepted is torch.int32")


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    softmax_scale: float | None = None,
    causal: bool = False,
    qv: Tensor | None = None,
    q_descale: Tensor | None = None,
    k_descale: Tensor | None = None,
    v_descale: Tensor | None = None,
    window_size: tuple[int, int] = (-1, -1),
    attention_chunk: int = 0,
    softcap: float = 0.0,
    num_splits: int = 1,
    pack_gqa: bool | None = None,
    deterministic: bool = False,
    sm_margin: int = 0,
    return_attn_probs: bool = False,
) -> Output:
    """Exact attention; differentiable but for fp8 and what has a scale.

    Args:
        q: ``(batch, seqlen_q, nheads, head_dim)``, fp16, bf16, fp32, fp64, or fp8 (e4m3fn, e4m3fnuz, e5m2).
        k: ``(batch, seqlen_k, nheads_k, head_dim)`` in the dtype of q, or in fp8 whatever that of q.
        v: ``(batch, seqlen_k, nheads_k, head_dim_v)`` in the dtype of k; head_dim_v may differ from head_dim.
        softmax_scale: factor of the scores; ``head_dim ** -0.5``, with qv ``(head_dim + head_dim_v) ** -0.5``.
        causal: row ``i`` sees key ``j`` only when ``j <= i + seqlen_k - seqlen_q``.
        qv: ``(batch, seqlen_q, nheads, head_dim_v)`` in the dtype of q, which is not fp8: scores are
            ``q.k + qv.v`` (multi-head latent attention). With gradients, head_dim + head_dim_v is at most 512.
        q_descale: fp32 ``(batch, nheads_k)``: q stands for ``q * q_descale``, by sequence and KV head. One scale for
            the whole tensor is an expanded view. 1 by default.
        k_descale: likewise for k.
        v_descale: likewise for v.
        window_size: ``(left, right)``, inclusive, bottom-right aligned; -1 leaves a side unbounded.
        attention_chunk: > 0: the row at position ``p = i + seqlen_k - seqlen_q`` sees keys of its own chunk alone,
            ``floor(p / chunk) * chunk`` and the ``chunk - 1`` after it. 0 is off.
        softcap: > 0 turns a scaled score ``s`` into ``softcap * tanh(s / softcap)``; 0.0 is off.
        num_splits: into how many parts the keys are split where rows are few; 0 leaves it to the backend.
        pack_gqa: hint without effect.
        deterministic: use a backward whose result does not depend on the order of threads.
        sm_margin: hint without effect; 0 or more.
        return_attn_probs: also return the log-sum-exp.

    Returns:
        ``out`` ``(batch, seqlen_q, nheads, head_dim_v)`` in the dtype of q, bf16 where that is fp8; or
        ``(out, softmax_lse)`` with the fp32 log-sum-exp ``(batch, nheads, seqlen_q)``.

    Raises:
        TypeError, ValueError: an argument is unsuitable; the message names it, what came and what is accepted.
        flash_attn.UnsupportedError: no backend, or not the one asked for, supports the request.
    """
    _check_hints(pack_gqa, sm_margin)
    out, softmax_lse, _ = attention(
        q,
        k,
        v,
        softmax_scale=softmax_scale,
        causal=causal,
        window_size=window_size,
        softcap=softcap,
        deterministic=deterministic,
        num_splits=num_splits,
        q_descale=q_descale,
        k_descale=k_descale,
        v_descale=v_descale,
        qv=qv,
        attention_chunk=attention_chunk,
    )
    return (out, softmax_lse) if return_attn_probs else out


def flash_attn_qkvpacked_func(
    qkv: Tensor,
    softmax_scale: float | None = None,
    causal: bool = False,
    q_descale: Tensor | None = None,
    k_descale: Tensor | None = None,
    v_descale: Tensor | None = None,
    window_size: tuple[int, int] = (-1, -1),
    attention_chunk: int = 0,
    softcap: float = 0.0,
    deterministic: bool = False,
    num_heads_q: int | None = None,
    sm_margin: int = 0,
    return_attn_probs: bool = False,
) -> Output:
    """:func:`flash_attn_func` on the views of ``qkv``.

    ``qkv`` is ``(batch, seqlen, 3, nheads, head_dim)``, or with ``num_heads_q`` ``(batch, seqlen, num_heads_q + 2 *
    nheads_k, head_dim)``: the heads of q, of k, of v.
    """
    if isinstance(qkv, Tensor) and qkv.dim() == 4:
        q, k, v = _heads_of_qkv(qkv, num_heads_q)
    elif num_heads_q is not None:
        raise ValueError(f"num_heads_q: got {num_heads_q} with qkv of five dimensions; accepted is None there")
    else:
        q, k, v = packed_parts("qkv", qkv, 3)
    return flash_attn_func(
        q,
        k,
        v,
        softmax_scale,
        causal,
        None,
        q_descale,
        k_descale,
        v_descale,
        window_size,
        attention_chunk,
        softcap,
        deterministic=deterministic,
        sm_margin=sm_margin,
        return_attn_probs=return_attn_probs,
    )


def _heads_of_qkv(qkv: Tensor, num_heads_q: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Views of ``(batch, seqlen, num_heads_q + 2 * nheads_k, head_dim)``."""
    heads = qkv.shape[2]
    if num_heads_q is None or not 1 <= num_heads_q < heads or (heads - num_heads_q) % 2 != 0:
        raise ValueError(
            f"num_heads_q: got {num_heads_q} for {heads} heads of qkv; accepted is a number of heads that leaves an "
            "even number, half of them k's and half of them v's"
        )
    nheads_k = (heads - num_heads_q) // 2
    q, k, v = qkv.split([num_heads_q, nheads_k, nheads_k], dim=2)
    return q, k, v


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    seqused_q: Tensor | None = None,
    seqused_k: Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    qv: Tensor | None = None,
    q_descale: Tensor | None = None,
    k_descale: Tensor | None = None,
    v_descale: Tensor | None = None,
    window_size: tuple[int, int] = (-1, -1),
    attention_chunk: int = 0,
    softcap: float = 0.0,
    num_splits: int = 1,
    pack_gqa: bool | None = None,
    deterministic: bool = False,
    sm_margin: int = 0,
    return_attn_probs: bool = False,
) -> Output:
    """:func:`flash_attn_func` for a batch of sequences of different lengths, packed without padding.

    Args:
        q: ``(total_q, nheads, head_dim)``, the queries of all sequences one after another; k and v likewise.
        k: ``(total_k, nheads_k, head_dim)``.
        v: ``(total_k, nheads_k, head_dim_v)``.
        cu_seqlens_q: int32 ``(batch + 1,)``: where each sequence's queries begin; 0 first, then cumulative.
        cu_seqlens_k: the same for keys.
        max_seqlen_q: length of the longest sequence of queries, or more.
        max_seqlen_k: length of the longest sequence of keys, or more.
        seqused_q: int32 ``(batch,)``: how many of a sequence's queries count, the first ones. The others give output
            0 and lse ``-inf``, and the mask is aligned to the last one that counts.
        seqused_k: int32 ``(batch,)``: how many of a sequence's keys count, the first ones.
        softmax_scale, causal, qv, q_descale, k_descale, v_descale, window_size, attention_chunk, softcap, num_splits,
            pack_gqa, deterministic, sm_margin: as in :func:`flash_attn_func`, each sequence by itself; qv is
            ``(total_q, nheads, head_dim_v)``.
        return_attn_probs: also return the log-sum-exp.

    Returns:
        ``out`` ``(total_q, nheads, head_dim_v)``, or ``(out, softmax_lse)`` with ``softmax_lse`` fp32
        ``(nheads, total_q)``.

    Raises:
        TypeError, ValueError, flash_attn.UnsupportedError: as :func:`flash_attn_func`.
    """
    _check_hints(pack_gqa, sm_margin)
    out, softmax_lse, _ = attention(
        q,
        k,
        v,
        cu_seqlens_q,
        cu_seqlens_k,
        host_int("max_seqlen_q", max_seqlen_q),
        host_int("max_seqlen_k", max_seqlen_k),
        seqused_k=seqused_k,
        softmax_scale=softmax_scale,
        causal=causal,
        window_size=window_size,
        softcap=softcap,
        deterministic=deterministic,
        num_splits=num_splits,
        q_descale=q_descale,
        k_descale=k_descale,
        v_descale=v_descale,
        qv=qv,
        seqused_q=seqused_q,
        attention_chunk=attention_chunk,
    )
    return (out, softmax_lse) if return_attn_probs else out


def flash_attn_with_kvcache(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    k: Tensor | None = None,
    v: Tensor | None = None,
    qv: Tensor | None = None,
    rotary_cos: Tensor | None = None,
    rotary_sin: Tensor | None = None,
    cache_seqlens: int | Tensor | None = None,
    cache_batch_idx: Tensor | None = None,
    cache_leftpad: Tensor | None = None,
    page_table: Tensor | None = None,
    cu_seqlens_q: Tensor | None = None,
    cu_seqlens_k_new: Tensor | None = None,
    max_seqlen_q: int | None = None,
    rotary_seqlens: Tensor | None = None,
    q_descale: Tensor | None = None,
    k_descale: Tensor | None = None,
    v_descale: Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    attention_chunk: int = 0,
    softcap: float = 0.0,
    rotary_interleaved: bool = True,
    scheduler_metadata: Tensor | None = None,
    num_splits: int = 0,
    pack_gqa: bool | None = None,
    sm_margin: int = 0,
    return_softmax_lse: bool = False,
) -> Output:
    """Decoding: append new keys and values to a cache in place, then attend to the whole cache.

    Without backward: differentiating the result raises.

    Args:
        q: ``(batch, seqlen_q, nheads, head_dim)``, or with ``cu_seqlens_q`` ``(total_q, nheads, head_dim)``.
        k_cache: ``(batch_cache, seqlen_cache, nheads_k, head_dim)``, or with ``page_table`` pages
            ``(num_pages, page_size, nheads_k, head_dim)`` of any page size; in the dtype of q or in fp8. Changes in
            place.
        v_cache: like k_cache, of head dim head_dim_v. Changes in place.
        k: keys to append at ``cache_seqlens``, ``(batch, seqlen_new, nheads_k, head_dim)``, or with
            ``cu_seqlens_k_new`` ``(total_new, nheads_k, head_dim)``. In the dtype of the cache, or in that of q where
            that is not fp8: an fp8 cache then takes ``k / k_descale``, limited to its range.
        v: values to append, like k, of head dim head_dim_v.
        qv: laid out as q with head_dim_v: scores are ``q.k + qv.v``. Not where q is fp8.
        rotary_cos: ``(seqlen_ro, rotary_dim / 2)`` in the dtype of q: rotates k at its position, and q at the
            position of the first new token plus ``i`` under a causal, local or chunked mask, else at that position.
            Only with k and v, and not where q or k is fp8.
        rotary_sin: like rotary_cos.
        cache_seqlens: tokens that each sequence has in the cache: an int, or int32 ``(batch,)``; by default the whole
            cache.
        cache_batch_idx: int32 ``(batch,)``: the cache row of each sequence; by default its own number.
        cache_leftpad: int32 ``(batch,)``: the first row of the cache that counts; 0 by default.
        page_table: int32 ``(batch, max_pages)``: the pages of each sequence. Messages call it block_table.
        cu_seqlens_q: int32 ``(batch + 1,)``: where each sequence's queries begin in a ragged q.
        cu_seqlens_k_new: int32 ``(batch + 1,)``: where each sequence's new keys begin in a ragged k.
        max_seqlen_q: length of the longest sequence of a ragged q, or more; total_q by default.
        rotary_seqlens: int32 ``(batch,)``: position of the first new token, in place of ``cache_seqlens``.
        q_descale, k_descale, v_descale, softmax_scale, causal, window_size, attention_chunk, softcap, num_splits,
            pack_gqa, sm_margin: as in :func:`flash_attn_func`; key positions count from cache_leftpad.
        rotary_interleaved: rotate dimensions ``(0, 1), (2, 3), ...`` (GPT-J); else ``(0, rotary_dim / 2), ...``
            (GPT-NeoX).
        scheduler_metadata: what :func:`get_scheduler_metadata` returned; a hint without effect.
        return_softmax_lse: also return the log-sum-exp.

    Returns:
        ``out``, laid out as q with head_dim_v, or ``(out, softmax_lse)`` with ``softmax_lse`` fp32
        ``(batch, nheads, seqlen_q)`` or ``(nheads, total_q)``.

    Raises:
        TypeError, ValueError, flash_attn.UnsupportedError: as :func:`flash_attn_func`.
    """
    _check_hints(pack_gqa, sm_margin, scheduler_metadata)
    if cu_seqlens_q is not None and max_seqlen_q is None:
        check_tensor("q", q)
        max_seqlen_q = q.shape[0]
    result = decode(
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
        page_table,
        None,
        None,
        softmax_scale,
        causal,
        window_size,
        softcap,
        rotary_interleaved,
        num_splits,
        q_descale,
        k_descale,
        v_descale,
        qv,
        cu_seqlens_q,
        0 if cu_seqlens_q is None or max_seqlen_q is None else host_int("max_seqlen_q", max_seqlen_q),
        cu_seqlens_k_new,
        rotary_seqlens,
        attention_chunk,
    )
    return result if return_softmax_lse else result[0]


def get_scheduler_metadata(
    batch_size: int,
    max_seqlen_q: int,
    max_seqlen_k: int,
    num_heads_q: int,
    num_heads_kv: int,
    headdim: int,
    cache_seqlens: Tensor,
    qkv_dtype: torch.dtype = torch.bfloat16,
    headdim_v: int | None = None,
    cu_seqlens_q: Tensor | None = None,
    cu_seqlens_k_new: Tensor | None = None,
    cache_leftpad: Tensor | None = None,
    page_size: int | None = None,
    max_seqlen_k_new: int = 0,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    attention_chunk: int = 0,
    has_softcap: bool = False,
    num_splits: int = 0,
    pack_gqa: bool | None = None,
    sm_margin: int = 0,
) -> Tensor:
    """A plan for :func:`flash_attn_with_kvcache`, which needs none: an empty int32 tensor on the device of the cache.

    Every backend here plans from what the host knows at the call. The result may be kept in a larger buffer and handed
    over as ``scheduler_metadata``, as engines do that call this ahead of a captured graph.

    Raises:
        TypeError, ValueError: cache_seqlens is not int32 ``(batch_size,)``, or a hint is unsuitable.
    """
    _check_hints(pack_gqa, sm_margin)
    check_index("cache_seqlens", cache_seqlens, cache_seqlens, (batch_size,))
    return cache_seqlens.new_empty(0)


__all__ = [
    "flash_attn_combine",
    "flash_attn_func",
    "flash_attn_qkvpacked_func",
    "flash_attn_varlen_func",
    "flash_attn_with_kvcache",
    "get_scheduler_metadata",
]
