"""A unit of work: sequences of equal lengths and some of their KV heads, with views of every tensor of the call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends.base import AttentionInputs
from flash_attn.backends.cpu_kernels import tiles
from flash_attn.backends.cpu_kernels.tiles import Band, TileShape, product_dtype, tile_shape


@dataclass(frozen=True)
class Unit:
    """Sequences ``batch0 .. batch1`` and KV heads ``head0 .. head1`` of a call.

    ``heads`` below counts (sequence, KV head) pairs, ``group`` the query heads of a KV head. A unit begins at row
    ``row_start`` and key ``column_start`` of its sequences, which is 0 but where attention is chunked; ``diagonal`` is
    the unit's key that its first row is aligned to.
    """

    spec: AttentionSpec
    inputs: AttentionInputs
    batch0: int
    batch1: int
    head0: int
    head1: int
    query_start: int
    seqlen_q: int
    key_start: int
    seqlen_k: int
    row_start: int
    column_start: int
    diagonal: int
    tile: TileShape

    @property
    def heads(self) -> int:
        """Pairs of sequence and KV head in this unit."""
        return (self.batch1 - self.batch0) * (self.head1 - self.head0)

    @property
    def group(self) -> int:
        """Query heads that share a KV head."""
        return self.spec.nheads_per_group

    @property
    def band(self) -> Band:
        """Positional mask of the sequences."""
        return Band.of_window(self.spec.window_left, self.spec.window_right, self.diagonal, self.seqlen_k)

    def queries(self, x: Tensor) -> Tensor:
        """View ``(sequences, KV heads, group, seqlen_q, head_dim)`` of a tensor laid out as q."""
        if self.spec.varlen_q:
            x = x[self.query_start : self.query_start + self.seqlen_q].unsqueeze(0)
        else:
            x = x[self.batch0 : self.batch1, self.query_start : self.query_start + self.seqlen_q]
        x = x[:, :, self.head0 * self.group : self.head1 * self.group]
        return torch.unflatten(x, 2, (self.head1 - self.head0, self.group)).permute(0, 2, 3, 1, 4)

    def row_values(self, x: Tensor) -> Tensor:
        """View ``(sequences, KV heads, group, seqlen_q)`` of a tensor laid out as softmax_lse."""
        if self.spec.varlen_q:
            x = x[:, self.query_start : self.query_start + self.seqlen_q].unsqueeze(0)
        else:
            x = x[self.batch0 : self.batch1, :, self.query_start : self.query_start + self.seqlen_q]
        x = x[:, self.head0 * self.group : self.head1 * self.group]
        return torch.unflatten(x, 1, (self.head1 - self.head0, self.group))

    def head_values(self, x: Tensor) -> Tensor:
        """``(heads, group)`` of a tensor ``(nheads_q,)`` or ``(batch, nheads_q)``."""
        rows = x.unsqueeze(0).expand(self.batch1 - self.batch0, -1) if x.dim() == 1 else x[self.batch0 : self.batch1]
        return rows[:, self.head0 * self.group : self.head1 * self.group].reshape(self.heads, self.group)

    def key_head_values(self, x: Tensor) -> Tensor:
        """``(heads, 1, 1)`` of a tensor ``(batch, nheads_k)``."""
        return x[self.batch0 : self.batch1, self.head0 : self.head1].reshape(self.heads, 1, 1)

    def batch_heads(self) -> Tensor:
        """``batch * nheads_q + query head`` as int64 ``(heads, group)``, the head coordinate of dropout."""
        sequences = torch.arange(self.batch0, self.batch1).unsqueeze(1) * self.spec.nheads_q
        heads = torch.arange(self.head0 * self.group, self.head1 * self.group)
        return (sequences + heads).view(self.heads, self.group)

    def query_tile(self, x: Tensor, row0: int, row1: int, dtype: torch.dtype) -> Tensor:
        """Rows of a tensor laid out as q, packed as ``(heads, group * rows, head_dim)``."""
        tile = self.queries(x)[:, :, :, row0:row1].to(dtype, memory_format=torch.contiguous_format)
        return tile.reshape(self.heads, self.group * (row1 - row0), x.shape[-1])

    def score_queries(self, row0: int, row1: int, dtype: torch.dtype) -> Tensor:
        """Rows of q as :meth:`query_tile` packs them, with their scales and those of k; beside them those of qv."""
        inputs = self.inputs
        q = self.query_tile(inputs.q, row0, row1, dtype)
        for descale in (inputs.q_descale, inputs.k_descale):
            if descale is not None:
                q = q * self.key_head_values(descale).to(dtype)
        if inputs.qv is None:
            return q
        qv = self.query_tile(inputs.qv, row0, row1, dtype)
        if inputs.v_descale is not None:
            qv = qv * self.key_head_values(inputs.v_descale).to(dtype)
        return torch.cat([q, qv], dim=-1)

    def keys(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Keys ``start .. stop`` of a tensor laid out as k, a view if possible.

        Shape ``(sequences, KV heads, keys, head_dim)``.
        """
        start, stop = start + self.key_start, stop + self.key_start
        heads = slice(self.head0, self.head1)
        if self.inputs.block_table is not None:
            page_size = x.shape[1]
            first = start // page_size
            pages = self.inputs.block_table[self.batch0, first : (stop + page_size - 1) // page_size]
            rows = x[:, :, heads].index_select(0, pages).flatten(0, 1)
            return rows[start - first * page_size : stop - first * page_size].transpose(0, 1).unsqueeze(0)
        if self.inputs.cu_seqlens_k is not None:
            return x[start:stop, heads].transpose(0, 1).unsqueeze(0)
        batch0, batch1 = self.batch0, self.batch1
        if self.inputs.cache_batch_idx is not None:
            batch0 = int(self.inputs.cache_batch_idx[self.batch0])
            batch1 = batch0 + 1
        return x[batch0:batch1, start:stop, heads].transpose(1, 2)

    def store_key_gradient(self, destination: Tensor, gradient: Tensor) -> None:
        """Write ``gradient`` ``(heads, keys, head_dim)`` to the unit's keys; add where sequences may share rows."""
        gradient = torch.unflatten(gradient, 0, (self.batch1 - self.batch0, self.head1 - self.head0))
        if self.inputs.block_table is None:
            target = self.keys(destination, 0, self.seqlen_k)
            if self.inputs.cache_batch_idx is None:
                target.copy_(gradient)
            else:
                target.add_(gradient)
            return
        page_size = destination.shape[1]
        start = 0
        while start < self.seqlen_k:
            page, offset = divmod(start + self.key_start, page_size)
            rows = min(page_size - offset, self.seqlen_k - start)
            index = int(self.inputs.block_table[self.batch0, page])
            target = destination[index, offset : offset + rows, self.head0 : self.head1]
            target.add_(gradient[0, :, start : start + rows].transpose(0, 1))
            start += rows


class KeyTiles:
    """Blocks of one unit's keys or values as ``(heads, keys, head_dim)`` in the dtype of the products.

    Several tensors are put beside each other along head_dim.
    """

    def __init__(self, unit: Unit, *parts: Tensor) -> None:
        self._unit, self._parts = unit, parts
        self._dtype = product_dtype(unit.spec)
        self._rows = min(unit.seqlen_q, unit.tile.rows) * unit.group
        self._whole: Tensor | None = None
        size = unit.heads * unit.seqlen_k * sum(x.shape[-1] for x in parts) * self._dtype.itemsize
        if unit.seqlen_q > unit.tile.rows and size <= tiles.DENSE_BYTES:
            self._whole = self._read(0, unit.seqlen_k).contiguous()

    def _read(self, start: int, stop: int) -> Tensor:
        parts = [self._unit.keys(x, start, stop).flatten(0, 1).to(self._dtype) for x in self._parts]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def block(self, start: int, stop: int) -> Tensor:
        """Keys ``start .. stop``."""
        tile = self._read(start, stop) if self._whole is None else self._whole[:, start:stop]
        if (
            self._dtype == torch.bfloat16
            and tile.shape[0] > 1
            and (self._rows >= tiles.DENSE_ROWS or tile.numel() <= tiles.DENSE_ELEMENTS)
        ):
            return tile.contiguous()
        return tile


def units(spec: AttentionSpec, inputs: AttentionInputs) -> Iterator[Unit]:
    """Cut a call into units; sequences are worked on together where all have the same lengths."""
    lengths = sequence_lengths(inputs)
    own_lengths = spec.varlen_q or inputs.cu_seqlens_k is not None or inputs.block_table is not None
    own_lengths = own_lengths or inputs.cache_batch_idx is not None or len(set(lengths)) > 1
    batch = len(lengths)
    step = 1 if own_lengths else max(1, batch)
    masked = spec.window_left >= 0 or spec.window_right >= 0
    for batch0 in range(0, batch, step):
        query_start, seqlen_q, key_start, seqlen_k = lengths[batch0]
        if seqlen_q == 0 and seqlen_k == 0:
            continue
        group = spec.nheads_per_group
        for row_start, rows, column_start, columns in _chunks(spec.attention_chunk, seqlen_q, seqlen_k):
            tile = tile_shape(max(1, rows), max(1, columns), group, masked, spec.dropout_p > 0)
            if spec.is_fp8:
                tile = tile.with_key_elements(tiles.UPCAST_ELEMENTS, spec.head_dim + spec.head_dim_v)
            heads = min(spec.nheads_k, tile.heads)
            sequences = max(1, min(step, tile.heads // spec.nheads_k))
            for first in range(batch0, batch0 + step, sequences):
                for head0 in range(0, spec.nheads_k, heads):
                    yield Unit(
                        spec,
                        inputs,
                        first,
                        min(first + sequences, batch0 + step),
                        head0,
                        min(head0 + heads, spec.nheads_k),
                        query_start + row_start,
                        rows,
                        key_start + column_start,
                        columns,
                        row_start,
                        column_start,
                        seqlen_k - seqlen_q + row_start - column_start,
                        tile,
                    )


def _chunks(chunk: int, seqlen_q: int, seqlen_k: int) -> Iterator[tuple[int, int, int, int]]:
    """First row, rows, first key and keys of the parts of a sequence that see each other; one part without chunks."""
    if chunk == 0:
        yield 0, seqlen_q, 0, seqlen_k
        return
    offset = seqlen_k - seqlen_q
    before = min(seqlen_q, max(0, -offset))
    if before > 0:
        yield 0, before, 0, 0  # positions before the first key
    for column_start in range(max(0, offset) // chunk * chunk, seqlen_k, chunk):
        column_stop = min(column_start + chunk, seqlen_k)
        first, last = max(0, column_start - offset), column_stop - offset
        yield first, last - first, column_start, column_stop - column_start


def sequence_lengths(inputs: AttentionInputs) -> list[tuple[int, int, int, int]]:
    """For each sequence: first query row, number of queries, first key row, number of keys seen.

    The first rows count from the start of ``q`` and ``k`` where those are varlen, else from that of the sequence.
    """
    batch = inputs.batch_size
    if inputs.cu_seqlens_q is None:
        queries = [(0, inputs.q.shape[1])] * batch
    else:
        bounds = inputs.cu_seqlens_q.tolist()
        queries = [(bounds[i], bounds[i + 1] - bounds[i]) for i in range(batch)]
    if inputs.seqused_q is not None:
        used = inputs.seqused_q.tolist()
        queries = [(start, min(rows, limit)) for (start, rows), limit in zip(queries, used, strict=True)]
    starts, lengths = [0] * batch, [inputs.k.shape[1]] * batch
    if inputs.block_table is not None:
        lengths = [inputs.block_table.shape[1] * inputs.k.shape[1]] * batch
    if inputs.cu_seqlens_k is not None:
        bounds = inputs.cu_seqlens_k.tolist()
        lengths = [bounds[i + 1] - bounds[i] for i in range(batch)]
        if inputs.block_table is None:
            starts = bounds[:-1]
    if inputs.seqused_k is not None:
        capacity = lengths
        if inputs.block_table is not None:
            capacity = [inputs.block_table.shape[1] * inputs.k.shape[1]] * batch
        lengths = [min(used, size) for used, size in zip(inputs.seqused_k.tolist(), capacity, strict=True)]
    pads = [0] * batch if inputs.leftpad_k is None else inputs.leftpad_k.tolist()
    return [(*queries[i], starts[i] + pads[i], max(0, lengths[i] - pads[i])) for i in range(batch)]
