"""The FlashAttention-2 functions, with upstream's names, signatures and defaults.

Two keywords are appended to upstream's: ``num_splits`` and ``learnable_sink``. The private names at the end of
the file are those that other projects import from here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flash_attn import raw_functions as flash_attn_gpu
from flash_attn.compatibility_ops import (
    _flash_attn_backward,
    _flash_attn_forward,
    _flash_attn_varlen_backward,
    _flash_attn_varlen_forward,
)
from flash_attn.custom_ops import attention, decode
from flash_attn.dispatch import requested
from flash_attn.validation import host_int, packed_parts

AttentionOutput = Tensor | tuple[Tensor, Tensor, Tensor]


def _output(result: tuple[Tensor, Tensor, Tensor], return_attn_probs: bool) -> AttentionOutput:
    return result if return_attn_probs else result[0]


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    num_splits: int = 0,
    learnable_sink: Tensor | None = None,
) -> AttentionOutput:
    """Exact attention, ``softmax(q k^T * softmax_scale) v``, in O(seqlen) memory; differentiable.

    Follows FlashAttention-2 (Dao 2023, arXiv 2307.08691). Every row that sees no key gives 0.

    Args:
        q: ``(batch, seqlen_q, nheads, head_dim)``, fp16, bf16, fp32 or fp64; head_dim 1 to 512. Forward only, q, k
            and v may be fp8 (``torch.float8_e4m3fn``, ``e4m3fnuz``, ``e5m2``), and k and v alone may; the output is
            bf16 where q is fp8. :mod:`flash_attn.flash_attn_3_interface` takes scales for them.
        k: ``(batch, seqlen_k, nheads_k, head_dim)``; nheads_k divides nheads, and query head ``h`` reads head
            ``h // (nheads // nheads_k)`` (multi-query and grouped-query attention).
        v: ``(batch, seqlen_k, nheads_k, head_dim_v)``; head_dim_v may differ from head_dim.
        dropout_p: probability of dropping an attention weight, in [0, 1); 0.0 in evaluation. Survivors are
            scaled by ``1 / (1 - dropout_p)``.
        softmax_scale: factor of the logits; ``head_dim ** -0.5`` by default.
        causal: row ``i`` sees key ``j`` only when ``j <= i + seqlen_k - seqlen_q``: the mask is aligned to the
            bottom right, so that the last query sees the last key.
        window_size: ``(left, right)``, inclusive: row ``i`` sees keys ``i + seqlen_k - seqlen_q - left`` to
            ``i + seqlen_k - seqlen_q + right``. -1 leaves a side unbounded; causal sets right to 0.
        softcap: > 0 turns a scaled logit ``s`` into ``softcap * tanh(s / softcap)``; 0.0 is off.
        alibi_slopes: fp32 ``(nheads,)`` or ``(batch, nheads)``: adds ``-slope * |i + seqlen_k - seqlen_q - j|``
            to a logit (Press et al. 2021, arXiv 2108.12409). Receives no gradient.
        deterministic: use a backward whose result does not depend on the order of threads.
        return_attn_probs: also return the log-sum-exp and, with dropout, the probabilities; for tests.
        num_splits: into how many parts the keys are split where rows are few; 0 leaves it to the backend.
        learnable_sink: ``(nheads,)``: one logit a head that takes part in the softmax's denominator and adds
            nothing to the output (attention sink). Differentiable.

    Returns:
        ``out`` ``(batch, seqlen_q, nheads, head_dim_v)``, or ``(out, softmax_lse, S_dmask)`` with
        ``return_attn_probs``: ``softmax_lse`` is the fp32 natural logarithm of the softmax denominator,
        ``(batch, nheads, seqlen_q)``, ``-inf`` for a row that sees no key. ``S_dmask`` holds the
        probabilities ``(batch, nheads, seqlen_q, seqlen_k)``, negative where dropout removed one; it is
        empty without dropout.

    Raises:
        TypeError, ValueError: an argument is unsuitable; the message names it, what came and what is accepted.
        flash_attn.UnsupportedError: no backend, or not the one asked for, supports the request.
    """
    result = attention(
        q,
        k,
        v,
        alibi_slopes=alibi_slopes,
        learnable_sink=learnable_sink,
        dropout_p=dropout_p,
        softmax_scale=softmax_scale,
        causal=causal,
        window_size=window_size,
        softcap=softcap,
        deterministic=deterministic,
        return_attn_probs=return_attn_probs,
        num_splits=num_splits,
    )
    return _output(result, return_attn_probs)


def flash_attn_kvpacked_func(
    q: Tensor,
    kv: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    num_splits: int = 0,
    learnable_sink: Tensor | None = None,
) -> AttentionOutput:
    """:func:`flash_attn_func` on the views of ``kv`` ``(batch, seqlen_k, 2, nheads_k, head_dim)``."""
    k, v = packed_parts("kv", kv, 2)
    return flash_attn_func(
        q,
        k,
        v,
        dropout_p,
        softmax_scale,
        causal,
        window_size,
        softcap,
        alibi_slopes,
        deterministic,
        return_attn_probs,
        num_splits,
        learnable_sink,
    )


def flash_attn_qkvpacked_func(
    qkv: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    num_splits: int = 0,
    learnable_sink: Tensor | None = None,
) -> AttentionOutput:
    """:func:`flash_attn_func` on the views of ``qkv`` ``(batch, seqlen, 3, nheads, head_dim)``."""
    q, k, v = packed_parts("qkv", qkv, 3)
    return flash_attn_func(
        q,
        k,
        v,
        dropout_p,
        softmax_scale,
        causal,
        window_size,
        softcap,
        alibi_slopes,
        deterministic,
        return_attn_probs,
        num_splits,
        learnable_sink,
    )


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: Tensor | None = None,
    num_splits: int = 0,
    learnable_sink: Tensor | None = None,
) -> AttentionOutput:
    """:func:`flash_attn_func` for a batch of sequences of different lengths, packed without padding.

    Args:
        q: ``(total_q, nheads, head_dim)``, the queries of all sequences one after another.
        k: ``(total_k, nheads_k, head_dim)``, or pages ``(num_pages, page_size, nheads_k, head_dim)``.
        v: ``(total_k, nheads_k, head_dim_v)``, or pages like k's.
        cu_seqlens_q: int32 ``(batch + 1,)``: where each sequence's queries begin; 0 first, then cumulative.
        cu_seqlens_k: the same for keys; with pages it still tells the length of each sequence.
        max_seqlen_q: length of the longest sequence of queries, or more.
        max_seqlen_k: length of the longest sequence of keys, or more.
        dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic: as in
            :func:`flash_attn_func`, each sequence by itself.
        return_attn_probs: also return the log-sum-exp and, with dropout, the probabilities; for tests.
        block_table: int32 ``(batch, max_pages)``: the pages that hold each sequence's keys, of any page size.
        num_splits, learnable_sink: as in :func:`flash_attn_func`.

    Returns:
        ``out`` ``(total_q, nheads, head_dim_v)``, or ``(out, softmax_lse, S_dmask)`` as in
        :func:`flash_attn_func`, with ``softmax_lse`` ``(nheads, total_q)`` and ``S_dmask``
        ``(batch, nheads, max_seqlen_q, max_seqlen_k)``. Rows outside of every sequence are 0.

    Raises:
        TypeError, ValueError, flash_attn.UnsupportedError: as :func:`flash_attn_func`.
    """
    result = attention(
        q,
        k,
        v,
        cu_seqlens_q,
        cu_seqlens_k,
        host_int("max_seqlen_q", max_seqlen_q),
        host_int("max_seqlen_k", max_seqlen_k),
        block_table=block_table,
        alibi_slopes=alibi_slopes,
        learnable_sink=learnable_sink,
        dropout_p=dropout_p,
        softmax_scale=softmax_scale,
        causal=causal,
        window_size=window_size,
        softcap=softcap,
        deterministic=deterministic,
        return_attn_probs=return_attn_probs,
        num_splits=num_splits,
    )
    return _output(result, return_attn_probs)


def flash_attn_varlen_kvpacked_func(
    q: Tensor,
    kv: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    num_splits: int = 0,
    learnable_sink: Tensor | None = None,
) -> AttentionOutput:
    """:func:`flash_attn_varlen_func` on the views of ``kv`` ``(total_k, 2, nheads_k, head_dim)``."""
    k, v = packed_parts("kv", kv, 2)
    return flash_attn_varlen_func(
        q,
        k,
        v,
        cu_seqlens_q,
        cu_seqlens_k,
        max_seqlen_q,
        max_seqlen_k,
        dropout_p,
        softmax_scale,
        causal,
        window_size,
        softcap,
        alibi_slopes,
        deterministic,
        return_attn_probs,
        None,
        num_splits,
        learnable_sink,
    )


def flash_attn_varlen_qkvpacked_func(
    qkv: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    num_splits: int = 0,
    learnable_sink: Tensor | None = None,
) -> AttentionOutput:
    """:func:`flash_attn_varlen_func` on the views of ``qkv`` ``(total, 3, nheads, head_dim)``."""
    q, k, v = packed_parts("qkv", qkv, 3)
    return flash_attn_varlen_func(
        q,
        k,
        v,
        cu_seqlens,
        cu_seqlens,
        max_seqlen,
        max_seqlen,
        dropout_p,
        softmax_scale,
        causal,
        window_size,
        softcap,
        alibi_slopes,
        deterministic,
        return_attn_probs,
        None,
        num_splits,
        learnable_sink,
    )


def flash_attn_with_kvcache(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    k: Tensor | None = None,
    v: Tensor | None = None,
    rotary_cos: Tensor | None = None,
    rotary_sin: Tensor | None = None,
    cache_seqlens: int | Tensor | None = None,
    cache_batch_idx: Tensor | None = None,
    cache_leftpad: Tensor | None = None,
    block_table: Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    rotary_interleaved: bool = True,
    alibi_slopes: Tensor | None = None,
    num_splits: int = 0,
    return_softmax_lse: bool = False,
    learnable_sink: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Decoding: append new keys and values to a cache in place, then attend to the whole cache.

    Without backward: differentiating the result raises.

    Args:
        q: ``(batch, seqlen_q, nheads, head_dim)``.
        k_cache: ``(batch_cache, seqlen_cache, nheads_k, head_dim)``, or with ``block_table`` pages
            ``(num_pages, page_size, nheads_k, head_dim)`` of any page size; in the dtype of q or in fp8. Changes in
            place.
        v_cache: like k_cache, of head dim head_dim_v. Changes in place.
        k: ``(batch, seqlen_new, nheads_k, head_dim)``: keys to append at ``cache_seqlens``.
        v: ``(batch, seqlen_new, nheads_k, head_dim_v)``: values to append; given together with k.
        rotary_cos: ``(seqlen_ro, rotary_dim / 2)`` in the dtype of q, seqlen_ro at least the cache's capacity:
            rotates k at its position in the cache, and q at ``cache_seqlens + i`` under a causal or local
            mask, else at ``cache_seqlens``. Only with k and v.
        rotary_sin: like rotary_cos.
        cache_seqlens: tokens that each sequence has in the cache: an int, or int32 ``(batch,)``; by default
            the whole cache.
        cache_batch_idx: int32 ``(batch,)``: the cache row of each sequence; by default its own number.
        cache_leftpad: int32 ``(batch,)``: the first row of the cache that counts; 0 by default.
        block_table: int32 ``(batch, max_pages)``: the pages of each sequence.
        softmax_scale, causal, window_size, softcap, alibi_slopes, num_splits, learnable_sink: as in
            :func:`flash_attn_func`; key positions count from cache_leftpad.
        rotary_interleaved: rotate dimensions ``(0, 1), (2, 3), ...`` (GPT-J); else ``(0, rotary_dim / 2), ...``
            (GPT-NeoX).
        return_softmax_lse: also return the log-sum-exp.

    Returns:
        ``out`` ``(batch, seqlen_q, nheads, head_dim_v)``, or ``(out, softmax_lse)`` with ``softmax_lse`` fp32
        ``(batch, nheads, seqlen_q)``.

    Raises:
        TypeError, ValueError, flash_attn.UnsupportedError: as :func:`flash_attn_func`.
    """
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
        block_table,
        alibi_slopes,
        learnable_sink,
        softmax_scale,
        causal,
        window_size,
        softcap,
        rotary_interleaved,
        num_splits,
    )
    return result if return_softmax_lse else result[0]


