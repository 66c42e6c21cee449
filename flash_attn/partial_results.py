"""Attention over parts of the keys, merged by log-sum-exp."""

from __future__ import annotations

import torch
from torch import Tensor

from flash_attn.argument_checks import check_device, describe


def flash_attn_combine(
    out_partial: Tensor, lse_partial: Tensor, out: Tensor | None = None, out_dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """Attention over all keys from its results over disjoint parts of them, as FlashAttention-3 lays them out.

    With ``lse = log(sum_s exp(lse_s))`` the whole is ``sum_s exp(lse_s - lse) out_s`` (Dao et al., Flash-Decoding,
    2023). A part whose lse is ``-inf`` saw no key and counts for nothing, whatever its output holds.

    Args:
        out_partial: ``(num_splits, batch, seqlen, nheads, head_dim)``, any floating dtype.
        lse_partial: ``(num_splits, batch, seqlen, nheads)``, fp32 natural logarithms, of any strides.
        out: ``(batch, seqlen, nheads, head_dim)``: where the result is written, in its own dtype.
        out_dtype: dtype of a new result; that of out_partial by default.

    Returns:
        ``(out, softmax_lse)`` with ``softmax_lse`` fp32 ``(batch, seqlen, nheads)``; 0 and ``-inf`` where every part is
        empty. Sums are fp32, fp64 for fp64.

    Raises:
        TypeError, ValueError: an argument is unsuitable; the message names it, what came and what is accepted.
    """
    if out_partial.dim() != 5 or not out_partial.dtype.is_floating_point:
        raise ValueError(
            f"out_partial: got {describe(out_partial)}; accepted is a floating dtype of shape "
            "(num_splits, batch, seqlen, nheads, head_dim)"
        )
    check_device("lse_partial", lse_partial, out_partial)
    if lse_partial.dtype != torch.float32 or lse_partial.shape != out_partial.shape[:-1]:
        raise ValueError(
            f"lse_partial: got {describe(lse_partial)}; accepted is torch.float32 of shape "
            f"{tuple(out_partial.shape[:-1])}"
        )
    if out is not None:
        check_device("out", out, out_partial)
        if out.shape != out_partial.shape[1:]:
            raise ValueError(f"out: got shape {tuple(out.shape)}; accepted is {tuple(out_partial.shape[1:])}")
        if out_dtype is not None and out_dtype != out.dtype:
            raise TypeError(f"out_dtype: got {out_dtype} with out of {out.dtype}; accepted is None or that of out")
    dtype = torch.float64 if out_partial.dtype == torch.float64 else torch.float32
    wide = lse_partial.to(dtype)
    softmax_lse = torch.logsumexp(wide, dim=0)
    # exp(-inf - 0) is 0 where every part is empty, in place of exp(-inf + inf).
    weights = torch.exp(wide - softmax_lse.masked_fill(softmax_lse == float("-inf"), 0.0))
    parts = out_partial.to(dtype).masked_fill(weights.unsqueeze(-1) == 0, 0.0)
    combined = (weights.unsqueeze(-1) * parts).sum(0)
    if out is None:
        out = combined.to(out_dtype or out_partial.dtype)
    else:
        out.copy_(combined)
    return out, softmax_lse.to(torch.float32)
