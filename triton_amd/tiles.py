"""Loading and storing tiles of ``rows x dims`` of a tensor, dense or paged."""

import triton
import triton.language as tl


@triton.jit
def tile_offsets(stride_s, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, WIDE_OFFSETS: tl.constexpr):
    """Offsets ``(BLOCK, BLOCK_D)`` of a tile's elements from its first one."""
    rows = tl.arange(0, BLOCK)
    if WIDE_OFFSETS:
        rows = rows.to(tl.int64)
    return rows[:, None] * stride_s + tl.arange(0, BLOCK_D)[None, :]


@triton.jit
def load_tile(
    ptr, offsets, rows_left, MASK_ROWS: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr
):
    """Tile ``(BLOCK, BLOCK_D)`` at ``ptr``; 0 beyond the ``rows_left`` rows and the ``DIM`` dims that exist."""
    rows = tl.arange(0, BLOCK)[:, None] < rows_left
    dims = tl.arange(0, BLOCK_D)[None, :] < DIM
    if MASK_ROWS and BLOCK_D != DIM:
        tile = tl.load(ptr + offsets, mask=rows & dims, other=0.0)
    elif MASK_ROWS:
        tile = tl.load(ptr + offsets, mask=rows, other=0.0)
    elif BLOCK_D != DIM:
        tile = tl.load(ptr + offsets, mask=dims, other=0.0)
    else:
        tile = tl.load(ptr + offsets)
    return tile


@triton.jit
def store_tile(ptr, offsets, tile, rows_left, DIM: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr):
    """Store the rows and dims of a tile that exist."""
    rows = tl.arange(0, BLOCK)[:, None] < rows_left
    dims = tl.arange(0, BLOCK_D)[None, :] < DIM
    tl.store(ptr + offsets, tile, mask=rows & dims)


@triton.jit
def load_key_tile(
    ptr,
    offsets,
    first,
    seqlen_k,
    start,
    stride_b,
    stride_s,
    table_ptr,
    num_pages,
    MASK_ROWS: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
):
    """Keys ``first .. first + BLOCK_N`` of a sequence as a tile.

    ``ptr`` is where the sequence starts (dense, packed), or where page 0 starts (paged, with the sequence's row of
    the block table at ``table_ptr``; ``start`` keys of the first page are padding).
    """
    if PAGE_SIZE == 0:
        ptr += tl.cast(first, tl.int64) * stride_s
    else:
        keys = first + tl.arange(0, BLOCK_N)
        slots = start + keys
        pages = tl.load(table_ptr + slots // PAGE_SIZE, mask=keys < seqlen_k, other=0)
        pages = tl.minimum(tl.maximum(pages, 0), num_pages - 1)
        rows = pages.to(tl.int64) * stride_b + slots % PAGE_SIZE * stride_s
        offsets = rows[:, None] + tl.arange(0, BLOCK_D)[None, :]
    return load_tile(ptr, offsets, seqlen_k - first, MASK_ROWS, DIM, BLOCK_N, BLOCK_D)
