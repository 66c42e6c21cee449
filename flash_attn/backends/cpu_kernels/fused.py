"""Plain fp32 attention by PyTorch's own fused kernel, which is at least as fast there; fp16 likewise, upcast by heads.

The kernel computes whole blocks of 512 keys whatever a causal mask hides, and is fastest with many rows. A causal
square is therefore halved: two smaller causal squares, and the second half's rows over the first half's keys, which
need no mask and are merged by log-sum-exp.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends.base import AttentionInputs, ForwardResult
from flash_attn.backends.cpu_kernels.tiles import blocks, product_dtype

CAUSAL_ROWS = (128, 256)
"""Rows up to which a causal square is not halved: an eighth of the sequence within these bounds."""
UPCAST_BYTES = 16 << 20
"""Upcast queries, keys, values and output of the heads worked on together, at least one head."""


def fits_fused(spec: AttentionSpec, inputs: AttentionInputs) -> bool:
    """Whether the call is plain dense attention, multiplied in fp32, that the fused kernel answers."""
    plain = not (
        spec.softcap > 0
        or spec.dropout_p > 0
        or spec.has_alibi
        or spec.has_sink
        or spec.has_seqused_k
        or spec.has_leftpad_k
        or spec.has_cache_batch_idx
        or spec.return_attn_probs
        or spec.varlen_q
        or spec.is_fp8
        or spec.has_descale
        or spec.has_qv
        or spec.has_seqused_q
        or spec.attention_chunk > 0
    )
    square = inputs.q.shape[1] == inputs.k.shape[1]
    return (
        plain
        and product_dtype(spec) == torch.float32
        and spec.kv_layout == "dense"
        and spec.nheads_per_group == 1
        and spec.head_dim == spec.head_dim_v
        and spec.window_left < 0
        and (spec.window_right < 0 or (spec.window_right == 0 and square))
        and inputs.q.numel() > 0
        and inputs.k.numel() > 0
    )


def fused_forward(spec: AttentionSpec, inputs: AttentionInputs) -> ForwardResult:
    """Output and log-sum-exp of a call that :func:`fits_fused`."""
    q, k, v = (x.transpose(1, 2) for x in (inputs.q, inputs.k, inputs.v))
    out = torch.empty(inputs.q.shape, dtype=spec.dtype)
    lse = torch.empty(q.shape[:3], dtype=torch.float32)
    target = out.transpose(1, 2)
    if spec.dtype == torch.float32:
        _attend(spec, q, k, v, target, lse)
        return ForwardResult(out, lse)
    head_bytes = 4 * spec.head_dim * 2 * (q.shape[2] + k.shape[2])
    step = max(1, UPCAST_BYTES // head_bytes)
    for batch in range(q.shape[0]):
        for first, last in blocks(0, q.shape[1], step):
            part = (slice(batch, batch + 1), slice(first, last))
            q32, k32, v32 = (x[part].to(torch.float32, memory_format=torch.contiguous_format) for x in (q, k, v))
            out32 = torch.empty_like(q32)
            _attend(spec, q32, k32, v32, out32, lse[part])
            target[part].copy_(out32)
    return ForwardResult(out, lse)


def _attend(spec: AttentionSpec, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor) -> None:
    """Fill ``out`` ``(batch, nheads, seqlen_q, head_dim)`` and ``lse`` from fp32 tensors of the same layout."""
    if spec.is_causal:
        rows = min(max(q.shape[2] // 8, CAUSAL_ROWS[0]), CAUSAL_ROWS[1])
        _attend_causal_square(spec, rows, q, k, v, out, lse)
    else:
        _store((out, lse), _fused(spec, q, k, v, False))


def _attend_causal_square(
    spec: AttentionSpec, rows: int, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor
) -> None:
    """As :func:`_attend`, for equal lengths and a causal mask; squares of up to ``rows`` rows are not halved."""
    seqlen = q.shape[2]
    if seqlen <= rows:
        _store((out, lse), _fused(spec, q, k, v, True))
        return
    middle = (seqlen + 1) // 2
    for half in (slice(0, middle), slice(middle, seqlen)):
        parts = [x[:, :, half] for x in (q, k, v, out, lse)]
        _attend_causal_square(spec, rows, *parts)
    before, before_lse = _fused(spec, q[:, :, middle:], k[:, :, :middle], v[:, :, :middle], False)
    out, lse = out[:, :, middle:], lse[:, :, middle:]
    out.lerp_(before, (before_lse - lse).sigmoid_().unsqueeze(-1))
    torch.logaddexp(lse, before_lse, out=lse)


def _store(targets: tuple[Tensor, Tensor], results: tuple[Tensor, Tensor]) -> None:
    """Copy an output and its log-sum-exp."""
    for target, result in zip(targets, results, strict=True):
        target.copy_(result)


def _fused(spec: AttentionSpec, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """One call of PyTorch's kernel: output and log-sum-exp, natural logarithm."""
    result: tuple[Tensor, Tensor] = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, 0.0, causal, scale=spec.softmax_scale
    )
    return result