def maybe_contiguous(x: Tensor | None) -> Tensor | None:
    """``x`` with a contiguous last dimension; copies only when it has none."""
    return x.contiguous() if x is not None and x.stride(-1) != 1 else x


def round_multiple(x: int, m: int) -> int:
    """``x`` rounded up to a multiple of ``m``."""
    return (x + m - 1) // m * m


def _get_block_size_n(device: torch.device, head_dim: int, is_dropout: bool, is_causal: bool) -> int:
    """Columns over which ``S_dmask`` shares one maximum. Ours is normalised by row, so any number is right."""
    return 64


_torch_custom_op_wrapper = torch.library.custom_op
_torch_register_fake_wrapper = torch.library.register_fake
_wrapped_flash_attn_forward = torch.ops.flash_attn._flash_attn_forward
_wrapped_flash_attn_varlen_forward = torch.ops.flash_attn._flash_attn_varlen_forward
_wrapped_flash_attn_backward = torch.ops.flash_attn._flash_attn_backward
_wrapped_flash_attn_varlen_backward = torch.ops.flash_attn._flash_attn_varlen_backward


def __getattr__(name: str) -> bool:
    # Asked for at each access: a wrong environment variable must not break the import.
    if name != "USE_TRITON_ROCM":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return torch.version.hip is not None and requested() == "triton"


__all__ = [
    "_flash_attn_backward",
    "_flash_attn_forward",
    "_flash_attn_varlen_backward",
    "_flash_attn_varlen_forward",
    "flash_attn_func",
    "flash_attn_gpu",
    "flash_attn_kvpacked_func",
    "flash_attn_qkvpacked_func",
    "flash_attn_varlen_func",
    "flash_attn_varlen_kvpacked_func",
    "flash_attn_varlen_qkvpacked_func",
    "flash_attn_with_kvcache",
]
