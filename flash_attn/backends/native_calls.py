"""From a spec and its inputs to launches of compiled kernels, and what PyTorch computes around them."""

from __future__ import annotations

import torch
from torch import Tensor

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends import native_split
from flash_attn.backends.base import AttentionInputs, ForwardResult, Gradients
from flash_attn.backends.native_library import NativeLibrary, architecture, block_size, explain_missing
from flash_attn.backends.native_tensors import aligned, slopes


def missing_kernels(library: NativeLibrary, spec: AttentionSpec, arch: str) -> list[str]:
    """What was not built that ``spec`` needs; empty when all is there."""
    if over_caches(spec):
        block = block_size(library, "split", spec, arch)
        if block == 0:
            return [explain_missing(library, "split", spec, arch)]
        if library.tiled_pages and spec.page_size % block != 0:
            return [
                f"page_size {spec.page_size} is no multiple of {block}, the keys of a tile of the kernel that was built"
            ]
        return []
    varlen = spec.varlen_q or spec.has_seqused_k
    phases = ["forward"] + ["backward"] * spec.needs_backward
    if not spec.varlen_q and _prefers_split(library, spec, arch):
        return []
    return [
        explain_missing(library, phase, spec, arch, varlen)
        for phase in phases
        if not block_size(library, phase, spec, arch, varlen)
    ]


def over_caches(spec: AttentionSpec) -> bool:
    """Whether only the kernel that splits the keys can read them."""
    ragged = spec.varlen_q and spec.kv_layout == "dense"
    return spec.kv_layout == "paged" or spec.has_cache_batch_idx or spec.has_leftpad_k or ragged


def _prefers_split(library: NativeLibrary, spec: AttentionSpec, arch: str) -> bool:
    """Whether sequences of used lengths in dense caches run split, as in decoding."""
    return spec.has_seqused_k and not spec.needs_backward and block_size(library, "split", spec, arch) > 0


def forward(library: NativeLibrary, spec: AttentionSpec, inputs: AttentionInputs) -> ForwardResult:
    """Attention of validated inputs."""
    if (not spec.varlen_q and spec.has_seqused_k) or over_caches(spec):
        arch = architecture(library, inputs.q.device.index or 0)
        if over_caches(spec) or _prefers_split(library, spec, arch):
            return native_split.forward(library, spec, inputs, block_size(library, "split", spec, arch))
        batch, seqlen_q, nheads_q, _ = inputs.q.shape
        result = forward(library, spec._replace(varlen_q=True), _flattened(inputs))
        softmax_lse = result.softmax_lse.view(nheads_q, batch, seqlen_q).transpose(0, 1).contiguous()
        return ForwardResult(result.out.view(batch, seqlen_q, nheads_q, -1), softmax_lse)
    q = inputs.q
    out = q.new_empty(*q.shape[:-1], inputs.v.shape[-1])
    lse_shape = (q.shape[1], q.shape[0]) if spec.varlen_q else (q.shape[0], q.shape[2], q.shape[1])
    softmax_lse = q.new_empty(lse_shape, dtype=torch.float32)
    if inputs.k.numel() == 0:
        return ForwardResult(out.zero_(), softmax_lse.fill_(-torch.inf))
    tensors = (aligned(q), aligned(inputs.k), aligned(inputs.v), out, softmax_lse, *_optional_tensors(spec, inputs))
    with library.launching(tensors):
        library.operators.forward(*tensors, *_numbers(spec, inputs))
    return ForwardResult(out, softmax_lse)


def backward(
    library: NativeLibrary,
    spec: AttentionSpec,
    inputs: AttentionInputs,
    result: ForwardResult,
    dout: Tensor,
    dlse: Tensor | None,
) -> Gradients:
    """Gradients of q, k and v.

    dQ is summed in float32, and with grouped queries dK and dV are made for each query head, then summed: the call
    holds that much memory besides.
    """
    softmax_d = (dout.float() * result.out.float()).sum(-1).transpose(-1, -2)
    softmax_d = (softmax_d if dlse is None else softmax_d - dlse).contiguous()
    if spec.has_seqused_k and not spec.varlen_q:
        dq, dk, dv = _dense_gradients(library, spec, inputs, result, dout, softmax_d)
    else:
        dq, dk, dv = _gradients(library, spec, inputs, dout, result.softmax_lse, softmax_d)
    return Gradients(dq, dk, dv, softmax_d)


