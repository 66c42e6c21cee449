"""Tile sizes, the keys a row tile sees, reused buffers, and the batched matrix product."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from flash_attn.attention_spec import AttentionSpec

TILE_ELEMENTS = 1 << 21
"""Scores of one tile over all its heads: 4 MiB in bf16, well inside a last-level cache."""
MAX_ROWS = 512
"""Query rows of one row tile (all query heads of a KV head together): enough to amortise packing K and V."""
MASKED_ROWS = 128
"""Query rows of one row tile where a mask bites and keys are few: less of the tile is masked away."""
MIN_COLUMNS = 512
"""Keys of one block where the row range has to be split over keys."""
DROPOUT_ELEMENTS = 1 << 16
"""Scores of one tile with dropout: Philox needs some fifteen int64 words of scratch for each."""
UPCAST_ELEMENTS = 1 << 20
"""Keys (or values) of one block that are upcast from fp8: 4 MiB."""
DENSE_BYTES = 8 << 20
"""Keys (or values) of a unit that several row tiles read are copied once, densely, up to this size."""
DENSE_ROWS = 32
"""From this many rows on, several heads of bf16 keys are copied densely for one batched product."""
DENSE_ELEMENTS = 1 << 19
"""Up to this size several heads of bf16 keys are copied densely for any number of rows: one call in place of many."""


class TileShape(NamedTuple):
    """Query positions of a row tile, keys of a block, and KV heads (of all sequences) worked on together."""

    rows: int
    columns: int
    heads: int

    def with_key_elements(self, limit: int, head_dim: int) -> TileShape:
        """The same with fewer keys and heads, so that the keys of a block have no more than ``limit`` elements."""
        columns = max(1, min(self.columns, limit // head_dim))
        return TileShape(self.rows, columns, max(1, min(self.heads, limit // (head_dim * columns))))


def tile_shape(rows: int, columns: int, group: int, masked: bool, dropout: bool) -> TileShape:
    """Tile of a problem with ``rows`` queries and ``columns`` keys a sequence, ``group`` query heads a KV head."""
    elements = DROPOUT_ELEMENTS if dropout else TILE_ELEMENTS
    packed_rows = max(MASKED_ROWS, min(MAX_ROWS, columns // 8)) if masked else MAX_ROWS
    if dropout:
        packed_rows = min(packed_rows, MASKED_ROWS)
    tile_rows = max(1, min(rows, packed_rows // group))
    tile_columns = max(1, min(columns, max(MIN_COLUMNS, elements // (tile_rows * group))))
    return TileShape(tile_rows, tile_columns, max(1, elements // (tile_rows * group * tile_columns)))


class Band(NamedTuple):
    """Positional mask of one sequence: row ``i`` sees keys ``i + lower .. i + upper`` (``None`` is unbounded)."""

    lower: int | None
    upper: int | None
    seqlen_k: int

    @classmethod
    def of_window(cls, window_left: int, window_right: int, diagonal: int, seqlen_k: int) -> Band:
        """Band of a window around the key that a row is aligned to; that of row 0 is ``diagonal``."""
        lower = diagonal - window_left if window_left >= 0 else None
        upper = diagonal + window_right if window_right >= 0 else None
        return cls(lower, upper, seqlen_k)

    def first_row(self, seqlen_q: int) -> int:
        """First row that sees a key; every later row sees one too."""
        if self.seqlen_k == 0:
            return seqlen_q
        return 0 if self.upper is None else min(seqlen_q, max(0, -self.upper))

    def columns(self, row0: int, row1: int) -> tuple[int, int]:
        """Keys that any of the rows sees."""
        start = 0 if self.lower is None else max(0, row0 + self.lower)
        stop = self.seqlen_k if self.upper is None else min(self.seqlen_k, row1 + self.upper)
        return start, stop

    def clear_hidden(self, tile: Tensor, row0: int, column0: int) -> None:
        """Set what the mask hides to 0, in place, touching only the columns where it bites.

        ``tile`` is ``(..., rows, columns)`` and starts at query ``row0`` and key ``column0``.
        """
        rows, columns = tile.shape[-2:]
        if self.upper is not None:
            diagonal = row0 + self.upper - column0
            edge = max(0, diagonal + 1)
            if edge < columns:
                tile[..., edge:].tril_(diagonal - edge)
        if self.lower is not None:
            diagonal = row0 + self.lower - column0
            edge = min(columns, rows - 1 + diagonal)
            if edge > 0:
                tile[..., :edge].triu_(diagonal)

    def hide(self, tile: Tensor, row0: int, column0: int) -> None:
        """Set what the mask hides to ``-inf``, in place, whatever it held."""
        rows, columns = tile.shape[-2:]
        seen = torch.ones(rows, columns, dtype=tile.dtype)
        self.clear_hidden(seen, row0, column0)
        if bool((seen == 0).any()):
            self.clear_hidden(tile, row0, column0)
            tile.add_(seen.log_())


def blocks(start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    """Cut ``start..stop`` into ranges of at most ``size``."""
    for begin in range(start, stop, size):
        yield begin, min(begin + size, stop)


class Workspace:
    """Buffers that tiles reuse; a buffer grows when a tile asks for more."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Uninitialised contiguous tensor that overlays the last one taken under the same name and dtype."""
        elements = 1
        for size in shape:
            elements *= size
        key = f"{name} {dtype}"
        buffer = self._buffers.get(key)
        if buffer is None or buffer.numel() < elements:
            buffer = self._buffers[key] = torch.empty(elements, dtype=dtype)
        return buffer[:elements].view(shape)


def product_dtype(spec: AttentionSpec) -> torch.dtype:
    """Dtype in which the matrices of a call are multiplied.

    Fp8 and what has a scale is multiplied in fp32, where neither rounds.
    """
    if (spec.is_fp8 or spec.has_descale) and spec.dtype != torch.float64:
        return torch.float32
    return _fast_dtype(spec.dtype)


@functools.cache
def _fast_dtype(dtype: torch.dtype) -> torch.dtype:
    """Dtype in which matrices of ``dtype`` are multiplied: fp16 has no fast product on a CPU, bf16 not on all."""
    if dtype == torch.bfloat16:
        fast = torch._C._has_mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    return torch.float32 if dtype == torch.float16 else dtype


def product(a: Tensor, b: Tensor, out: Tensor, alpha: float = 1.0) -> Tensor:
    """``out = alpha * a @ b`` of ``(heads, m, k)`` and ``(heads, k, n)``.

    oneDNN's batched bf16 product copies operands that are not dense on every call, its plain product does not.
    """
    dense = a.dtype != torch.bfloat16 or b.is_contiguous() or b.mT.is_contiguous()
    if dense and a.shape[0] > 1:
        return torch.baddbmm(out, a, b, beta=0, alpha=alpha, out=out)
    for head_a, head_b, head_out in zip(a.unbind(0), b.unbind(0), out.unbind(0), strict=True):
        torch.addmm(head_out, head_a, head_b, beta=0, alpha=alpha, out=head_out)
    return out
