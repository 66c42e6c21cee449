"""The KV-cache step before attention: append new keys and values in place, rotate them and the queries."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from flash_attn.attention_spec import FP8_DTYPES, AttentionSpec
from flash_attn.backends.base import AttentionInputs, DecodeInputs
from flash_attn.rotary_embedding import rotate


def append_and_rotate(spec: AttentionSpec, inputs: DecodeInputs) -> tuple[AttentionSpec, AttentionInputs]:
    """Bring the caches up to date and return the plain attention call over them.

    The caches of ``inputs`` change in place. Nothing is written outside of a cache: new tokens beyond its
    capacity are dropped.
    """
    q, lengths = inputs.q, inputs.cache_seqlens
    first = lengths if inputs.rotary_seqlens is None else inputs.rotary_seqlens
    if inputs.rotary_cos is not None and inputs.rotary_sin is not None and first is not None:
        tokens = _Tokens.of(q, inputs.cu_seqlens_q)
        q_positions = first.long()[tokens.sequence] + tokens.place * int(queries_follow(spec))
        q = _rotated(spec, inputs, q, q_positions)
    if inputs.k_new is not None and inputs.v_new is not None and lengths is not None and first is not None:
        k_new = inputs.k_new
        tokens = _Tokens.of(k_new, inputs.cu_seqlens_k_new)
        if spec.rotary_dim > 0:
            k_new = _rotated(spec, inputs, k_new, first.long()[tokens.sequence] + tokens.place)
        slots = _Slots.of(inputs, tokens, lengths.long())
        k_new = _in_cache_dtype(k_new, inputs.k_cache, inputs.k_descale, tokens)
        v_new = _in_cache_dtype(inputs.v_new, inputs.v_cache, inputs.v_descale, tokens)
        _write(inputs.k_cache, slots, k_new)
        _write(inputs.v_cache, slots, v_new)
        lengths = lengths + tokens.counts
    return attention_over_cache(spec, inputs, q, lengths)


def queries_follow(spec: AttentionSpec) -> bool:
    """Whether rotary turns a query by its own place in the sequence, as under a mask; else by that of the first."""
    return spec.window_left >= 0 or spec.window_right >= 0 or spec.attention_chunk > 0


def attention_over_cache(
    spec: AttentionSpec, inputs: DecodeInputs, q: Tensor, lengths: Tensor | None
) -> tuple[AttentionSpec, AttentionInputs]:
    """The plain attention call of rotated ``q`` over the first ``lengths`` rows of caches that are up to date."""
    attention = spec._replace(
        phase="attention",
        appends_kv=False,
        rotary_dim=0,
        has_seqused_k=lengths is not None,
        varlen_new=False,
        has_rotary_seqlens=False,
    )
    return attention, inputs.over_cache(q, None if lengths is None else lengths.to(torch.int32))


class _Tokens(NamedTuple):
    """The rows of ``(batch, seqlen, ...)`` or ``(total, ...)`` one after another, int64.

    ``sequence`` and ``place`` tell where a row stands; rows behind the last sequence go on counting in it, beyond its
    ``counts`` of rows.
    """

    sequence: Tensor
    place: Tensor
    counts: Tensor

    @classmethod
    def of(cls, x: Tensor, cu_seqlens: Tensor | None) -> _Tokens:
        if cu_seqlens is None:
            batch, seqlen = x.shape[:2]
            starts = torch.arange(batch, device=x.device) * seqlen
            counts = torch.full_like(starts, seqlen)
            row = torch.arange(batch * seqlen, device=x.device)
            sequence = row // max(seqlen, 1)
        else:
            starts, counts = cu_seqlens[:-1].long(), cu_seqlens.long().diff()
            row = torch.arange(x.shape[0], device=x.device)
            ends = cu_seqlens[1:].long().contiguous()
            sequence = torch.searchsorted(ends, row, right=True).clamp(max=max(ends.shape[0] - 1, 0))
        if starts.shape[0] == 0:
            row = sequence = row[:0]
        return cls(sequence, row - starts[sequence], counts)


def _rotated(spec: AttentionSpec, inputs: DecodeInputs, x: Tensor, positions: Tensor) -> Tensor:
    """``x`` rotated at one position a row."""
    assert inputs.rotary_cos is not None
    assert inputs.rotary_sin is not None
    positions = positions.view(x.shape[:-2])
    return rotate(x, inputs.rotary_cos, inputs.rotary_sin, positions, interleaved=spec.rotary_interleaved)


def _in_cache_dtype(new: Tensor, cache: Tensor, descale: Tensor | None, tokens: _Tokens) -> Tensor:
    """New rows one after another, as the cache holds them: scaled, limited and rounded where the cache is fp8."""
    rows = new.reshape(-1, *new.shape[-2:])
    if new.dtype == cache.dtype or cache.dtype not in FP8_DTYPES:
        return rows
    wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
    if descale is not None:
        wide = wide / descale.to(wide.dtype)[tokens.sequence].unsqueeze(-1)
    largest = torch.finfo(cache.dtype).max
    return wide.clamp(-largest, largest).to(cache.dtype)


class _Slots(NamedTuple):
    """Where each row is written: cache row, offset, the row that is written there, and whether it is written at all.

    A row without room repeats the write of the first row that has room, or writes back what its slot holds when none
    has, so that no slot receives two different values and nothing waits for the host.
    """

    rows: Tensor
    offsets: Tensor
    source: Tensor
    room: Tensor

    @classmethod
    def of(cls, inputs: DecodeInputs, tokens: _Tokens, lengths: Tensor) -> _Slots:
        page_size, sequence = inputs.k_cache.shape[1], tokens.sequence
        positions = lengths[sequence] + tokens.place
        fits = (positions >= 0) & (positions < inputs.capacity) & (tokens.place < tokens.counts[sequence])
        if inputs.block_table is not None:
            page = (positions // page_size).clamp(0, inputs.block_table.shape[1] - 1)
            rows = inputs.block_table.long()[sequence, page]
            offsets = positions % page_size
        else:
            rows = sequence if inputs.cache_batch_idx is None else inputs.cache_batch_idx.long()[sequence]
            offsets = positions
        fits = fits & (rows >= 0) & (rows < inputs.k_cache.shape[0])
        row = torch.arange(fits.shape[0], device=fits.device)
        source = torch.where(fits, row, fits.long().argmax()) if fits.shape[0] else row
        rows, offsets = rows[source].clamp(0, inputs.k_cache.shape[0] - 1), offsets[source]
        return cls(rows, offsets.clamp(0, max(page_size - 1, 0)), source, fits.any())


def _write(cache: Tensor, slots: _Slots, new: Tensor) -> None:
    """``cache[rows, offsets] = new[source]`` where there is room."""
    if new.numel() == 0 or cache.numel() == 0:
        return
    held = cache[slots.rows, slots.offsets]
    cache[slots.rows, slots.offsets] = torch.where(slots.room, new[slots.source], held)
