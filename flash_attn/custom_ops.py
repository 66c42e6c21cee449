"""The torch.library operators ``flash_attn::forward``, ``forward_extended``, ``backward`` and ``with_kvcache``.

``forward_extended`` is ``forward`` with the arguments that FlashAttention-3 adds: an operator pays for each argument of
its schema at every call, given or not.

The operators validate, choose the backend and call it, so that every way in (the public functions, the
private names, ``torch.ops``, a compiled graph) is checked by the same code. Autocast does not touch them:
as upstream's, they compute in the dtype of their inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from flash_attn import dispatch
from flash_attn.argument_checks import sequences_of
from flash_attn.attention_spec import AttentionSpec
from flash_attn.autograd import (
    BACKEND,
    EagerAttention,
    RefuseBackward,
    TransformedAttention,
    fold_qv,
    gradients,
    last_dim_contiguous,
    no_second_backward,
    refuse_tangents,
    save_for_backward,
    vmap_backward,
    vmap_forward,
)
from flash_attn.backends.base import AttentionInputs, DecodeInputs, ForwardResult
from flash_attn.backends.dropout import new_rng_state
from flash_attn.validation import (
    attention_request,
    check_backward,
    check_tensor,
    check_tensors,
    decode_request,
    window_bounds,
)
from flash_attn.value_checks import check_attention_values, check_decode_values

_REQUEST = (
    "Tensor q, Tensor k, Tensor v, Tensor? cu_seqlens_q, Tensor? cu_seqlens_k, "
    "SymInt max_seqlen_q, SymInt max_seqlen_k, Tensor? seqused_k, Tensor? leftpad_k, Tensor? block_table, "
    "Tensor? alibi_slopes, Tensor? learnable_sink, Tensor? rng_state, float dropout_p, float? softmax_scale, "
    "bool causal, SymInt window_size_left, SymInt window_size_right, float softcap, bool deterministic, "
    "bool return_attn_probs, int num_splits, bool needs_backward, str backend"
)
_EXTENDED = (
    f"{_REQUEST}, Tensor? q_descale=None, Tensor? k_descale=None, Tensor? v_descale=None, Tensor? qv=None, "
    "Tensor? seqused_q=None, int attention_chunk=0"
)
_LIBRARY = torch.library.Library("flash_attn", "FRAGMENT")
for _name, _schema in (("forward", _REQUEST), ("forward_extended", _EXTENDED)):
    _LIBRARY.define(f"{_name}({_schema}) -> (Tensor out, Tensor softmax_lse, Tensor attn_probs)")
_LIBRARY.define(
    f"backward(Tensor dout, Tensor? dlse, Tensor out, Tensor softmax_lse, {_EXTENDED}) "
    "-> (Tensor dq, Tensor dk, Tensor dv, Tensor softmax_d)"
)
_LIBRARY.define(
    "with_kvcache(Tensor q, Tensor(a!) k_cache, Tensor(b!) v_cache, Tensor? k, Tensor? v, Tensor? rotary_cos, "
    "Tensor? rotary_sin, Tensor? cache_seqlens, Tensor? cache_batch_idx, Tensor? cache_leftpad, "
    "Tensor? block_table, Tensor? alibi_slopes, Tensor? learnable_sink, float? softmax_scale, bool causal, "
    "SymInt window_size_left, SymInt window_size_right, float softcap, bool rotary_interleaved, "
    "int num_splits, str backend, Tensor? q_descale=None, Tensor? k_descale=None, Tensor? v_descale=None, "
    "Tensor? qv=None, Tensor? cu_seqlens_q=None, SymInt max_seqlen_q=0, Tensor? cu_seqlens_k_new=None, "
    "Tensor? rotary_seqlens=None, int attention_chunk=0) -> (Tensor out, Tensor softmax_lse)"
)
_FORWARD = torch.ops.flash_attn.forward.default
_DECODE_BACKEND = 20
"""Position of ``backend`` in a decoding request. What follows may be missing: the dispatcher drops defaults."""


def _attention_request(request: tuple[Any, ...]) -> tuple[AttentionSpec, AttentionInputs]:
    return attention_request(*request[:BACKEND], *request[BACKEND + 1 :])


def _decode_request(request: tuple[Any, ...]) -> tuple[AttentionSpec, DecodeInputs]:
    return decode_request(*request[:_DECODE_BACKEND], *request[_DECODE_BACKEND + 1 :])


def _forward(*request: Any) -> tuple[Tensor, Tensor, Tensor]:
    plain = len(request) == BACKEND + 1
    spec, inputs = attention_request(*request[:-1]) if plain else _attention_request(request)
    check_attention_values(inputs)
    chosen = dispatch.select(spec, inputs.q.device, request[BACKEND] or dispatch.requested())
    result = chosen.forward(spec, inputs)
    probs = result.out.new_empty(0) if result.attn_probs is None else result.attn_probs
    return result.out, result.softmax_lse, probs


def _backward(
    dout: Tensor, dlse: Tensor | None, out: Tensor, softmax_lse: Tensor, *request: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    spec, inputs = _attention_request(request)
    check_attention_values(inputs)
    check_backward(spec, inputs, dout, dlse, out, softmax_lse)
    chosen = dispatch.select(spec, inputs.q.device, request[BACKEND] or dispatch.requested())
    return chosen.backward(spec, inputs, ForwardResult(out, softmax_lse), dout, dlse)


def _with_kvcache(*request: Any) -> tuple[Tensor, Tensor]:
    spec, inputs = _decode_request(request)
    check_decode_values(inputs)
    chosen = dispatch.select(spec, inputs.q.device, request[_DECODE_BACKEND] or dispatch.requested())
    result = chosen.decode(spec, inputs)
    return result.out, result.softmax_lse


def _lse_shape(spec: AttentionSpec, q: Tensor) -> tuple[int, ...]:
    return (q.shape[1], q.shape[0]) if spec.varlen_q else (q.shape[0], q.shape[2], q.shape[1])


def _fake_outputs(spec: AttentionSpec, q: Tensor) -> tuple[Tensor, Tensor]:
    out = q.new_empty((*q.shape[:-1], spec.head_dim_v), dtype=spec.out_dtype)
    return out, q.new_empty(_lse_shape(spec, q), dtype=torch.float32)


def _fake_forward(*request: Any) -> tuple[Tensor, Tensor, Tensor]:
    spec, inputs = _attention_request(request)
    probs_shape: tuple[int, ...] = (0,)
    if spec.return_attn_probs:
        probs_shape = (inputs.batch_size, spec.nheads_q, inputs.max_seqlen_q, inputs.max_seqlen_k)
    return *_fake_outputs(spec, inputs.q), inputs.q.new_empty(probs_shape, dtype=spec.out_dtype)


def _fake_backward(
    dout: Tensor, dlse: Tensor | None, out: Tensor, softmax_lse: Tensor, *request: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    spec, inputs = _attention_request(request)
    check_backward(spec, inputs, dout, dlse, out, softmax_lse)
    dq, dk, dv = (x.new_empty(x.shape) for x in (inputs.q, inputs.k, inputs.v))
    return dq, dk, dv, softmax_lse.new_empty(softmax_lse.shape)


def _fake_with_kvcache(*request: Any) -> tuple[Tensor, Tensor]:
    spec, inputs = _decode_request(request)
    return _fake_outputs(spec, inputs.q)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor | None = None,
    cu_seqlens_k: Tensor | None = None,
    max_seqlen_q: int = 0,
    max_seqlen_k: int = 0,
    seqused_k: Tensor | None = None,
    leftpad_k: Tensor | None = None,
    block_table: Tensor | None = None,
    alibi_slopes: Tensor | None = None,
    learnable_sink: Tensor | None = None,
    rng_state: Tensor | None = None,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    num_splits: int = 0,
    q_descale: Tensor | None = None,
    k_descale: Tensor | None = None,
    v_descale: Tensor | None = None,
    qv: Tensor | None = None,
    seqused_q: Tensor | None = None,
    attention_chunk: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Differentiable attention: ``(out, softmax_lse, attn_probs)``.

    Arguments mean what :func:`flash_attn.flash_attn_varlen_func` says of them; without ``cu_seqlens`` they are
    those of :func:`flash_attn.flash_attn_func`. ``rng_state`` is drawn when dropout needs one and none is given.
    The last six are those of :func:`flash_attn.flash_attn_3_interface.flash_attn_varlen_func`.
    """
    check_tensors(q, k, v)
    if qv is not None:
        check_tensor("qv", qv)
    if q.stride(-1) != 1 or k.stride(-1) != 1 or v.stride(-1) != 1:
        q, k, v = last_dim_contiguous(q), last_dim_contiguous(k), last_dim_contiguous(v)
    needs_grad = torch.is_grad_enabled() and (
        q.requires_grad
        or k.requires_grad
        or v.requires_grad
        or (isinstance(learnable_sink, Tensor) and learnable_sink.requires_grad)
        or (qv is not None and qv.requires_grad)
    )
    if qv is not None and needs_grad:
        q, k, softmax_scale = fold_qv(q, k, v, qv, softmax_scale)
        qv = None
    if dropout_p != 0 and rng_state is None:  # what is no number is refused by the operator, which names it
        rng_state = new_rng_state(q.device)
    window_left, window_right = window_bounds(window_size)
    request: tuple[Any, ...] = (
        q,
        k,
        v,
        cu_seqlens_q,
        cu_seqlens_k,
        max_seqlen_q,
        max_seqlen_k,
        seqused_k,
        leftpad_k,
        block_table,
        alibi_slopes,
        learnable_sink,
        rng_state,
        dropout_p,
        softmax_scale,
        causal,
        window_left,
        window_right,
        softcap,
        deterministic,
        return_attn_probs,
        num_splits,
        needs_grad,
        dispatch.requested(),
    )
    operator = _FORWARD
    if not (q_descale is k_descale is v_descale is qv is seqused_q is None and attention_chunk == 0):
        operator = torch.ops.flash_attn.forward_extended.default
        qv = None if qv is None else last_dim_contiguous(qv)
        request += (q_descale, k_descale, v_descale, qv, seqused_q, attention_chunk)
    output: tuple[Tensor, Tensor, Tensor]
    if torch._C._are_functorch_transforms_active():
        output = TransformedAttention.apply(*request)
    elif torch.compiler.is_compiling():
        output = operator(*request)
    elif needs_grad:
        output = EagerAttention.apply(*request)
    else:
        refuse_tangents(q, k, v)
        with torch._C._AutoDispatchBelowAutograd():
            output = operator(*request)
    return output


