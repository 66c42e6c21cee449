"""Plain fp32 attention by PyTorch's own fused kernel, which is at least as fast there; fp16 likewise, upcast by heads.

The kernel computes whole blocks of 512 keys whatever a causal mask hides. A causal call is therefore cut into row
tiles, each the merge by log-sum-exp of an unmasked part over the keys before the tile and a causal square.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends.base import AttentionInputs, ForwardResult
from flash_attn.backends.cpu_kernels.tiles import blocks, product_dtype

CAUSAL_ROWS = (128, 256)
"""Rows of a causal tile: an eighth of the sequence within these bounds."""
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
    )
    square = inputs.q.shape[1] == inputs.k.shape[1]
    return (
        plain
        and product_dtype(spec.dtype) == torch.float32
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
            _attend(spec, q32, k32, v32, target[part], lse[part])
    return ForwardResult(out, lse)


def _attend(spec: AttentionSpec, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor) -> None:
    """Fill ``out`` ``(batch, nheads, seqlen_q, head_dim)`` and ``lse`` from fp32 tensors of the same layout."""
    seqlen = q.shape[2]
    rows = min(max(seqlen // 8, CAUSAL_ROWS[0]), CAUSAL_ROWS[1]) if spec.is_causal else seqlen
    for row0, row1 in blocks(0, seqlen, rows):
        q_rows, own = q[:, :, row0:row1], slice(row0, row1) if spec.is_causal else slice(None)
        tile, tile_lse = _fused(spec, q_rows, k[:, :, own], v[:, :, own], spec.is_causal)
        if spec.is_causal and row0 > 0:
            before, before_lse = _fused(spec, q_rows, k[:, :, :row0], v[:, :, :row0], False)
            total = torch.logaddexp(tile_lse, before_lse)
            share = (tile_lse - total).exp_()
            tile = torch.lerp(before, tile, share.unsqueeze(-1))
            tile_lse = total
        out[:, :, row0:row1].copy_(tile)
        lse[:, :, row0:row1].copy_(tile_lse)


def _fused(spec: AttentionSpec, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """One call of PyTorch's kernel: output and log-sum-exp, natural logarithm."""
    result: tuple[Tensor, Tensor] = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, 0.0, causal, scale=spec.softmax_scale
    )
    return result
