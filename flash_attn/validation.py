"""The one place that checks arguments: from what a caller passed to a spec and validated inputs.

Shapes, dtypes and devices are checked for real and for fake tensors, by :mod:`flash_attn.argument_checks`; the values
inside of index tensors are checked by :mod:`flash_attn.value_checks`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flash_attn.argument_checks import (
    check_block_table,
    check_cumulative,
    check_device,
    check_extensions,
    check_index,
    check_key_value,
    check_new_tokens,
    check_not_negative,
    check_rank,
    check_rotary,
    check_shared,
    describe,
    sequences_of,
)
from flash_attn.attention_spec import FP8_DTYPES, AttentionSpec, KVLayout
from flash_attn.backends.base import AttentionInputs, DecodeInputs


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
    q_descale: Tensor | None = None,
    k_descale: Tensor | None = None,
    v_descale: Tensor | None = None,
    qv: Tensor | None = None,
    seqused_q: Tensor | None = None,
    attention_chunk: int = 0,
) -> tuple[AttentionSpec, AttentionInputs]:
    """Check the arguments of an attention call.

    They mean what ``flash_attn.flash_attn_varlen_func`` says of them, and from ``q_descale`` on what
    ``flash_attn.flash_attn_3_interface.flash_attn_varlen_func`` says.
    """
    varlen_q = cu_seqlens_q is not None
    paged = block_table is not None
    varlen_k = cu_seqlens_k is not None and not paged
    if varlen_q != (cu_seqlens_k is not None):
        raise ValueError("cu_seqlens_q, cu_seqlens_k: got only one of them; accepted are both or neither")
    if q.dim() != (3 if varlen_q else 4):
        check_rank("q", q, 3 if varlen_q else 4)
    nheads_q, nheads_k, head_dim, head_dim_v = check_key_value(q, k, v, "k", "v", 3 if varlen_k else 4)
    batch_size = q.shape[0]
    if cu_seqlens_q is not None and cu_seqlens_k is not None:
        batch_size = sequences_of("cu_seqlens_q", cu_seqlens_q)
        check_cumulative("cu_seqlens_q", cu_seqlens_q, q, batch_size)
        check_cumulative("cu_seqlens_k", cu_seqlens_k, q, batch_size)
        check_not_negative("max_seqlen_q", max_seqlen_q)
        check_not_negative("max_seqlen_k", max_seqlen_k)
    else:
        if not paged and k.shape[0] != batch_size:
            raise ValueError(f"k: got batch size {k.shape[0]}; accepted is that of q, {batch_size}")
        max_seqlen_q = q.shape[1]
        max_seqlen_k = k.shape[1] if block_table is None else k.shape[1] * block_table.shape[1]
    if seqused_k is not None:
        check_index("seqused_k", seqused_k, q, (batch_size,))
    if leftpad_k is not None:
        check_index("leftpad_k", leftpad_k, q, (batch_size,))
    if block_table is not None:
        check_block_table(block_table, q, k, batch_size)
    if rng_state is not None:
        check_device("rng_state", rng_state, q)
        if rng_state.dtype != torch.int64 or rng_state.shape != (2,):
            raise ValueError(f"rng_state: got {describe(rng_state)}; accepted is int64 of shape (2,)")
    elif dropout_p > 0:
        raise ValueError(f"rng_state: got None with dropout_p {dropout_p}; accepted is int64 of shape (2,)")
    if not 0.0 <= dropout_p < 1.0:
        raise ValueError(f"dropout_p: got {dropout_p}; accepted is 0 <= dropout_p < 1")
    layout: KVLayout = "paged" if paged else "varlen" if varlen_k else "dense"
    qv_dim = 0 if qv is None else head_dim_v
    scale = check_shared(q, batch_size, alibi_slopes, learnable_sink, softmax_scale, softcap, num_splits, qv_dim)
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
        False,  # has_cache_batch_idx, and what else decoding has
        "attention",
        False,
        0,
        True,
        needs_backward,
        deterministic,
        return_attn_probs and dropout_p > 0,
        num_splits,
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
    plain = q_descale is k_descale is v_descale is qv is seqused_q is None and attention_chunk == 0
    if plain and k.dtype is q.dtype and not (needs_backward and q.dtype in FP8_DTYPES):
        return spec, inputs
    check_extensions(spec, q, k, batch_size, q_descale, k_descale, v_descale, qv, attention_chunk)
    if seqused_q is not None:
        check_index("seqused_q", seqused_q, q, (batch_size,))
    extended = spec._replace(
        kv_dtype=None if k.dtype == q.dtype else k.dtype,
        has_descale=not (q_descale is None and k_descale is None and v_descale is None),
        has_qv=qv is not None,
        has_seqused_q=seqused_q is not None,
        attention_chunk=attention_chunk,
    )
    return extended, inputs._replace(
        q_descale=q_descale, k_descale=k_descale, v_descale=v_descale, qv=qv, seqused_q=seqused_q
    )


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
    q_descale: Tensor | None = None,
    k_descale: Tensor | None = None,
    v_descale: Tensor | None = None,
    qv: Tensor | None = None,
    cu_seqlens_q: Tensor | None = None,
    max_seqlen_q: int = 0,
    cu_seqlens_k_new: Tensor | None = None,
    rotary_seqlens: Tensor | None = None,
    attention_chunk: int = 0,
) -> tuple[AttentionSpec, DecodeInputs]:
    """Check the arguments of ``flash_attn_with_kvcache``.

    They mean what ``flash_attn`` says of them, and from ``q_descale`` on what ``flash_attn.flash_attn_3_interface``
    says.
    """
    ragged = cu_seqlens_q is not None
    check_rank("q", q, 3 if ragged else 4)
    nheads_q, nheads_k, head_dim, head_dim_v = check_key_value(q, k_cache, v_cache, "k_cache", "v_cache", 4)
    if cu_seqlens_q is None:
        batch_size, max_seqlen_q = q.shape[0], q.shape[1]
    else:
        batch_size = sequences_of("cu_seqlens_q", cu_seqlens_q)
        check_cumulative("cu_seqlens_q", cu_seqlens_q, q, batch_size)
        check_not_negative("max_seqlen_q", max_seqlen_q)
    paged = block_table is not None
    if block_table is not None:
        check_block_table(block_table, q, k_cache, batch_size)
        if cache_batch_idx is not None:
            raise ValueError("cache_batch_idx: got a tensor together with block_table; accepted is one of them")
    elif cache_batch_idx is not None:
        check_index("cache_batch_idx", cache_batch_idx, q, (batch_size,))
    elif k_cache.shape[0] != batch_size:
        raise ValueError(
            f"k_cache: got batch size {k_cache.shape[0]}; accepted is that of q, {batch_size}, "
            "unless cache_batch_idx or block_table is given"
        )
    if cache_seqlens is not None:
        check_index("cache_seqlens", cache_seqlens, q, (batch_size,))
    if cache_leftpad is not None:
        check_index("cache_leftpad", cache_leftpad, q, (batch_size,))
    if rotary_seqlens is not None:
        check_index("rotary_seqlens", rotary_seqlens, q, (batch_size,))
    check_new_tokens(q, k_cache, v_cache, k, v, cache_seqlens, cu_seqlens_k_new, batch_size)
    capacity = k_cache.shape[1] * (1 if block_table is None else block_table.shape[1])
    rotary_dim = check_rotary(q, k, rotary_cos, rotary_sin, cache_seqlens, rotary_seqlens, capacity)
    qv_dim = 0 if qv is None else head_dim_v
    scale = check_shared(q, batch_size, alibi_slopes, learnable_sink, softmax_scale, softcap, num_splits, qv_dim)
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
        varlen_q=ragged,
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
        kv_dtype=None if k_cache.dtype == q.dtype else k_cache.dtype,
        has_descale=not (q_descale is None and k_descale is None and v_descale is None),
        has_qv=qv is not None,
        attention_chunk=attention_chunk,
        varlen_new=cu_seqlens_k_new is not None,
        has_rotary_seqlens=rotary_seqlens is not None,
    )
    check_extensions(spec, q, k_cache, batch_size, q_descale, k_descale, v_descale, qv, attention_chunk)
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
        q_descale,
        k_descale,
        v_descale,
        qv,
        cu_seqlens_q,
        max_seqlen_q,
        cu_seqlens_k_new,
        rotary_seqlens,
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
        check_device(name, tensor, q)
        if tensor.shape != shape or tensor.dtype != dtype:
            raise ValueError(f"{name}: got {describe(tensor)}; accepted is {dtype} of shape {shape}")


def check_tensors(q: Any, k: Any, v: Any, name_k: str = "k", name_v: str = "v") -> None:
    """Check that q, k and v are strided tensors with dimensions, before anything is asked of them."""
    tensors = isinstance(q, Tensor) and isinstance(k, Tensor) and isinstance(v, Tensor)
    if tensors and q.dim() > 2 and k.dim() > 2 and v.dim() > 2 and q.layout is k.layout is v.layout is torch.strided:
        return
    for name, value in (("q", q), (name_k, k), (name_v, v)):
        check_tensor(name, value)
        if value.layout is not torch.strided:
            raise TypeError(f"{name}: got layout {value.layout}; accepted is torch.strided")
        if value.dim() < 3:
            check_rank(name, value, 4)


def check_tensor(name: str, value: Any) -> None:
    """Check that an argument is a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: got {type(value).__name__}; accepted is a torch.Tensor")


