"""The KV-cache step before attention as one launch of a compiled kernel: csrc_common/append.cu."""

from __future__ import annotations

import torch
from torch import Tensor

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends import kv_append
from flash_attn.backends.base import AttentionInputs, DecodeInputs
from flash_attn.backends.native_library import NativeLibrary
from flash_attn.backends.native_tensors import aligned, is_aligned


def append_and_rotate(
    library: NativeLibrary, spec: AttentionSpec, inputs: DecodeInputs
) -> tuple[AttentionSpec, AttentionInputs]:
    """As :func:`kv_append.append_and_rotate`.

    Two sequences that append to the same slot leave there what either of them wrote.
    """
    if inputs.k_new is None or inputs.v_new is None or inputs.cache_seqlens is None:
        return kv_append.attention_over_cache(spec, inputs, inputs.q, inputs.cache_seqlens)
    if not kernel_writes(inputs):
        return kv_append.append_and_rotate(spec, inputs)
    q, lengths = inputs.q, torch.empty_like(inputs.cache_seqlens, dtype=torch.int32)
    rotation: tuple[Tensor | None, ...] = (None,) * 6
    if spec.rotary_dim > 0:
        q = inputs.q.new_empty(inputs.q.shape)
        tables = (_rows(inputs.rotary_cos), _rows(inputs.rotary_sin))
        rotation = (*tables, _ints(inputs.rotary_seqlens), aligned(inputs.q), q, inputs.cu_seqlens_q)
    tensors = (
        *(inputs.k_cache, inputs.v_cache, aligned(inputs.k_new), aligned(inputs.v_new)),
        *(_ints(inputs.cache_seqlens), lengths, inputs.cu_seqlens_k_new),
        *(_ints(inputs.cache_batch_idx), _ints(inputs.block_table), *rotation),
    )
    with library.launching(tensors):
        library.operators.append(*tensors, spec.rotary_interleaved, kv_append.queries_follow(spec))
    return kv_append.attention_over_cache(spec, inputs, q, lengths)


def kernel_writes(inputs: DecodeInputs) -> bool:
    """Whether the kernel can write the caches: 16-bit elements of the dtype of q, 16 bytes at a time."""
    caches = (inputs.k_cache, inputs.v_cache)
    dtypes = {inputs.q.dtype, *(x.dtype for x in caches)}
    return dtypes in ({torch.float16}, {torch.bfloat16}) and all(is_aligned(x) and x.numel() > 0 for x in caches)


def _rows(table: Tensor | None) -> Tensor | None:
    """A table of angles as the kernel reads it; a slice of rows of a wider table is read where it lies."""
    return table if table is None or table.stride(-1) == 1 else table.contiguous()


def _ints(indices: Tensor | None) -> Tensor | None:
    return None if indices is None else indices.to(torch.int32).contiguous()
