"""The features of attention and of decoding, each by name with one small case that uses it.

``python -m flash_attn check`` runs these cases, and the support matrix asks every backend about them. They are
small enough for a CPU and still longer than one tile of 128 rows or keys.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch

from flash_attn.attention_spec import AttentionSpec
from flash_attn.testing import AttentionCase, DecodeCase, make_attention, make_decode

Case = AttentionCase | DecodeCase


@dataclass(frozen=True)
class Feature:
    """A named feature. ``any_dtype`` is False where the dtype of the case is the feature."""

    name: str
    case: Case
    any_dtype: bool = True

    def with_dtype(self, dtype: torch.dtype) -> Feature:
        """The same feature in ``dtype``."""
        return replace(self, case=replace(self.case, dtype=dtype))

    def shortened(self) -> Feature:
        """The same feature on about a fourth of the work, for emulated kernels: still more than 64 rows or keys."""
        case = self.case
        nheads_q = max(case.nheads_q // 2, 2)
        nheads_k = min(case.nheads_k, nheads_q)
        if isinstance(case, AttentionCase):
            seqlens_q, seqlens_k = _halved(case.seqlens_q), _halved(case.seqlens_k)
            short: Case = replace(case, seqlens_q=seqlens_q, seqlens_k=seqlens_k, nheads_q=nheads_q, nheads_k=nheads_k)
        else:
            (capacity,) = _halved((case.capacity,))
            cached = _halved(case.cache_seqlens)
            short = replace(case, cache_seqlens=cached, capacity=capacity, nheads_q=nheads_q, nheads_k=nheads_k)
        return replace(self, case=short)

    def spec(self) -> AttentionSpec:
        """What the case asks of a backend."""
        return _spec(self.case)


def _halved(lengths: tuple[int, ...]) -> tuple[int, ...]:
    """Lengths beyond 64 halved, and a little more, so that those of the cases here stay beyond 64."""
    return tuple(n // 2 + 3 if n > 64 else n for n in lengths)


@cache
def _spec(case: Case) -> AttentionSpec:
    return (make_attention(case) if isinstance(case, AttentionCase) else make_decode(case))[0]


_ATTENTION = AttentionCase(seqlens_q=(135, 135), seqlens_k=(150, 150), head_dim=64, head_dim_v=64, dtype=torch.bfloat16)
_VARLEN = replace(_ATTENTION, varlen=True, seqlens_q=(5, 131, 64), seqlens_k=(17, 140, 64))
_PAGED = replace(_VARLEN, page_size=16, backward=False)
_DECODE = DecodeCase(
    cache_seqlens=(17, 150), capacity=192, nheads_q=8, head_dim=64, head_dim_v=64, dtype=torch.bfloat16
)
_APPEND = replace(_DECODE, seqlen_new=1)


def _attention(name: str, base: AttentionCase = _ATTENTION, **changes: object) -> Feature:
    return Feature(name, replace(base, **changes))  # type: ignore[arg-type]


def _decode(name: str, base: DecodeCase = _DECODE, **changes: object) -> Feature:
    return Feature(f"decode: {name}", replace(base, **changes))  # type: ignore[arg-type]


def _dtype(dtype: torch.dtype) -> Feature:
    name = str(dtype).removeprefix("torch.")
    return Feature(f"dtype {name}", replace(_ATTENTION, dtype=dtype), any_dtype=False)


def _fp8(name: str, dtype: torch.dtype = torch.bfloat16, **changes: object) -> Feature:
    base = replace(_ATTENTION, dtype=dtype, backward=False, causal=True, nheads_q=8, nheads_k=2)
    return replace(_attention(f"fp8: {name}", base, **changes), any_dtype=False)


def _fp8_decode(name: str, base: DecodeCase = _DECODE, **changes: object) -> Feature:
    return replace(_decode(f"fp8: {name}", base, **changes), any_dtype=False)


def _head_dim(head_dim: int) -> Feature:
    return _attention(f"head_dim {head_dim}", head_dim=head_dim, head_dim_v=head_dim, nheads_q=2, nheads_k=2)


FEATURES: tuple[Feature, ...] = (
    *(_dtype(dtype) for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)),
    _attention("forward only", backward=False),
    _attention("causal", causal=True),
    _attention("causal, rows without keys", causal=True, seqlens_q=(150, 150), seqlens_k=(40, 40)),
    _attention("sliding window", window_size=(37, 11)),
    _attention("sliding window, causal", window_size=(37, -1), causal=True),
    _attention("softmax_scale", softmax_scale=0.3),
    _attention("softcap", softcap=2.0),
    _attention("ALiBi (nheads,)", alibi_dims=1, causal=True),
    _attention("ALiBi (batch, nheads)", alibi_dims=2),
    _attention("dropout", dropout_p=0.2),
    _attention("attention sink", sink=True),
    _attention("grouped-query attention", nheads_q=8, nheads_k=2),
    _attention("multi-query attention", nheads_q=8, nheads_k=1),
    _attention("seqlen_q > seqlen_k", seqlens_q=(150, 150), seqlens_k=(135, 135)),
    _attention("one query", seqlens_q=(1, 1)),
    *(_head_dim(head_dim) for head_dim in (1, 40, 80, 128, 192, 256, 512)),
    _attention("value head_dim", head_dim=192, head_dim_v=128, nheads_q=2, nheads_k=2),
    _attention("deterministic backward", deterministic=True),
    _attention("num_splits", num_splits=3, backward=False),
    _attention("empty keys", seqlens_k=(0, 0)),
    _attention("varlen", _VARLEN),
    _attention("varlen, causal, grouped", _VARLEN, causal=True, nheads_q=8, nheads_k=2),
    _attention("varlen, empty sequences", _VARLEN, seqlens_q=(0, 131, 7), seqlens_k=(17, 140, 0)),
    _attention("varlen, dropout", _VARLEN, dropout_p=0.2),
    _attention("varlen, paged", _PAGED, causal=True),
    _attention("varlen, seqused_k", _VARLEN, seqused=True, backward=False),
    _attention("varlen, leftpad_k", _VARLEN, leftpad=True, backward=False),
    _attention("varlen, seqused_q", _VARLEN, seqused_q=True, causal=True),
    _attention("attention_chunk", attention_chunk=32),
    _attention("attention_chunk, causal", attention_chunk=64, causal=True),
    _attention("qv", qv=True, backward=False),
    _fp8("e4m3fn", torch.float8_e4m3fn),
    _fp8("e4m3fnuz", torch.float8_e4m3fnuz),
    _fp8("e5m2", torch.float8_e5m2),
    _fp8("descales", torch.float8_e4m3fn, descale=True),
    _fp8("bfloat16 q, e4m3fn k and v, descales", kv_dtype=torch.float8_e4m3fn, descale=True),
    _decode("cache only"),
    _decode("several queries", seqlen_q=5),
    _decode("several queries, not causal", seqlen_q=5, causal=False),
    _decode("value head_dim", head_dim=192, head_dim_v=128, nheads_q=4),
    _decode("append", _APPEND),
    _decode("append several", _APPEND, seqlen_new=5, seqlen_q=5),
    _decode("rotary, interleaved", _APPEND, rotary_dim=64),
    _decode("rotary, not interleaved", _APPEND, rotary_dim=64, rotary_interleaved=False),
    _decode("partial rotary", _APPEND, rotary_dim=32),
    _decode("paged", _APPEND, page_size=16),
    _decode("paged, 64 tokens a page", _APPEND, page_size=64),
    _decode("cache_batch_idx", _APPEND, batch_idx=True),
    _decode("cache_batch_idx, a row for two sequences", batch_idx=True, shares_cache=True),
    _decode("cache_leftpad", leftpad=True),
    _decode("num_splits", num_splits=3),
    _decode("attention sink", sink=True),
    _decode("sliding window", window_size=(37, 0)),
    _decode("softcap", softcap=2.0),
    _decode("ALiBi (nheads,)", alibi_dims=1),
    _decode("ALiBi (batch, nheads)", alibi_dims=2),
    _decode("ragged queries", seqlens_q=(3, 5)),
    _decode("ragged append", _APPEND, seqlens_q=(3, 5), seqlens_new=(1, 4)),
    _decode("rotary_seqlens", _APPEND, rotary_dim=64, rotary_offset=9),
    _decode("qv", qv=True),
    _decode("attention_chunk", attention_chunk=64, seqlen_q=5),
    _fp8_decode("e4m3fn cache, bfloat16 q, descales", kv_dtype=torch.float8_e4m3fn, descale=True),
    _fp8_decode("e4m3fn cache, bfloat16 q, append", base=_APPEND, kv_dtype=torch.float8_e4m3fn, descale=True),
    _fp8_decode("e4m3fn cache, e4m3fn q, descales", dtype=torch.float8_e4m3fn, descale=True),
    _fp8_decode("e4m3fnuz cache, bfloat16 q, paged", kv_dtype=torch.float8_e4m3fnuz, descale=True, page_size=16),
)
