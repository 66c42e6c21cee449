"""Hypothesis strategies that draw cases over the whole spec space."""

from dataclasses import replace
from typing import Any

import torch
from hypothesis import strategies as st

from flash_attn.attention_spec import FP8_DTYPES
from flash_attn.testing import AttentionCase, DecodeCase

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_LONGEST = 150
_WINDOWS = st.one_of(st.just((-1, -1)), st.tuples(st.integers(-1, 60), st.integers(-1, 60)))
_HEAD_DIMS = st.one_of(st.sampled_from((1, 8, 16, 32, 40, 64)), st.integers(1, 96))
_CHUNKS = st.one_of(st.just(0), st.integers(1, 60))
_SEEDS = st.integers(0, 2**31)


def _lengths(longest: int) -> st.SearchStrategy[int]:
    return st.one_of(st.integers(0, 8), st.integers(0, longest))


@st.composite
def _heads(draw: st.DrawFn, most: int = 3) -> dict[str, Any]:
    nheads_k = draw(st.integers(1, most))
    head_dim = draw(_HEAD_DIMS)
    return {
        "nheads_q": nheads_k * draw(st.integers(1, most)),
        "nheads_k": nheads_k,
        "head_dim": head_dim,
        "head_dim_v": draw(st.one_of(st.just(head_dim), _HEAD_DIMS)),
    }


@st.composite
def attention_cases(draw: st.DrawFn, dtype: torch.dtype, longest: int = _LONGEST, most_heads: int = 3) -> AttentionCase:
    """Any forward and backward call of small size; of up to ``most_heads`` KV heads and so many queries to each."""
    batch = draw(st.integers(0, 3))
    lengths = _lengths(longest)
    varlen = draw(st.booleans())
    if varlen:
        seqlens_q, seqlens_k = (tuple(draw(lengths) for _ in range(batch)) for _ in range(2))
    else:
        seqlens_q, seqlens_k = ((draw(lengths),) * batch for _ in range(2))
    return AttentionCase(
        seqlens_q=seqlens_q,
        seqlens_k=seqlens_k,
        **draw(_heads(most_heads)),
        dtype=dtype,
        varlen=varlen,
        page_size=draw(st.sampled_from((0, 0, 1, 16, 64))) if max(seqlens_k, default=0) > 0 else 0,
        causal=draw(st.booleans()),
        window_size=draw(_WINDOWS),
        softcap=draw(st.sampled_from((0.0, 0.0, 1.5, 30.0))),
        softmax_scale=draw(st.sampled_from((None, None, 0.3, 1.0, -0.2))),
        dropout_p=draw(st.sampled_from((0.0, 0.0, 0.1, 0.5))),
        alibi_dims=draw(st.integers(0, 2)),
        sink=draw(st.booleans()),
        seqused=draw(st.booleans()),
        leftpad=draw(st.booleans()),
        deterministic=draw(st.booleans()),
        num_splits=draw(st.integers(0, 4)),
        attention_chunk=draw(_CHUNKS),
        seqused_q=draw(st.booleans()),
        seed=draw(_SEEDS),
    )


@st.composite
def forward_only_cases(draw: st.DrawFn) -> AttentionCase:
    """Any call with what has no gradient: fp8, scales, queries for the values."""
    case = draw(attention_cases(draw(st.sampled_from((*DTYPES, *FP8_DTYPES)))))
    return replace(
        case,
        backward=False,
        kv_dtype=draw(st.one_of(st.none(), st.sampled_from(FP8_DTYPES))),
        descale=draw(st.booleans()),
        qv=case.dtype not in FP8_DTYPES and draw(st.booleans()),
    )


@st.composite
def extended_decode_cases(draw: st.DrawFn) -> DecodeCase:
    """Any decoding call with what the third interface adds."""
    case = draw(decode_cases())
    batch = len(case.cache_seqlens)
    changes: dict[str, Any] = {}
    if case.rotary_dim == 0 and draw(st.booleans()):
        changes["dtype"] = draw(st.sampled_from(FP8_DTYPES))
    dtype = changes.get("dtype", case.dtype)
    if draw(st.booleans()):
        changes["seqlens_q"] = tuple(draw(st.integers(0, 20)) for _ in range(batch))
    if case.seqlen_new > 0 and draw(st.booleans()):
        changes["seqlens_new"] = tuple(draw(st.integers(0, case.seqlen_new)) for _ in range(batch))
    return replace(
        case,
        kv_dtype=draw(st.one_of(st.none(), st.sampled_from(FP8_DTYPES))),
        descale=draw(st.booleans()),
        qv=dtype not in FP8_DTYPES and draw(st.booleans()),
        rotary_offset=draw(st.sampled_from((0, 0, 1, 30))),
        attention_chunk=draw(_CHUNKS),
        **changes,
    )


@st.composite
def decode_cases(draw: st.DrawFn) -> DecodeCase:
    """Any decoding call of small size."""
    batch = draw(st.integers(1, 4))
    seqlen_new = draw(st.sampled_from((0, 1, 1, 3, 17)))
    capacity = draw(st.integers(max(seqlen_new, 1), 130))
    heads = draw(_heads())
    page_size = draw(st.sampled_from((0, 0, 1, 16, 64)))
    rotary = seqlen_new > 0 and heads["head_dim"] > 1 and draw(st.booleans())
    return DecodeCase(
        cache_seqlens=tuple(draw(st.integers(0, capacity - seqlen_new)) for _ in range(batch)),
        seqlen_q=draw(st.sampled_from((1, 1, 2, 5, 17))),
        seqlen_new=seqlen_new,
        capacity=capacity,
        **heads,
        dtype=draw(st.sampled_from(DTYPES)),
        page_size=page_size,
        causal=draw(st.booleans()),
        window_size=draw(_WINDOWS),
        softcap=draw(st.sampled_from((0.0, 0.0, 2.0))),
        alibi_dims=draw(st.integers(0, 2)),
        sink=draw(st.booleans()),
        leftpad=draw(st.booleans()),
        batch_idx=page_size == 0 and draw(st.booleans()),
        rotary_dim=2 * draw(st.integers(1, heads["head_dim"] // 2)) if rotary else 0,
        rotary_interleaved=draw(st.booleans()),
        num_splits=draw(st.integers(0, 4)),
        seed=draw(_SEEDS),
    )
