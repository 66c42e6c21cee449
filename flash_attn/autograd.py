"""Derivatives of the operators of :mod:`flash_attn.custom_ops`: autograd, torch.func.grad and vmap."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from flash_attn import dispatch
from flash_attn.argument_checks import MAX_HEAD_DIM, check_qv
from flash_attn.validation import attention_request

BACKEND = 23
"""Position of the backend's name in a request; the optional arguments behind it start with q_descale."""
_SEQUSED_Q = 28


def last_dim_contiguous(x: Tensor) -> Tensor:
    """``x``, copied only when its last dimension is not contiguous."""
    return x if x.stride(-1) == 1 else x.contiguous()


def forward_operator(request: tuple[Any, ...]) -> Any:
    """``flash_attn::forward``, or ``forward_extended`` where a request goes on behind the backend's name."""
    operators = torch.ops.flash_attn
    return operators.forward.default if len(request) == BACKEND + 1 else operators.forward_extended.default


def save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    """Keep what the backward reads; the backend is chosen here, so that it is never chosen again."""
    out, softmax_lse, probs = output
    spec, given = attention_request(*inputs[:BACKEND], *inputs[BACKEND + 1 :])
    chosen = dispatch.select(spec, given.q.device, inputs[BACKEND] or dispatch.requested())
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(probs)
    ctx.save_for_backward(*inputs[:5], *inputs[7:13], given.seqused_q, out, softmax_lse)
    ctx.scalars = (len(inputs), inputs[5:7], inputs[13:BACKEND], spec.attention_chunk, chosen.name)


def gradients(ctx: Any, dout: Tensor | None, dlse: Tensor | None, _: Tensor | None) -> tuple[Any, ...]:
    """Gradients of q, k, v and learnable_sink from those of out and softmax_lse."""
    *tensors, seqused_q, out, softmax_lse = ctx.saved_tensors
    arguments, lengths, options, attention_chunk, backend = ctx.scalars
    if dout is None:
        dout = torch.zeros_like(out)
    request = (*tensors[:5], *lengths, *tensors[5:], *options, backend)
    if seqused_q is not None or attention_chunk > 0:
        request += (None, None, None, None, seqused_q, attention_chunk)
    transformed = torch._C._are_functorch_transforms_active()
    backward_op = _TransformedBackward.apply if transformed else torch.ops.flash_attn.backward.default
    dq, dk, dv, softmax_d = backward_op(last_dim_contiguous(dout), dlse, out, softmax_lse, *request)
    grads: list[Tensor | None] = [None] * arguments
    grads[:3] = dq, dk, dv
    sink = request[11]
    if sink is not None:
        grads[11] = _sink_gradient(sink, softmax_lse, softmax_d)
    return tuple(grads)


def _sink_gradient(sink: Tensor, softmax_lse: Tensor, softmax_d: Tensor) -> Tensor:
    """A sink takes probability ``exp(sink - lse)`` of every row and gives nothing to the output.

    With a sink only rows outside of every sequence have an lse of ``-inf``.
    """
    heads_last = softmax_lse.transpose(-1, -2)
    probability = torch.exp(sink.float() - heads_last).masked_fill(heads_last == float("-inf"), 0.0)
    rows = tuple(range(heads_last.dim() - 1))
    return -(probability * softmax_d.transpose(-1, -2)).sum(rows).to(sink.dtype)


def fold_qv(q: Tensor, k: Tensor, v: Tensor, qv: Tensor, softmax_scale: float | None) -> tuple[Tensor, Tensor, float]:
    """q beside qv, k beside v, and the scale: scores ``q.k + qv.v`` as one product that every backward knows."""
    check_qv(qv, q, v.shape[-1])
    if k.dim() != v.dim() or k.shape[:-1] != v.shape[:-1]:
        raise ValueError(f"v: got shape {tuple(v.shape)}; accepted is {tuple(k.shape[:-1])} of k, then any head_dim")
    together = q.shape[-1] + qv.shape[-1]
    if together > MAX_HEAD_DIM:
        raise ValueError(
            f"qv: got head_dim {qv.shape[-1]} beside {q.shape[-1]} of q where gradients are needed; accepted are "
            f"{MAX_HEAD_DIM} together"
        )
    scale = float(together) ** -0.5 if softmax_scale is None else softmax_scale
    return torch.cat([q, qv], -1), torch.cat([k, v], -1), scale