def host_int(name: str, value: Any) -> int:
    """A length as an int; some callers pass a tensor of one element."""
    if isinstance(value, int | torch.SymInt):
        return int(value)
    holds_one = value.numel() == 1 and not value.is_floating_point() if isinstance(value, Tensor) else True
    if not holds_one or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: got {value!r}; accepted is an int, or a tensor that holds one")
    return int(value)


def window_bounds(window_size: tuple[int, int]) -> tuple[int, int]:
    """``(left, right)`` of a sliding window."""
    accepted = (int, torch.SymInt)
    pair = isinstance(window_size, tuple | list) and len(window_size) == 2
    if not pair or not isinstance(window_size[0], accepted) or not isinstance(window_size[1], accepted):
        raise ValueError(f"window_size: got {window_size}; accepted is a pair of ints (left, right), -1 for no bound")
    return window_size


def check_buffer(name: str, buffer: Tensor | None, like: Tensor) -> None:
    """Check a buffer that a caller gave for a result with the shape, dtype and device of ``like``."""
    if buffer is None:
        return
    check_tensor(name, buffer)
    check_device(name, buffer, like)
    if buffer.shape != like.shape or buffer.dtype != like.dtype:
        raise ValueError(f"{name}: got {describe(buffer)}; accepted is {describe(like)}")


def packed_parts(name: str, packed: Tensor, parts: int) -> tuple[Tensor, ...]:
    """Views of ``(..., parts, nheads, head_dim)`` along its third last dimension."""
    check_tensor(name, packed)
    if packed.dim() not in (4, 5) or packed.shape[-3] != parts:
        raise ValueError(
            f"{name}: got shape {tuple(packed.shape)}; accepted is (batch, seqlen, {parts}, nheads, head_dim) "
            f"or (total, {parts}, nheads, head_dim)"
        )
    return packed.unbind(-3)


def _window(causal: bool, left: int, right: int) -> tuple[int, int]:
    """Window bounds of a spec: -1 for any negative bound, and 0 to the right under a causal mask."""
    return int(left) if left >= 0 else -1, 0 if causal else int(right) if right >= 0 else -1
