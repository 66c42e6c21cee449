"""From a spec and its inputs to launches of compiled kernels."""

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
        result = forward(library, spec._replace(varlen_q=True, kv_layout="varlen"), _flattened(inputs))
        softmax_lse = result.softmax_lse.view(nheads_q, batch, seqlen_q).transpose(0, 1).contiguous()
        return ForwardResult(result.out.view(batch, seqlen_q, nheads_q, -1), softmax_lse)
    q = inputs.q
    out = q.new_empty(*q.shape[:-1], inputs.v.shape[-1], dtype=spec.out_dtype)
    lse_shape = (q.shape[1], q.shape[0]) if spec.varlen_q else (q.shape[0], q.shape[2], q.shape[1])
    softmax_lse = q.new_empty(lse_shape, dtype=torch.float32)
    if inputs.k.numel() == 0:
        return ForwardResult(out.zero_(), softmax_lse.fill_(-torch.inf))
    descales = (inputs.q_descale, inputs.k_descale, inputs.v_descale)
    operands = (aligned(q), aligned(inputs.k), aligned(inputs.v), out, softmax_lse)
    tensors = (*operands, *_optional_tensors(spec, inputs), *descales)
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
    dout = aligned(dout)
    softmax_d, scaled_d = _softmax_d(library, spec, result, dout, dlse)
    if spec.has_seqused_k and not spec.varlen_q:
        dq, dk, dv = _dense_gradients(library, spec, inputs, result, dout, scaled_d)
    else:
        dq, dk, dv = _gradients(library, spec, inputs, dout, result.softmax_lse, scaled_d)
    return Gradients(dq, dk, dv, softmax_d)


def _softmax_d(
    library: NativeLibrary, spec: AttentionSpec, result: ForwardResult, dout: Tensor, dlse: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Row sums of dout * out less ``dlse``, in the layout of softmax_lse, and the same times 1 - dropout_p."""
    softmax_d = result.softmax_lse.new_empty(result.softmax_lse.shape)
    scaled_d = torch.empty_like(softmax_d) if spec.dropout_p > 0 else None
    dlse = None if dlse is None else dlse.float().contiguous()
    tensors = (aligned(result.out), dout, dlse, softmax_d, scaled_d)
    with library.launching(tensors):
        library.operators.softmax_d(*tensors, 1 - spec.dropout_p)
    return softmax_d, softmax_d if scaled_d is None else scaled_d


def _gradients(
    library: NativeLibrary,
    spec: AttentionSpec,
    inputs: AttentionInputs,
    dout: Tensor,
    softmax_lse: Tensor,
    scaled_d: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = aligned(inputs.q), aligned(inputs.k), aligned(inputs.v)
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
    tensors = (q, k, v, dout, softmax_lse, scaled_d, dq_accumulator, dk, dv, *_optional_tensors(spec, inputs))
    with library.launching(tensors):
        library.operators.backward(*tensors, *_numbers(spec, inputs), spec.deterministic)
    dq = _sum(library, dq_accumulator.view(1, splits, -1), q.dtype).view(q.shape)
    return dq, _sum_of_groups(library, spec, dk), _sum_of_groups(library, spec, dv)


def _dense_gradients(
    library: NativeLibrary,
    spec: AttentionSpec,
    inputs: AttentionInputs,
    result: ForwardResult,
    dout: Tensor,
    scaled_d: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a dense call with ``seqused_k``, which runs as a varlen one."""
    lse, flat_d = (x.transpose(0, 1).reshape(spec.nheads_q, -1) for x in (result.softmax_lse, scaled_d))
    flat_dout = dout.reshape(-1, *dout.shape[2:])
    flat = _gradients(
        library, spec._replace(varlen_q=True, kv_layout="varlen"), _flattened(inputs), flat_dout, lse, flat_d
    )
    dq, dk, dv = (grad.view(x.shape) for grad, x in zip(flat, (inputs.q, inputs.k, inputs.v), strict=True))
    return dq, dk, dv


def _sum_of_groups(library: NativeLibrary, spec: AttentionSpec, grad: Tensor) -> Tensor:
    """(..., nheads_q, head_dim) to (..., nheads_k, head_dim)."""
    if spec.nheads_per_group == 1:
        return grad
    sums = _sum(library, grad.view(-1, spec.nheads_per_group, grad.shape[-1]), grad.dtype)
    return sums.view(*grad.shape[:-2], spec.nheads_k, grad.shape[-1])


def _sum(library: NativeLibrary, parts: Tensor, dtype: torch.dtype) -> Tensor:
    """(outer, terms, inner) to (outer, inner), added up in float32."""
    sums = parts.new_empty((parts.shape[0], parts.shape[2]), dtype=dtype)
    with library.launching((parts, sums)):
        library.operators.sum(parts, sums)
    return sums


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
