"""Attention over caches and pages by the compiled kernel that splits the keys, and the merge of its splits."""

from __future__ import annotations

import torch
from torch import Tensor

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends.base import AttentionInputs, ForwardResult
from flash_attn.backends.native_library import NativeLibrary
from flash_attn.backends.native_tensors import aligned, slopes

_ROWS = 64  # of a tile of queries
_MAX_SPLITS = 128
_BLOCKS_PER_SPLIT = 2  # fewer keys than that cost more to merge than they save
_SIMULATED_PROCESSORS = 8


def forward(library: NativeLibrary, spec: AttentionSpec, inputs: AttentionInputs, block: int) -> ForwardResult:
    """Attention of validated inputs; ``block`` is the keys of the kernel's tile.

    Lengths, page numbers and cache rows are clamped, so that nothing outside of the caches is read.
    """
    q, k = inputs.q, inputs.k
    capacity = k.shape[1] * (1 if inputs.block_table is None else inputs.block_table.shape[1])
    splits = spec.num_splits or choose_splits(library, spec, inputs, capacity, block)
    out = q.new_empty((splits, *q.shape[:-1], inputs.v.shape[-1]), dtype=torch.float32)
    lse_shape = (q.shape[1], q.shape[0]) if spec.varlen_q else (q.shape[0], q.shape[2], q.shape[1])
    softmax_lse = q.new_empty((splits, *lse_shape), dtype=torch.float32)
    if capacity == 0 or k.numel() == 0 or inputs.max_seqlen_q == 0:
        return merge(library, out.zero_(), softmax_lse.fill_(-torch.inf), q.dtype)
    tensors = (
        *(aligned(q), aligned(k), aligned(inputs.v), out, softmax_lse),
        inputs.cu_seqlens_q,
        _clamped(_used(inputs), capacity),
        _clamped(inputs.leftpad_k, capacity),
        _clamped(inputs.cache_batch_idx, k.shape[0] - 1),
        _clamped(inputs.block_table, k.shape[0] - 1),
        slopes(inputs),
    )
    numbers = (inputs.max_seqlen_q, spec.softmax_scale, spec.softcap, spec.window_left, spec.window_right)
    with library.launching(tensors):
        library.operators.split(*tensors, *numbers)
    return merge(library, out, softmax_lse, q.dtype)


def merge(library: NativeLibrary, out: Tensor, softmax_lse: Tensor, dtype: torch.dtype) -> ForwardResult:
    """Results of splits, ``(splits, batch, seqlen_q, nheads, head_dim)`` and ``(splits, batch, nheads, seqlen_q)``.

    Varlen ones are ``(splits, total_q, nheads, head_dim)`` and ``(splits, nheads, total_q)``.
    """
    merged = ForwardResult(out.new_empty(out.shape[1:], dtype=dtype), torch.empty_like(softmax_lse[0]))
    tensors = (out, softmax_lse, merged.out, merged.softmax_lse)
    with library.launching(tensors):
        library.operators.combine(*tensors)
    return merged


def _used(inputs: AttentionInputs) -> Tensor | None:
    """Keys of each sequence; ``cu_seqlens_k`` tells them where ``seqused_k`` does not."""
    if inputs.seqused_k is None and inputs.cu_seqlens_k is not None:
        return inputs.cu_seqlens_k.diff()
    return inputs.seqused_k


def choose_splits(
    library: NativeLibrary, spec: AttentionSpec, inputs: AttentionInputs, capacity: int, block: int
) -> int:
    """Splits that occupy every processor twice, as far as there are keys for them."""
    processors = (
        torch.cuda.get_device_properties(inputs.q.device).multi_processor_count
        if library.simulated is None
        else _SIMULATED_PROCESSORS
    )
    packed = spec.nheads_per_group if library.packed_heads else 1
    tiles = inputs.batch_size * spec.nheads_q // packed * -(-inputs.max_seqlen_q * packed // _ROWS)
    return max(1, min(2 * processors // max(tiles, 1), capacity // (block * _BLOCKS_PER_SPLIT), _MAX_SPLITS))


def _clamped(indices: Tensor | None, highest: int) -> Tensor | None:
    return None if indices is None else indices.clamp(0, highest).to(torch.int32).contiguous()