def attention_backward(
    dout: Tensor,
    out: Tensor,
    softmax_lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor | None = None,
    cu_seqlens_k: Tensor | None = None,
    max_seqlen_q: int = 0,
    max_seqlen_k: int = 0,
    alibi_slopes: Tensor | None = None,
    rng_state: Tensor | None = None,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    deterministic: bool = False,
    seqused_q: Tensor | None = None,
    seqused_k: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients outside of autograd: ``(dq, dk, dv, softmax_d)`` of :func:`attention` with these arguments."""
    check_tensors(q, k, v)
    check_tensor("dout", dout)
    window_left, window_right = window_bounds(window_size)
    grads: tuple[Tensor, Tensor, Tensor, Tensor] = torch.ops.flash_attn.backward.default(
        last_dim_contiguous(dout),
        None,
        out,
        softmax_lse,
        last_dim_contiguous(q),
        last_dim_contiguous(k),
        last_dim_contiguous(v),
        cu_seqlens_q,
        cu_seqlens_k,
        max_seqlen_q,
        max_seqlen_k,
        seqused_k,
        None,
        None,
        alibi_slopes,
        None,
        rng_state if dropout_p > 0 else None,
        dropout_p,
        softmax_scale,
        causal,
        window_left,
        window_right,
        softcap,
        deterministic,
        False,
        0,
        True,
        dispatch.requested(),
        seqused_q=seqused_q,
    )
    return grads


def decode(
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
    alibi_slopes: Tensor | None = None,
    learnable_sink: Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    rotary_interleaved: bool = True,
    num_splits: int = 0,
    q_descale: Tensor | None = None,
    k_descale: Tensor | None = None,
    v_descale: Tensor | None = None,
    qv: Tensor | None = None,
    cu_seqlens_q: Tensor | None = None,
    max_seqlen_q: int = 0,
    cu_seqlens_k_new: Tensor | None = None,
    rotary_seqlens: Tensor | None = None,
    attention_chunk: int = 0,
) -> tuple[Tensor, Tensor]:
    """Attention to a KV cache that changes in place: ``(out, softmax_lse)``, neither of them differentiable.

    Arguments mean what :func:`flash_attn.flash_attn_with_kvcache` says of them, and from ``q_descale`` on what
    :func:`flash_attn.flash_attn_3_interface.flash_attn_with_kvcache` says.
    """
    check_tensors(q, k_cache, v_cache, "k_cache", "v_cache")
    for name, value in (("k", k), ("v", v), ("qv", qv), ("cu_seqlens_q", cu_seqlens_q)):
        if value is not None:
            check_tensor(name, value)
    if isinstance(cache_seqlens, int):
        if not 0 <= cache_seqlens < 2**31:
            raise ValueError(f"cache_seqlens: got {cache_seqlens}; accepted is 0 to the capacity of the cache")
        batch_size = q.shape[0] if cu_seqlens_q is None else max(0, sequences_of("cu_seqlens_q", cu_seqlens_q))
        cache_seqlens = torch.full((batch_size,), cache_seqlens, dtype=torch.int32, device=q.device)
    window_left, window_right = window_bounds(window_size)
    refuse_tangents(q, k_cache, v_cache)
    with torch.no_grad():
        output: tuple[Tensor, Tensor] = torch.ops.flash_attn.with_kvcache.default(
            last_dim_contiguous(q),
            k_cache,
            v_cache,
            None if k is None else last_dim_contiguous(k),
            None if v is None else last_dim_contiguous(v),
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
            window_left,
            window_right,
            softcap,
            rotary_interleaved,
            num_splits,
            dispatch.requested(),
            q_descale,
            k_descale,
            v_descale,
            None if qv is None else last_dim_contiguous(qv),
            cu_seqlens_q,
            max_seqlen_q,
            cu_seqlens_k_new,
            rotary_seqlens,
            attention_chunk,
        )
    differentiable = [x for x in (q, k_cache, v_cache, k, v, learnable_sink, qv) if x is not None and x.requires_grad]
    if differentiable and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        output = RefuseBackward.apply(*output, *differentiable)
    return output


def _without_autocast(op: Any) -> Callable[..., Any]:
    """Kernel that runs ``op`` with autocast off, so that it does not reach the PyTorch code of a backend either."""

    def kernel(*args: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):
            return op(*args)

    return kernel


_AUTOCAST_KEYS = ("AutocastCPU", "AutocastCUDA")
_AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU) | torch._C.DispatchKeySet(
    torch._C.DispatchKey.AutocastCUDA
)
for _name, _kernel in (
    ("forward", _forward),
    ("forward_extended", _forward),
    ("backward", _backward),
    ("with_kvcache", _with_kvcache),
):
    _LIBRARY.impl(_name, _kernel, "CompositeExplicitAutograd")
    for _key in _AUTOCAST_KEYS:
        _LIBRARY.impl(_name, _without_autocast(getattr(torch.ops.flash_attn, _name).default), _key)
for _name in ("flash_attn::forward", "flash_attn::forward_extended"):
    torch.library.register_fake(_name, _fake_forward, lib=_LIBRARY)
    torch.library.register_autograd(_name, gradients, setup_context=save_for_backward, lib=_LIBRARY)
    torch.library.register_vmap(_name, vmap_forward, lib=_LIBRARY)
torch.library.register_fake("flash_attn::backward", _fake_backward, lib=_LIBRARY)
torch.library.register_fake("flash_attn::with_kvcache", _fake_with_kvcache, lib=_LIBRARY)
torch.library.register_autograd("flash_attn::backward", no_second_backward, lib=_LIBRARY)
torch.library.register_vmap("flash_attn::backward", vmap_backward, lib=_LIBRARY)
