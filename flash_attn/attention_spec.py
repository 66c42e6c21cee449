"""AttentionSpec: what one attention call asks for, without its tensors and lengths."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

KVLayout = Literal["dense", "varlen", "paged"]
Phase = Literal["attention", "decode"]

FP8_DTYPES = (torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2)
"""8-bit floats that q, k and v may have: OCP's E4M3 and E5M2, and the E4M3 of gfx942 (no infinities, no -0)."""


class AttentionSpec(NamedTuple):
    """Frozen, hashable description of a request; dispatch is cached on it.

    Causal attention is a window whose right bound is 0, so ``window_left`` and
    ``window_right`` describe every positional mask: row ``i`` sees key ``j`` when
    ``i + seqlen_k - seqlen_q - window_left <= j <= i + seqlen_k - seqlen_q + window_right``,
    where -1 leaves a side unbounded. ``attention_chunk`` > 0 cuts positions into chunks: the row at position
    ``p = i + seqlen_k - seqlen_q`` sees keys ``floor(p / chunk) * chunk .. floor(p / chunk) * chunk + chunk - 1``
    alone, within what the window leaves. ``kv_dtype`` is the dtype of k and v where it is not that of q.
    """

    dtype: torch.dtype
    nheads_q: int
    nheads_k: int
    head_dim: int
    head_dim_v: int
    softmax_scale: float
    window_left: int = -1
    window_right: int = -1
    softcap: float = 0.0
    dropout_p: float = 0.0
    varlen_q: bool = False
    kv_layout: KVLayout = "dense"
    page_size: int = 0
    has_alibi: bool = False
    has_sink: bool = False
    has_seqused_k: bool = False
    has_leftpad_k: bool = False
    has_cache_batch_idx: bool = False
    phase: Phase = "attention"
    appends_kv: bool = False
    rotary_dim: int = 0
    rotary_interleaved: bool = True
    needs_backward: bool = False
    deterministic: bool = False
    return_attn_probs: bool = False
    num_splits: int = 0
    kv_dtype: torch.dtype | None = None
    has_descale: bool = False
    has_qv: bool = False
    has_seqused_q: bool = False
    attention_chunk: int = 0
    varlen_new: bool = False
    has_rotary_seqlens: bool = False

    @property
    def key_dtype(self) -> torch.dtype:
        """Dtype of k and v."""
        return self.kv_dtype or self.dtype

    @property
    def out_dtype(self) -> torch.dtype:
        """Dtype of the output: that of q, bfloat16 where q is fp8."""
        return torch.bfloat16 if self.dtype in FP8_DTYPES else self.dtype

    @property
    def is_fp8(self) -> bool:
        """Whether q, or k and v, are 8-bit floats."""
        return self.dtype in FP8_DTYPES or self.kv_dtype in FP8_DTYPES

    @property
    def is_causal(self) -> bool:
        """Whether the mask is the plain causal one (bottom-right aligned)."""
        return self.window_left < 0 and self.window_right == 0

    @property
    def nheads_per_group(self) -> int:
        """Query heads that share one key/value head."""
        return self.nheads_q // self.nheads_k