def no_second_backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
    """Refuse to differentiate gradients."""
    raise NotImplementedError(
        "flash_attn has no double backward: its gradients cannot be differentiated again (create_graph=True)"
    )


def refuse_tangents(*tensors: Tensor) -> None:
    """Refuse forward-mode differentiation, whose tangents an operator would drop without a word."""
    if forward_ad._current_level < 0 or torch.compiler.is_compiling():
        return
    if any(forward_ad.unpack_dual(x).tangent is not None for x in tensors):
        raise NotImplementedError("flash_attn has no forward mode AD: its results have no tangents")


class EagerAttention(torch.autograd.Function):
    """The autograd of ``flash_attn::forward`` for plain eager calls, where it costs a fraction of torch.library's."""

    @staticmethod
    def forward(ctx: Any, *request: Any) -> tuple[Tensor, Tensor, Tensor]:
        with torch._C._AutoDispatchBelowAutograd():
            output: tuple[Tensor, Tensor, Tensor] = forward_operator(request)(*request)
        save_for_backward(ctx, request, output)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        return gradients(ctx, *grads)


def _fold_into_batch(size: int, x: Any, dim: int | None) -> Any:
    """A tensor whose vmapped dimension, or its repetition, is folded into the leading batch dimension."""
    if not isinstance(x, Tensor):
        return x
    mapped = x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
    return mapped.flatten(0, 1)


def _vmap(op: Any, first: int, info: Any, in_dims: tuple[int | None, ...], args: tuple[Any, ...]) -> Any:
    """Vmap of a dense call; the request starts at argument ``first``, behind tensors that have a batch too."""
    q, k, v, cu_seqlens, alibi_slopes = first, first + 1, first + 2, first + 3, first + 10
    extensions = range(first + BACKEND + 1, first + _SEQUSED_Q + 1)
    per_batch = {*range(first), q, k, v, first + 7, first + 8, *extensions}
    if args[alibi_slopes] is not None and args[alibi_slopes].dim() - (in_dims[alibi_slopes] is not None) == 2:
        per_batch.add(alibi_slopes)
    stray = any(dim is not None for i, dim in enumerate(in_dims) if i not in per_batch)
    if args[cu_seqlens] is not None or args[first + 9] is not None or stray:
        raise NotImplementedError(
            "vmap over flash_attn supports dense calls, mapped in q, k, v, seqused_q, seqused_k, leftpad_k, the "
            "descales, qv and alibi_slopes of shape (batch, nheads)"
        )
    size = info.batch_size
    output = op(*(_fold_into_batch(size, x, in_dims[i]) if i in per_batch else x for i, x in enumerate(args)))
    split = tuple(x.unflatten(0, (size, -1)) if x.dim() > 1 else x for x in output)
    return split, tuple(0 if x.dim() > 1 else None for x in output)


def vmap_forward(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
    """Vmap rule of ``flash_attn::forward`` and ``forward_extended``."""
    return _vmap(forward_operator(args), 0, info, in_dims, args)


def vmap_backward(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
    """Vmap rule of ``flash_attn::backward``."""
    return _vmap(torch.ops.flash_attn.backward, 4, info, in_dims, args)


class TransformedAttention(torch.autograd.Function):
    """The same autograd under torch.func transforms, which need ``setup_context`` and a vmap rule."""

    @staticmethod
    def forward(*request: Any) -> tuple[Tensor, Tensor, Tensor]:
        output: tuple[Tensor, Tensor, Tensor] = forward_operator(request)(*request)
        return output

    setup_context = staticmethod(save_for_backward)
    backward = staticmethod(gradients)
    vmap = staticmethod(vmap_forward)


class _TransformedBackward(torch.autograd.Function):
    """``flash_attn::backward`` under torch.func transforms."""

    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, ...]:
        grads: tuple[Tensor, ...] = torch.ops.flash_attn.backward.default(*args)
        return grads

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Nothing is kept: there is no second backward."""

    backward = staticmethod(no_second_backward)
    vmap = staticmethod(vmap_backward)


class RefuseBackward(torch.autograd.Function):
    """Passes values on and refuses to be differentiated."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, softmax_lse: Tensor, *differentiable: Tensor) -> tuple[Tensor, Tensor]:
        return out.view_as(out), softmax_lse.view_as(softmax_lse)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        raise NotImplementedError(
            "flash_attn_with_kvcache has no backward; flash_attn_func and flash_attn_varlen_func have one"
        )
