"""What the results of splits amount to, for tests of the kernel that makes them."""

from __future__ import annotations

import torch
from torch import Tensor

from flash_attn.backends.base import ForwardResult
from flash_attn.partial_results import flash_attn_combine


def merge(out: Tensor, softmax_lse: Tensor, dtype: torch.dtype) -> ForwardResult:
    """``(splits, batch, seqlen_q, nheads, head_dim)`` and ``(splits, batch, nheads, seqlen_q)``; varlen: no batch."""
    if out.dim() == 4:
        result = merge(out.unsqueeze(1), softmax_lse.unsqueeze(1), dtype)
        return ForwardResult(result.out[0], result.softmax_lse[0])
    merged, lse = flash_attn_combine(out, softmax_lse.transpose(-1, -2), out_dtype=dtype)
    return ForwardResult(merged, lse.transpose(-1, -2).contiguous())
