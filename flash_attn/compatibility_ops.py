"""Upstream's private functions and their ``torch.ops.flash_attn._flash_attn_*`` operators.

ring-flash-attention, TransformerEngine and diffusers call these. Each is a view of the operators of
:mod:`flash_attn.custom_ops`; a compiler sees those.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flash_attn.backends.dropout import new_rng_state
from flash_attn.custom_ops import attention, attention_backward
from flash_attn.validation import check_buffer, check_tensors


def _rng_state(q: Tensor, k: Tensor, v: Tensor, dropout_p: float) -> Tensor:
    """The state that the forward draws, or zeros when nothing is drawn."""
    check_tensors(q, k, v)
    return new_rng_state(q.device) if dropout_p != 0 else torch.zeros(2, dtype=torch.int64, device=q.device)


def _flash_attn_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float,
    softmax_scale: float,
    causal: bool,
    window_size_left: int,
    window_size_right: int,
    softcap: float,
    alibi_slopes: Tensor | None,
    return_softmax: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Dense forward: ``(out, softmax_lse, S_dmask, rng_state)``; arguments as :func:`flash_attn.flash_attn_func`.

    ``S_dmask`` is empty unless ``return_softmax`` and ``dropout_p > 0``.
    """
    rng_state = _rng_state(q, k, v, dropout_p)
    out, softmax_lse, probs = attention(
        q,
        k,
        v,
        alibi_slopes=alibi_slopes,
        rng_state=rng_state,
        dropout_p=dropout_p,
        softmax_scale=softmax_scale,
        causal=causal,
        window_size=(window_size_left, window_size_right),
        softcap=softcap,
        return_attn_probs=return_softmax,
    )
    return out, softmax_lse, probs, rng_state


