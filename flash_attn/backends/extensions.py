"""What a spec may ask beyond FlashAttention-2, as reasons of a backend that does not have it."""

from __future__ import annotations

from collections.abc import Collection

from flash_attn.attention_spec import AttentionSpec

FP8, DESCALES = "fp8", "q_descale, k_descale, v_descale"
SEQUSED_Q, ATTENTION_CHUNK, QV = "seqused_q", "attention_chunk", "qv"
RAGGED_QUERIES, RAGGED_APPEND, ROTARY_SEQLENS = "cu_seqlens_q over a KV cache", "cu_seqlens_k_new", "rotary_seqlens"


def extension_reasons(spec: AttentionSpec, having: Collection[str] = ()) -> list[str]:
    """One reason for everything that ``spec`` asks of fp8 and of the FlashAttention-3 interface, but for ``having``."""
    asked = {
        FP8: spec.is_fp8,
        DESCALES: spec.has_descale,
        QV: spec.has_qv,
        SEQUSED_Q: spec.has_seqused_q,
        ATTENTION_CHUNK: spec.attention_chunk > 0,
        RAGGED_QUERIES: spec.phase == "decode" and spec.varlen_q,
        RAGGED_APPEND: spec.varlen_new,
        ROTARY_SEQLENS: spec.has_rotary_seqlens,
    }
    return [f"has no {name}" for name, is_asked in asked.items() if is_asked and name not in having]
