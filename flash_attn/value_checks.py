"""Checks of the values inside of index tensors: lengths, offsets, pages.

They read the tensors on the host, so they run on CPU tensors always and on a GPU only under
``FLASH_ATTENTION_CHECK=1``; kernels clamp what would leave a tensor.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from flash_attn import environment
from flash_attn.backends.base import AttentionInputs, DecodeInputs


def _readable(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" or environment.check_device_values()


def check_attention_values(inputs: AttentionInputs) -> None:
    """Raise ``ValueError`` where a length, offset or page of an attention call leaves its tensor."""
    if inputs.seqused_q is not None and _readable(inputs.q):
        _check_seqused_q(inputs, inputs.seqused_q)
    if inputs.cu_seqlens_q is None and inputs.seqused_k is None and inputs.block_table is None:
        if inputs.leftpad_k is not None and _readable(inputs.leftpad_k):
            _check_range("leftpad_k", inputs.leftpad_k.tolist(), 0, inputs.max_seqlen_k)
        return
    if not _readable(inputs.q):
        return
    k_rows = inputs.k.shape[0] if inputs.block_table is None else None
    used: list[int] | None = None
    if inputs.cu_seqlens_q is not None and inputs.cu_seqlens_k is not None:
        _check_offsets("q", inputs.cu_seqlens_q, inputs.q.shape[0], inputs.max_seqlen_q)
        used = _check_offsets("k", inputs.cu_seqlens_k, k_rows, inputs.max_seqlen_k)
    capacities = _capacities(inputs, used)
    if inputs.seqused_k is not None:
        used = inputs.seqused_k.tolist()
        for b, (length, capacity) in enumerate(zip(used, capacities, strict=True)):
            _check_range(f"seqused_k[{b}]", [length], 0, capacity)
    if inputs.leftpad_k is not None:
        _check_range("leftpad_k", inputs.leftpad_k.tolist(), 0, max(capacities, default=0))
    if inputs.block_table is not None:
        _check_pages(inputs.block_table, used or capacities, inputs.k.shape)


def check_decode_values(inputs: DecodeInputs) -> None:
    """Raise ``ValueError`` where a length, row or page of a decoding call leaves its cache."""
    if not _readable(inputs.q):
        return
    table = inputs.block_table
    capacity = inputs.capacity
    added = [0 if inputs.k_new is None else inputs.k_new.shape[1]] * inputs.batch_size
    if inputs.cu_seqlens_k_new is not None and inputs.k_new is not None:
        added = _check_offsets("k_new", inputs.cu_seqlens_k_new, inputs.k_new.shape[0], None)
    if inputs.cu_seqlens_q is not None:
        _check_offsets("q", inputs.cu_seqlens_q, inputs.q.shape[0], inputs.max_seqlen_q)
    lengths = [capacity] * inputs.batch_size
    if inputs.cache_seqlens is not None:
        lengths = inputs.cache_seqlens.tolist()
        for length, new in zip(lengths, added, strict=True):
            _check_range("cache_seqlens", [length], 0, capacity - new, f"capacity {capacity} less {new} new tokens")
        lengths = [length + new for length, new in zip(lengths, added, strict=True)]
    if inputs.rotary_seqlens is not None and inputs.rotary_cos is not None:
        table_rows = inputs.rotary_cos.shape[0]
        for position, new in zip(inputs.rotary_seqlens.tolist(), added, strict=True):
            _check_range("rotary_seqlens", [position], 0, table_rows - new, f"{table_rows} positions, {new} new tokens")
    if inputs.cache_batch_idx is not None:
        _check_range("cache_batch_idx", inputs.cache_batch_idx.tolist(), 0, inputs.k_cache.shape[0] - 1)
    if inputs.cache_leftpad is not None:
        _check_range("cache_leftpad", inputs.cache_leftpad.tolist(), 0, capacity)
    if table is not None:
        _check_pages(table, lengths, inputs.k_cache.shape)


def _check_seqused_q(inputs: AttentionInputs, seqused_q: Tensor) -> None:
    """Check that every sequence has the rows of q that it is told to use."""
    rows = [inputs.q.shape[1]] * inputs.batch_size
    if inputs.cu_seqlens_q is not None:
        rows = [end - start for start, end in pairwise(inputs.cu_seqlens_q.tolist())]
    for b, (used, capacity) in enumerate(zip(seqused_q.tolist(), rows, strict=True)):
        _check_range(f"seqused_q[{b}]", [used], 0, capacity)


def _capacities(inputs: AttentionInputs, used: list[int] | None) -> list[int]:
    """Rows that each sequence can address, given the lengths that ``cu_seqlens_k`` tells."""
    if inputs.block_table is None and used is not None:
        return used
    rows = inputs.k.shape[1]
    if inputs.block_table is not None:
        rows *= inputs.block_table.shape[1]
    return [rows] * inputs.batch_size


def _check_range(name: str, values: list[int], lowest: int, highest: int, why: str = "") -> None:
    wrong = [value for value in values if not lowest <= value <= highest]
    if wrong:
        reason = f" ({why})" if why else ""
        raise ValueError(f"{name}: got {wrong[0]}; accepted is {lowest} to {highest}{reason}")


def _check_offsets(side: str, cu_seqlens: Tensor, total: int | None, max_seqlen: int | None) -> list[int]:
    """Check cumulative lengths; returns the lengths."""
    name = f"cu_seqlens_{side}"
    offsets: list[int] = cu_seqlens.tolist()
    if offsets[0] != 0:
        raise ValueError(f"{name}: got {offsets[0]} as first entry; accepted is 0")
    lengths = [end - start for start, end in pairwise(offsets)]
    if min(lengths, default=0) < 0:
        raise ValueError(f"{name}: got {offsets}; accepted are entries that never decrease")
    if total is not None and offsets[-1] > total:
        raise ValueError(f"{name}: got {offsets[-1]} as last entry; accepted is at most {total} rows of {side}")
    longest = max(lengths, default=0)
    if max_seqlen is not None and longest > max_seqlen:
        raise ValueError(f"max_seqlen_{side}: got {max_seqlen}; accepted is the longest sequence, {longest}")
    return lengths


def _check_pages(block_table: Tensor, lengths: list[int], cache_shape: tuple[int, ...]) -> None:
    """Check the table entries that hold ``lengths`` rows; entries behind them may be anything."""
    num_pages, page_size = cache_shape[:2]
    for b, (row, length) in enumerate(zip(block_table.tolist(), lengths, strict=True)):
        pages = -(-length // page_size)
        if pages > len(row):
            raise ValueError(
                f"block_table: got {len(row)} pages of {page_size} rows for sequence {b}; "
                f"accepted is enough for its {length} keys"
            )
        _check_range(f"block_table[{b}]", row[:pages], 0, num_pages - 1)
