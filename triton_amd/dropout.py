"""The dropout mask of a tile: Philox-4x32-10 words by position.

The generator is that of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). The element at
(batch, head, row, column) takes word ``column // 16 % 4`` of the block with key ``rng_state[0]`` and counter
``(column // 64 * 16 + column % 16, row, batch * nheads_q + head, rng_state[1])``: one block of four words serves
four columns that are 16 apart.
"""

import triton
import triton.language as tl


@triton.jit
def _words(rng_state, counter0, rows, batch_head):
    """The four words of the blocks at ``rows x counter0``."""
    seed = tl.load(rng_state)
    offset = tl.load(rng_state + 1)
    zero = (rows[:, None] * 0 + counter0[None, :] * 0).to(tl.uint32)
    return tl.philox(
        seed,
        zero + counter0[None, :].to(tl.uint32),
        zero + rows[:, None].to(tl.uint32),
        zero + batch_head.to(tl.uint32),
        zero + offset.to(tl.uint32),
    )


@triton.jit
def keep_mask(
    rng_state, batch_head, first_row, first_column, dropout_threshold, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):
    """Which elements of the tile ``(BLOCK_M, BLOCK_N)`` survive; ``first_column`` is a multiple of ``BLOCK_N``."""
    rows = first_row + tl.arange(0, BLOCK_M)
    if BLOCK_N >= 64:
        GROUPS: tl.constexpr = BLOCK_N // 64
        word0, word1, word2, word3 = _words(rng_state, first_column // 4 + tl.arange(0, BLOCK_N // 4), rows, batch_head)
        words = tl.join(tl.join(word0, word2), tl.join(word1, word3))
        words = tl.reshape(words, (BLOCK_M, GROUPS, 16, 4))
        words = tl.reshape(tl.permute(words, (0, 1, 3, 2)), (BLOCK_M, BLOCK_N))
    else:
        columns = first_column + tl.arange(0, BLOCK_N)
        word0, word1, word2, word3 = _words(rng_state, columns // 64 * 16 + columns % 16, rows, batch_head)
        which = (columns // 16 % 4)[None, :]
        words = tl.where(which < 2, tl.where(which == 0, word0, word1), tl.where(which == 2, word2, word3))
    return words >= tl.cast(dropout_threshold, tl.uint32)
