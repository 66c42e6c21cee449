"""The positional mask: which blocks a tile meets, which of them need no mask, and the mask of one tile.

Row ``i`` sees key ``j`` when ``i + d - window_left <= j <= i + d + window_right`` with ``d = seqlen_k - seqlen_q``,
a side that is unbounded left out, and where ``CHUNK > 0`` when besides ``i + d`` and ``j`` lie in the same chunk of
``CHUNK`` positions. Keys and rows change roles by negating ``d`` and exchanging the bounds.
"""

import triton
import triton.language as tl


@triton.jit
def chunk_start(position, CHUNK: tl.constexpr):
    """First position of a position's chunk; before the first key, one whose chunk has no key."""
    return tl.where(position < 0, -CHUNK, position // CHUNK * CHUNK)


@triton.jit
def band_blocks(
    first,
    last,
    diagonal,
    length,
    window_left,
    window_right,
    origin,
    BLOCK: tl.constexpr,
    HAS_WINDOW_LEFT: tl.constexpr,
    HAS_WINDOW_RIGHT: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Blocks of the other axis that lines ``first .. last`` (inclusive) of one axis meet.

    ``origin`` is the place of position 0 on the other axis: 0 where that has the keys, else ``diagonal``.

    Returns ``begin <= full_begin <= full_end <= end``, the first three multiples of ``BLOCK``: blocks of
    ``[full_begin, full_end)`` are visible to every line, the others of ``[begin, end)`` need a mask.
    """
    begin = 0
    full_begin = 0
    end = length
    full_end = length
    if HAS_WINDOW_LEFT:
        begin = tl.maximum(first + diagonal - window_left, 0) // BLOCK * BLOCK
        full_begin = tl.cdiv(tl.maximum(last + diagonal - window_left, 0), BLOCK) * BLOCK
    if HAS_WINDOW_RIGHT:
        end = tl.minimum(last + diagonal + window_right + 1, length)
        full_end = tl.minimum(tl.maximum(first + diagonal + window_right + 1, 0), length)
    if CHUNK > 0:
        first_chunk = chunk_start(first + diagonal - origin, CHUNK) + origin
        last_chunk = chunk_start(last + diagonal - origin, CHUNK) + origin
        begin = tl.maximum(begin, tl.maximum(first_chunk, 0) // BLOCK * BLOCK)
        full_begin = tl.maximum(full_begin, tl.cdiv(tl.maximum(last_chunk, 0), BLOCK) * BLOCK)
        end = tl.minimum(end, last_chunk + CHUNK)
        full_end = tl.minimum(full_end, tl.maximum(first_chunk + CHUNK, 0))
    end = tl.maximum(end, begin)
    full_begin = tl.minimum(full_begin, tl.cdiv(end, BLOCK) * BLOCK)
    full_end = tl.maximum(full_end // BLOCK * BLOCK, full_begin)
    return begin, full_begin, full_end, end


@triton.jit
def band_mask(
    rows,
    cols,
    diagonal,
    seqlen_q,
    seqlen_k,
    window_left,
    window_right,
    HAS_WINDOW_LEFT: tl.constexpr,
    HAS_WINDOW_RIGHT: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Whether a row sees a key; ``rows`` and ``cols`` broadcast against each other."""
    visible = (rows < seqlen_q) & (cols < seqlen_k)
    if HAS_WINDOW_LEFT:
        visible &= cols >= rows + diagonal - window_left
    if HAS_WINDOW_RIGHT:
        visible &= cols <= rows + diagonal + window_right
    if CHUNK > 0:
        start = chunk_start(rows + diagonal, CHUNK)
        visible &= (cols >= start) & (cols < start + CHUNK)
    return visible
