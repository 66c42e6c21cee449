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
def packed_offsets(tokens, members, stride_s, stride_h, BLOCK_D: tl.constexpr):
    """Offsets of rows that are (token, head) pairs, from the first head of the first token."""
    rows = tokens.to(tl.int64) * stride_s + members.to(tl.int64) * stride_h
    return rows[:, None] + tl.arange(0, BLOCK_D)[None, :]


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
def locate_keys(
    first, seqlen_k, start, table_ptr, num_pages,
    MASK_ROWS: tl.constexpr, BLOCK_N: tl.constexpr, PAGE_SIZE: tl.constexpr,
):  # fmt: skip
    """(page, row) of the keys ``first .. first + BLOCK_N`` of a sequence; ``first`` is a multiple of ``BLOCK_N``.

    Two scalars where the keys follow each other in memory (dense, packed, or inside of one page), else two vectors.
    ``table_ptr`` is the sequence's row of the block table; ``start`` keys of its first page are padding (``None``:
    there is no padding).
    """
    if PAGE_SIZE == 0:
        page = 0
        row = tl.cast(first, tl.int64)
    elif PAGE_SIZE % BLOCK_N == 0 and start is None:
        page = tl.load(table_ptr + first // PAGE_SIZE)
        page = tl.cast(tl.minimum(tl.maximum(page, 0), num_pages - 1), tl.int64)
        row = tl.cast(first % PAGE_SIZE, tl.int64)
    else:
        keys = first + tl.arange(0, BLOCK_N)
        row = keys
        if start is not None:
            row += start
        if MASK_ROWS:
            page = tl.load(table_ptr + row // PAGE_SIZE, mask=keys < seqlen_k, other=0)
        else:
            page = tl.load(table_ptr + row // PAGE_SIZE)
        page = tl.minimum(tl.maximum(page, 0), num_pages - 1).to(tl.int64)
        row = (row % PAGE_SIZE).to(tl.int64)
    return page, row


@triton.jit
def load_key_tile(
    ptr, offsets, page, row, rows_left, stride_b, stride_s,
    MASK_ROWS: tl.constexpr, DIM: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Keys at the ``(page, row)`` of :func:`locate_keys` as a tile ``(BLOCK_N, BLOCK_D)``.

    ``ptr`` is where the sequence starts (dense, packed), or where page 0 starts (paged).
    """
    place = page * stride_b + row * stride_s
    if len(row.shape) == 0:
        ptr += place
    else:
        offsets = place[:, None] + tl.arange(0, BLOCK_D)[None, :]
    return load_tile(ptr, offsets, rows_left, MASK_ROWS, DIM, BLOCK_N, BLOCK_D)
