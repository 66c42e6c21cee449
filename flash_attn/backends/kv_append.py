"""The KV-cache step before attention: append new keys and values in place, rotate them and the queries."""

from __future__ import annotations

import torch
from torch import Tensor

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends.base import AttentionInputs, DecodeInputs
from flash_attn.rotary_embedding import rotate


def append_and_rotate(spec: AttentionSpec, inputs: DecodeInputs) -> tuple[AttentionSpec, AttentionInputs]:
    """Bring the caches up to date and return the plain attention call over them.

    The caches of ``inputs`` change in place. Nothing is written outside of a cache: new tokens beyond its
    capacity are dropped.
    """
    q, lengths = inputs.q, inputs.cache_seqlens
    if inputs.rotary_cos is not None and inputs.rotary_sin is not None and lengths is not None:
        follows = spec.window_left >= 0 or spec.window_right >= 0
        q_positions = lengths.unsqueeze(1) + torch.arange(q.shape[1], device=q.device) * int(follows)
        q = rotate(q, inputs.rotary_cos, inputs.rotary_sin, q_positions, interleaved=spec.rotary_interleaved)
    if inputs.k_new is not None and inputs.v_new is not None and lengths is not None:
        k_new = inputs.k_new
        positions = lengths.unsqueeze(1) + torch.arange(k_new.shape[1], device=q.device)
        if inputs.rotary_cos is not None and inputs.rotary_sin is not None:
            k_new = rotate(k_new, inputs.rotary_cos, inputs.rotary_sin, positions, interleaved=spec.rotary_interleaved)
        slots = _slots(inputs, positions)
        _write(inputs.k_cache, slots, k_new)
        _write(inputs.v_cache, slots, inputs.v_new)
        lengths = lengths + k_new.shape[1]
    attention = spec._replace(phase="attention", appends_kv=False, rotary_dim=0, has_seqused_k=lengths is not None)
    return attention, AttentionInputs(
        q,
        inputs.k_cache,
        inputs.v_cache,
        q.shape[1],
        _capacity(inputs),
        seqused_k=None if lengths is None else lengths.to(torch.int32),
        leftpad_k=inputs.cache_leftpad,
        block_table=inputs.block_table,
        cache_batch_idx=inputs.cache_batch_idx,
        alibi_slopes=inputs.alibi_slopes,
        learnable_sink=inputs.learnable_sink,
    )


def _capacity(inputs: DecodeInputs) -> int:
    """Rows of cache that one sequence can address."""
    pages = 1 if inputs.block_table is None else inputs.block_table.shape[1]
    return inputs.k_cache.shape[1] * pages


def _slots(inputs: DecodeInputs, positions: Tensor) -> tuple[Tensor, Tensor]:
    """(cache row, offset) of every new token, each ``(batch, seqlen_new)``; -1 as offset where there is no room."""
    page_size = inputs.k_cache.shape[1]
    fits = (positions >= 0) & (positions < _capacity(inputs))
    if inputs.block_table is not None:
        page = (positions // page_size).clamp(0, inputs.block_table.shape[1] - 1)
        rows = inputs.block_table.to(torch.int64).gather(1, page)
        offsets = positions % page_size
    else:
        batch = torch.arange(positions.shape[0], device=positions.device)
        index = batch if inputs.cache_batch_idx is None else inputs.cache_batch_idx.to(torch.int64)
        rows = index.unsqueeze(1).expand_as(positions)
        offsets = positions
    fits = fits & (rows >= 0) & (rows < inputs.k_cache.shape[0])
    return rows, torch.where(fits, offsets, -1)


def _write(cache: Tensor, slots: tuple[Tensor, Tensor], new: Tensor) -> None:
    """``cache[rows, offsets] = new`` where offset >= 0, without asking the host which those are.

    A token without room repeats the write of its sequence's last token that fits, or writes back what the
    first slot holds when none fits, so that no slot receives two different values.
    """
    rows, offsets = slots
    if new.numel() == 0 or cache.numel() == 0:
        return
    fits = offsets >= 0
    last = (fits.sum(1, keepdim=True) - 1).clamp(min=0)
    source = torch.minimum(torch.arange(new.shape[1], device=new.device).unsqueeze(0), last)
    rows = rows.gather(1, source).clamp(0, cache.shape[0] - 1)
    offsets = offsets.gather(1, source).clamp(min=0)
    values = new.gather(1, source[..., None, None].expand_as(new))
    room = fits.any(1)[:, None, None, None]
    cache[rows, offsets] = torch.where(room, values, cache[rows, offsets])