def _flash_attn_varlen_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float,
    softmax_scale: float,
    causal: bool,
    window_size_left: int = -1,
    window_size_right: int = -1,
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    return_softmax: bool = False,
    block_table: Tensor | None = None,
    leftpad_k: Tensor | None = None,
    seqused_k: Tensor | None = None,
    zero_tensors: bool = False,
    num_splits: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Varlen forward: ``(out, softmax_lse, S_dmask, rng_state)``, as :func:`flash_attn.flash_attn_varlen_func`.

    ``leftpad_k`` and ``seqused_k`` are int32 ``(batch,)``: rows of a sequence's keys that are skipped at its
    beginning, and the number of its rows that count. ``zero_tensors`` changes nothing: rows outside of every
    sequence are always 0.
    """
    rng_state = _rng_state(q, k, v, dropout_p)
    out, softmax_lse, probs = attention(
        q,
        k,
        v,
        cu_seqlens_q,
        cu_seqlens_k,
        max_seqlen_q,
        max_seqlen_k,
        seqused_k=seqused_k,
        leftpad_k=leftpad_k,
        block_table=block_table,
        alibi_slopes=alibi_slopes,
        rng_state=rng_state,
        dropout_p=dropout_p,
        softmax_scale=softmax_scale,
        causal=causal,
        window_size=(window_size_left, window_size_right),
        softcap=softcap,
        return_attn_probs=return_softmax,
        num_splits=num_splits,
    )
    return out, softmax_lse, probs, rng_state


def _flash_attn_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    softmax_lse: Tensor,
    dq: Tensor | None,
    dk: Tensor | None,
    dv: Tensor | None,
    dropout_p: float,
    softmax_scale: float,
    causal: bool,
    window_size_left: int,
    window_size_right: int,
    softcap: float,
    alibi_slopes: Tensor | None,
    deterministic: bool,
    rng_state: Tensor | None = None,
) -> Tensor:
    """Dense backward: writes ``dq``, ``dk``, ``dv`` in place and returns ``softmax_d``, fp32 like ``softmax_lse``."""
    _check_buffers((dq, dk, dv), (q, k, v))
    dq_new, dk_new, dv_new, softmax_d = attention_backward(
        dout,
        out,
        softmax_lse,
        q,
        k,
        v,
        alibi_slopes=alibi_slopes,
        rng_state=rng_state,
        dropout_p=dropout_p,
        softmax_scale=softmax_scale,
        causal=causal,
        window_size=(window_size_left, window_size_right),
        softcap=softcap,
        deterministic=deterministic,
    )
    _write((dq, dk, dv), (dq_new, dk_new, dv_new))
    return softmax_d


def _flash_attn_varlen_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    softmax_lse: Tensor,
    dq: Tensor | None,
    dk: Tensor | None,
    dv: Tensor | None,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float,
    softmax_scale: float,
    causal: bool,
    window_size_left: int,
    window_size_right: int,
    softcap: float,
    alibi_slopes: Tensor | None,
    deterministic: bool,
    rng_state: Tensor | None = None,
    zero_tensors: bool = False,
) -> Tensor:
    """Varlen backward: writes ``dq``, ``dk``, ``dv`` in place and returns ``softmax_d``, fp32 ``(nheads, total_q)``."""
    _check_buffers((dq, dk, dv), (q, k, v))
    dq_new, dk_new, dv_new, softmax_d = attention_backward(
        dout,
        out,
        softmax_lse,
        q,
        k,
        v,
        cu_seqlens_q,
        cu_seqlens_k,
        max_seqlen_q,
        max_seqlen_k,
        alibi_slopes=alibi_slopes,
        rng_state=rng_state,
        dropout_p=dropout_p,
        softmax_scale=softmax_scale,
        causal=causal,
        window_size=(window_size_left, window_size_right),
        softcap=softcap,
        deterministic=deterministic,
    )
    _write((dq, dk, dv), (dq_new, dk_new, dv_new))
    return softmax_d


def _check_buffers(buffers: tuple[Tensor | None, ...], inputs: tuple[Tensor, ...]) -> None:
    for name, buffer, like in zip(("dq", "dk", "dv"), buffers, inputs, strict=True):
        check_buffer(name, buffer, like)


def _write(targets: tuple[Tensor | None, ...], values: tuple[Tensor, ...]) -> None:
    """Copy gradients into the buffers that a caller gave."""
    for target, value in zip(targets, values, strict=True):
        if target is not None:
            target.copy_(value)


_SIDE = "Tensor q, Tensor k, Tensor v"
_MASK = "float softmax_scale, bool causal, SymInt window_size_left, SymInt window_size_right, float softcap"
_VARLEN = "Tensor cu_seqlens_q, Tensor cu_seqlens_k, SymInt max_seqlen_q, SymInt max_seqlen_k"
_GRADS = "Tensor(a!)? dq, Tensor(b!)? dk, Tensor(c!)? dv"
_VARLEN_MASK = (
    "float softmax_scale, bool causal, SymInt window_size_left=-1, SymInt window_size_right=-1, float softcap=0.0"
)
_SCHEMAS = {
    _flash_attn_forward: (
        f"({_SIDE}, float dropout_p, {_MASK}, Tensor? alibi_slopes, bool return_softmax) "
        "-> (Tensor, Tensor, Tensor, Tensor)"
    ),
    _flash_attn_varlen_forward: (
        f"({_SIDE}, {_VARLEN}, float dropout_p, {_VARLEN_MASK}, Tensor? alibi_slopes=None, "
        "bool return_softmax=False, Tensor? block_table=None, Tensor? leftpad_k=None, Tensor? seqused_k=None, "
        "bool zero_tensors=False, int num_splits=0) -> (Tensor, Tensor, Tensor, Tensor)"
    ),
    _flash_attn_backward: (
        f"(Tensor dout, {_SIDE}, Tensor out, Tensor softmax_lse, {_GRADS}, float dropout_p, {_MASK}, "
        "Tensor? alibi_slopes, bool deterministic, Tensor? rng_state=None) -> Tensor"
    ),
    _flash_attn_varlen_backward: (
        f"(Tensor dout, {_SIDE}, Tensor out, Tensor softmax_lse, {_GRADS}, {_VARLEN}, float dropout_p, {_MASK}, "
        "Tensor? alibi_slopes, bool deterministic, Tensor? rng_state=None, bool zero_tensors=False) -> Tensor"
    ),
}
_LIBRARY = torch.library.Library("flash_attn", "FRAGMENT")
for _function, _schema in _SCHEMAS.items():
    _LIBRARY.define(_function.__name__ + _schema)
    _LIBRARY.impl(_function.__name__, _function, "CompositeImplicitAutograd")
