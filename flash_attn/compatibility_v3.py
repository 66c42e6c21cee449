"""FlashAttention-3's private functions, which TransformerEngine and Megatron-LM call.

Each is a view of the operators of :mod:`flash_attn.custom_ops`. Arguments mean what
:mod:`flash_attn.flash_attn_3_interface` says of them.
"""

from __future__ import annotations

from torch import Tensor

from flash_attn.custom_ops import attention, attention_backward, decode
from flash_attn.validation import check_buffer


def _flash_attn_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_new: Tensor | None = None,
    v_new: Tensor | None = None,
    qv: Tensor | None = None,
    out_: Tensor | None = None,
    cu_seqlens_q: Tensor | None = None,
    cu_seqlens_k: Tensor | None = None,
    cu_seqlens_k_new: Tensor | None = None,
    seqused_q: Tensor | None = None,
    seqused_k: Tensor | None = None,
    max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None,
    page_table: Tensor | None = None,
    kv_batch_idx: Tensor | None = None,
    leftpad_k: Tensor | None = None,
    rotary_cos: Tensor | None = None,
    rotary_sin: Tensor | None = None,
    seqlens_rotary: Tensor | None = None,
    q_descale: Tensor | None = None,
    k_descale: Tensor | None = None,
    v_descale: Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size_left: int = -1,
    window_size_right: int = -1,
    attention_chunk: int = 0,
    softcap: float = 0.0,
    rotary_interleaved: bool = True,
    scheduler_metadata: Tensor | None = None,
    num_splits: int = 1,
    pack_gqa: bool | None = None,
    sm_margin: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``(out, softmax_lse, out_accum, softmax_lse_accum)``; the last two, upstream's workspaces, are empty.

    k and v are a cache where they have no ``cu_seqlens_k`` and something is given that only decoding has: new tokens,
    ``kv_batch_idx``, ``page_table``, ``seqused_k`` or ``cu_seqlens_q``.
    """
    caching = (k_new, v_new, kv_batch_idx, page_table, seqused_k, cu_seqlens_q, cu_seqlens_k_new, rotary_cos)
    decodes = cu_seqlens_k is None and any(x is not None for x in caching)
    if cu_seqlens_k is not None and any(x is not None for x in (k_new, v_new, kv_batch_idx, rotary_cos)):
        raise ValueError(
            "cu_seqlens_k: got a tensor with k_new, v_new, kv_batch_idx or rotary_cos; accepted is None with a cache"
        )
    window_size = (window_size_left, window_size_right)
    if decodes:
        if seqused_q is not None:
            raise ValueError("seqused_q: got a tensor with a cache; accepted is None, or q by cu_seqlens_q")
        total_q = 0 if cu_seqlens_q is None else q.shape[0]
        out, softmax_lse = decode(
            q,
            k,
            v,
            k_new,
            v_new,
            rotary_cos,
            rotary_sin,
            seqused_k,
            kv_batch_idx,
            leftpad_k,
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
            total_q if max_seqlen_q is None or cu_seqlens_q is None else max_seqlen_q,
            cu_seqlens_k_new,
            seqlens_rotary,
            attention_chunk,
        )
    else:
        out, softmax_lse, _ = attention(
            q,
            k,
            v,
            cu_seqlens_q,
            cu_seqlens_k,
            max_seqlen_q or 0,
            max_seqlen_k or 0,
            seqused_k,
            leftpad_k,
            page_table,
            softmax_scale=softmax_scale,
            causal=causal,
            window_size=window_size,
            softcap=softcap,
            num_splits=num_splits,
            q_descale=q_descale,
            k_descale=k_descale,
            v_descale=v_descale,
            qv=qv,
            seqused_q=seqused_q,
            attention_chunk=attention_chunk,
        )
    check_buffer("out_", out_, out)
    if out_ is not None:
        out = out_.copy_(out)
    return out, softmax_lse, out.new_empty(0), softmax_lse.new_empty(0)


def _flash_attn_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    softmax_lse: Tensor,
    cu_seqlens_q: Tensor | None = None,
    cu_seqlens_k: Tensor | None = None,
    sequed_q: Tensor | None = None,
    sequed_k: Tensor | None = None,
    max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None,
    dq: Tensor | None = None,
    dk: Tensor | None = None,
    dv: Tensor | None = None,
    softmax_scale: float | None = None,
    is_causal: bool = False,
    window_size_left: int = -1,
    window_size_right: int = -1,
    softcap: float = 0.0,
    deterministic: bool = False,
    sm_margin: int = 0,
) -> Tensor:
    """Writes ``dq``, ``dk``, ``dv`` in place where they are given and returns ``softmax_d``, fp32 like softmax_lse."""
    buffers = (("dq", dq, q), ("dk", dk, k), ("dv", dv, v))
    for name, buffer, like in buffers:
        check_buffer(name, buffer, like)
    *gradients, softmax_d = attention_backward(
        dout,
        out,
        softmax_lse,
        q,
        k,
        v,
        cu_seqlens_q,
        cu_seqlens_k,
        max_seqlen_q or 0,
        max_seqlen_k or 0,
        softmax_scale=softmax_scale,
        causal=is_causal,
        window_size=(window_size_left, window_size_right),
        softcap=softcap,
        deterministic=deterministic,
        seqused_q=sequed_q,
        seqused_k=sequed_k,
    )
    for (_, buffer, _), gradient in zip(buffers, gradients, strict=True):
        if buffer is not None:
            buffer.copy_(gradient)
    return softmax_d