def _gradients(
    library: NativeLibrary,
    spec: AttentionSpec,
    inputs: AttentionInputs,
    dout: Tensor,
    softmax_lse: Tensor,
    softmax_d: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v, dout = aligned(inputs.q), aligned(inputs.k), aligned(inputs.v), aligned(dout)
    if q.numel() == 0 or k.numel() == 0:
        return torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    splits = 1
    if spec.deterministic:
        block = block_size(library, "backward", spec, architecture(library, q.device.index or 0), spec.varlen_q)
        splits = -(-inputs.max_seqlen_k // block)
    dq_accumulator = q.new_zeros(
        (splits, q.numel() // (spec.nheads_q * spec.head_dim), *q.shape[-2:]), dtype=torch.float32
    )
    # rows that no sequence uses are not written
    new = k.new_zeros if spec.has_seqused_k or spec.varlen_q else k.new_empty
    dk, dv = (new((*x.shape[:-2], spec.nheads_q, x.shape[-1])) for x in (k, v))
    scaled_d = softmax_d * (1 - spec.dropout_p) if spec.dropout_p > 0 else softmax_d
    tensors = (q, k, v, dout, softmax_lse, scaled_d, dq_accumulator, dk, dv, *_optional_tensors(spec, inputs))
    with library.launching(tensors):
        library.operators.backward(*tensors, *_numbers(spec, inputs), spec.deterministic)
    dq = (dq_accumulator[0] if splits == 1 else dq_accumulator.sum(0)).to(q.dtype).view(q.shape)
    return dq, _sum_of_groups(dk, spec), _sum_of_groups(dv, spec)


def _dense_gradients(
    library: NativeLibrary,
    spec: AttentionSpec,
    inputs: AttentionInputs,
    result: ForwardResult,
    dout: Tensor,
    softmax_d: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a dense call with ``seqused_k``, which runs as a varlen one."""
    lse, flat_d = (x.transpose(0, 1).reshape(spec.nheads_q, -1) for x in (result.softmax_lse, softmax_d))
    flat_dout = dout.reshape(-1, *dout.shape[2:])
    flat = _gradients(library, spec._replace(varlen_q=True), _flattened(inputs), flat_dout, lse, flat_d)
    dq, dk, dv = (grad.view(x.shape) for grad, x in zip(flat, (inputs.q, inputs.k, inputs.v), strict=True))
    return dq, dk, dv


def _sum_of_groups(grad: Tensor, spec: AttentionSpec) -> Tensor:
    """(..., nheads_q, head_dim) to (..., nheads_k, head_dim)."""
    if spec.nheads_per_group == 1:
        return grad
    grouped = grad.view(*grad.shape[:-2], spec.nheads_k, spec.nheads_per_group, grad.shape[-1])
    return grouped.sum(-2, dtype=torch.float32).to(grad.dtype)


def _flattened(inputs: AttentionInputs) -> AttentionInputs:
    """A dense call as a varlen one; its tensors are views where sequences follow each other in memory."""
    q, k, v = (x.reshape(-1, *x.shape[2:]) for x in (inputs.q, inputs.k, inputs.v))
    cu_seqlens_q, cu_seqlens_k = (
        torch.arange(x.shape[0] + 1, dtype=torch.int32, device=x.device) * x.shape[1] for x in (inputs.q, inputs.k)
    )
    return inputs._replace(q=q, k=k, v=v, cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k)


def _optional_tensors(spec: AttentionSpec, inputs: AttentionInputs) -> tuple[Tensor | None, ...]:
    return (
        inputs.cu_seqlens_q,
        inputs.cu_seqlens_k,
        inputs.seqused_k,
        slopes(inputs),
        inputs.rng_state if spec.dropout_p > 0 else None,
    )


def _numbers(spec: AttentionSpec, inputs: AttentionInputs) -> tuple[int | float, ...]:
    return (
        inputs.max_seqlen_q,
        inputs.max_seqlen_k,
        spec.softmax_scale,
        spec.softcap,
        spec.dropout_p,
        spec.window_left,
        spec.window_right,
    )
