"""Decoding in loops over sequences, tokens and rows, in float64: what the reference backend is itself compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from flash_attn.attention_spec import FP8_DTYPES, AttentionSpec
from flash_attn.backends.base import DecodeInputs

Rows = list[tuple[Tensor, Tensor]]


def decode(spec: AttentionSpec, inputs: DecodeInputs) -> list[Rows]:
    """Output ``(nheads_q, head_dim_v)`` and lse ``(nheads_q,)`` of every row of every sequence; the caches change."""
    return [_sequence(spec, inputs, b) for b in range(inputs.batch_size)]


def _sequence(spec: AttentionSpec, inputs: DecodeInputs, b: int) -> Rows:
    length = inputs.capacity if inputs.cache_seqlens is None else int(inputs.cache_seqlens[b])
    turn = length if inputs.rotary_seqlens is None else int(inputs.rotary_seqlens[b])
    if inputs.k_new is not None and inputs.v_new is not None:
        k_new, v_new = (_rows(x, inputs.cu_seqlens_k_new, b) for x in (inputs.k_new, inputs.v_new))
        for i in range(len(k_new)):
            place = _place(inputs, b, length)
            _store(inputs.k_cache[place], _turned(spec, inputs, k_new[i], turn + i), inputs.k_descale, b)
            _store(inputs.v_cache[place], v_new[i], inputs.v_descale, b)
            length += 1
    first = 0 if inputs.cache_leftpad is None else int(inputs.cache_leftpad[b])
    places = [_place(inputs, b, position) for position in range(first, length)]
    q = _rows(inputs.q, inputs.cu_seqlens_q, b)
    keys = _gathered(inputs.k_cache, inputs.k_descale, b, places)
    values = _gathered(inputs.v_cache, inputs.v_descale, b, places)
    follows = spec.window_left >= 0 or spec.window_right >= 0 or spec.attention_chunk > 0
    chunk = spec.attention_chunk
    results = []
    for i in range(len(q)):
        row = _meant(_turned(spec, inputs, q[i], turn + i * int(follows)), inputs.q_descale, b)
        diagonal = i + len(places) - len(q)
        left = diagonal - spec.window_left if spec.window_left >= 0 else 0
        right = diagonal + spec.window_right if spec.window_right >= 0 else len(places)
        band = [j for j in range(len(places)) if left <= j <= right]
        latent = None if inputs.qv is None else _rows(inputs.qv, inputs.cu_seqlens_q, b)[i].double()
        seen = torch.tensor([j for j in band if not chunk or j // chunk == diagonal // chunk], dtype=torch.int64)
        results.append(_row(spec, inputs, b, row, latent, keys[seen], values[seen], (diagonal - seen).abs()))
    return results


def _row(
    spec: AttentionSpec,
    inputs: DecodeInputs,
    b: int,
    q: Tensor,
    qv: Tensor | None,
    keys: Tensor,
    values: Tensor,
    distances: Tensor,
) -> tuple[Tensor, Tensor]:
    """One row over the keys that it sees."""
    out = torch.zeros(spec.nheads_q, spec.head_dim_v, dtype=torch.float64)
    lse = torch.full((spec.nheads_q,), float("-inf"), dtype=torch.float64)
    sink = inputs.learnable_sink
    for head in range(spec.nheads_q):
        head_k = head // spec.nheads_per_group
        logits = keys[:, head_k] @ q[head] * spec.softmax_scale
        if qv is not None:
            logits = logits + values[:, head_k] @ qv[head] * spec.softmax_scale
        if spec.softcap > 0:
            logits = spec.softcap * torch.tanh(logits / spec.softcap)
        if inputs.alibi_slopes is not None:
            logits = logits - inputs.alibi_slopes.expand(inputs.batch_size, -1)[b, head].double() * distances
        extra = logits.new_zeros(0) if sink is None else sink[head : head + 1].double()
        if len(logits) + len(extra):
            lse[head] = torch.cat([logits, extra]).logsumexp(0)
            out[head] = (logits - lse[head]).exp() @ values[:, head_k]
    return out, lse


def _gathered(cache: Tensor, descale: Tensor | None, b: int, places: list[tuple[int, int]]) -> Tensor:
    """``(keys, nheads_k, dim)`` at these places of a cache."""
    if not places:
        return cache.new_zeros(0, *cache.shape[2:], dtype=torch.float64)
    return torch.stack([_meant(cache[place], descale, b) for place in places])


def _rows(x: Tensor, cu_seqlens: Tensor | None, b: int) -> Tensor:
    """Rows of sequence ``b``."""
    return x[b] if cu_seqlens is None else x[int(cu_seqlens[b]) : int(cu_seqlens[b + 1])]


def _place(inputs: DecodeInputs, b: int, position: int) -> tuple[int, int]:
    """Cache row or page of a position, and the place in it."""
    if inputs.block_table is None:
        return b if inputs.cache_batch_idx is None else int(inputs.cache_batch_idx[b]), position
    page_size = inputs.k_cache.shape[1]
    return int(inputs.block_table[b, position // page_size]), position % page_size


def _turned(spec: AttentionSpec, inputs: DecodeInputs, x: Tensor, position: int) -> Tensor:
    """``(nheads, head_dim)`` rotated to a position."""
    if inputs.rotary_cos is None or inputs.rotary_sin is None:
        return x
    dims = torch.arange(spec.rotary_dim).view((-1, 2) if spec.rotary_interleaved else (2, -1))
    one, other = dims.unbind(1) if spec.rotary_interleaved else dims.unbind(0)
    cos, sin = inputs.rotary_cos[position], inputs.rotary_sin[position]
    turned = x.clone()
    turned[:, one] = x[:, one] * cos - x[:, other] * sin
    turned[:, other] = x[:, other] * cos + x[:, one] * sin
    return turned


def _scale(descale: Tensor | None, b: int, nheads: int) -> Tensor:
    """A scale for each of ``nheads`` heads of q, k or v, ``(nheads, 1)``."""
    if descale is None:
        return torch.ones(nheads, 1, dtype=torch.float64)
    return descale[b].double().repeat_interleave(nheads // descale.shape[1])[:, None]


def _meant(x: Tensor, descale: Tensor | None, b: int) -> Tensor:
    """The numbers that ``(nheads, head_dim)`` stands for."""
    return x.double() * _scale(descale, b, x.shape[0])


def _store(slot: Tensor, x: Tensor, descale: Tensor | None, b: int) -> None:
    """Write ``(nheads, head_dim)`` as the cache holds it: scaled and limited where it is fp8 and ``x`` is not."""
    if slot.dtype in FP8_DTYPES and x.dtype not in FP8_DTYPES:
        largest = torch.finfo(slot.dtype).max
        x = (x.float() / _scale(descale, b, x.shape[0]).float()).clamp(-largest, largest)
    slot.copy_(x)
