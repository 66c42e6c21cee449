"""Upstream's extension interface: ``fwd``, ``varlen_fwd``, ``bwd``, ``varlen_bwd`` and ``fwd_kvcache``.

xformers, TransformerEngine and unsloth call these by position, as ``flash_attn_interface.flash_attn_gpu`` or as
the module ``flash_attn_2_cuda``. Arguments mean what the functions of ``flash_attn.flash_attn_interface`` say
of them; those that upstream added over time are optional. ``__backend__`` is the backend that answers here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flash_attn import dispatch
from flash_attn.attention_spec import AttentionSpec
from flash_attn.compatibility_ops import (
    _flash_attn_backward,
    _flash_attn_forward,
    _flash_attn_varlen_backward,
    _flash_attn_varlen_forward,
)
from flash_attn.custom_ops import decode
from flash_attn.validation import check_buffer, check_tensors


def _refuse_generator(gen: torch.Generator | None) -> None:
    if gen is not None:
        raise ValueError("gen: got a generator; accepted is None (the default generator of the device is used)")


def _into(out: Tensor | None, result: Tensor) -> Tensor:
    """``result``, written into the caller's buffer when there is one."""
    check_buffer("out", out, result)
    return result if out is None else out.copy_(result)


def fwd(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor | None,
    alibi_slopes: Tensor | None,
    dropout_p: float,
    softmax_scale: float,
    causal: bool,
    window_size_left: int,
    window_size_right: int,
    softcap: float = 0.0,
    return_softmax: bool = False,
    gen: torch.Generator | None = None,
) -> list[Tensor]:
    """Dense forward: ``[out, softmax_lse, S_dmask, rng_state]``."""
    _refuse_generator(gen)
    with torch.no_grad():
        result, *rest = _flash_attn_forward(
            q,
            k,
            v,
            dropout_p,
            softmax_scale,
            causal,
            window_size_left,
            window_size_right,
            softcap,
            alibi_slopes,
            return_softmax,
        )
        return [_into(out, result), *rest]


def varlen_fwd(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor | None,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    seqused_k: Tensor | None,
    leftpad_k: Tensor | None,
    block_table: Tensor | None,
    alibi_slopes: Tensor | None,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float,
    softmax_scale: float,
    zero_tensors: bool,
    causal: bool,
    window_size_left: int,
    window_size_right: int,
    softcap: float = 0.0,
    return_softmax: bool = False,
    gen: torch.Generator | None = None,
    num_splits: int = 0,
) -> list[Tensor]:
    """Varlen forward: ``[out, softmax_lse, S_dmask, rng_state]``."""
    _refuse_generator(gen)
    with torch.no_grad():
        result, *rest = _flash_attn_varlen_forward(
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
            window_size_left,
            window_size_right,
            softcap,
            alibi_slopes,
            return_softmax,
            block_table,
            leftpad_k,
            seqused_k,
            zero_tensors,
            num_splits,
        )
        return [_into(out, result), *rest]


def bwd(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    softmax_lse: Tensor,
    dq: Tensor | None,
    dk: Tensor | None,
    dv: Tensor | None,
    alibi_slopes: Tensor | None,
    dropout_p: float,
    softmax_scale: float,
    causal: bool,
    window_size_left: int,
    window_size_right: int,
    softcap: float = 0.0,
    deterministic: bool = False,
    gen: torch.Generator | None = None,
    rng_state: Tensor | None = None,
) -> list[Tensor]:
    """Dense backward: ``[dq, dk, dv, softmax_d]``; given buffers are written in place."""
    _refuse_generator(gen)
    check_tensors(q, k, v)
    dq, dk, dv = (y.new_empty(y.shape) if x is None else x for x, y in ((dq, q), (dk, k), (dv, v)))
    softmax_d = _flash_attn_backward(
        dout,
        q,
        k,
        v,
        out,
        softmax_lse,
        dq,
        dk,
        dv,
        dropout_p,
        softmax_scale,
        causal,
        window_size_left,
        window_size_right,
        softcap,
        alibi_slopes,
        deterministic,
        rng_state,
    )
    return [dq, dk, dv, softmax_d]


def varlen_bwd(
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
    alibi_slopes: Tensor | None,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float,
    softmax_scale: float,
    zero_tensors: bool,
    causal: bool,
    window_size_left: int,
    window_size_right: int,
    softcap: float = 0.0,
    deterministic: bool = False,
    gen: torch.Generator | None = None,
    rng_state: Tensor | None = None,
) -> list[Tensor]:
    """Varlen backward: ``[dq, dk, dv, softmax_d]``; given buffers are written in place."""
    _refuse_generator(gen)
    check_tensors(q, k, v)
    dq, dk, dv = (y.new_empty(y.shape) if x is None else x for x, y in ((dq, q), (dk, k), (dv, v)))
    softmax_d = _flash_attn_varlen_backward(
        dout,
        q,
        k,
        v,
        out,
        softmax_lse,
        dq,
        dk,
        dv,
        cu_seqlens_q,
        cu_seqlens_k,
        max_seqlen_q,
        max_seqlen_k,
        dropout_p,
        softmax_scale,
        causal,
        window_size_left,
        window_size_right,
        softcap,
        alibi_slopes,
        deterministic,
        rng_state,
        zero_tensors,
    )
    return [dq, dk, dv, softmax_d]


def fwd_kvcache(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    k: Tensor | None,
    v: Tensor | None,
    seqlens_k: Tensor | None,
    rotary_cos: Tensor | None,
    rotary_sin: Tensor | None,
    cache_batch_idx: Tensor | None,
    leftpad_k: Tensor | None,
    block_table: Tensor | None,
    alibi_slopes: Tensor | None,
    out: Tensor | None,
    softmax_scale: float,
    causal: bool,
    window_size_left: int,
    window_size_right: int,
    softcap: float = 0.0,
    is_rotary_interleaved: bool = True,
    num_splits: int = 0,
) -> list[Tensor]:
    """Decoding over a KV cache: ``[out, softmax_lse]``."""
    with torch.no_grad():
        result, softmax_lse = decode(
            q,
            k_cache,
            v_cache,
            k,
            v,
            rotary_cos,
            rotary_sin,
            seqlens_k,
            cache_batch_idx,
            leftpad_k,
            block_table,
            alibi_slopes,
            None,
            softmax_scale,
            causal,
            (window_size_left, window_size_right),
            softcap,
            is_rotary_interleaved,
            num_splits,
        )
        return [_into(out, result), softmax_lse]


def __getattr__(name: str) -> str:
    if name != "__backend__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    device = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")
    plain = AttentionSpec(torch.bfloat16, 1, 1, 64, 64, 0.125)
    return dispatch.select(plain, device, dispatch.requested()).name
