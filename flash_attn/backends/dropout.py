"""Dropout mask as a pure function of position, by Philox-4x32-10.

The generator is that of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).

The element at (batch, head, row, column) takes one 32-bit word of one Philox block:

=============  ==============================================================================
key            low and high half of ``rng_state[0]``, the seed
counter        ``(column // 64 * 16 + column % 16, row, batch * nheads_q + head, rng_state[1])``
word           ``column // 16 % 4``
=============  ==============================================================================

and is dropped where the word is below ``dropout_threshold(p)``. Columns 16 apart share a block because a
matrix-instruction tile is 16 columns wide: the four words then belong to one thread of a GPU kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASK32 = 0xFFFFFFFF
_ROUND_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def new_rng_state(device: torch.device) -> Tensor:
    """Draw ``(seed, offset)`` as int64 ``(2,)`` from torch's default generator of ``device``, on ``device``."""
    return torch.randint(0, 2**63 - 1, (2,), dtype=torch.int64, device=device)


def dropout_threshold(dropout_p: float) -> int:
    """A 32-bit word below this drops its element: ``dropout_p`` in units of 2^-32."""
    return min(_MASK32, round(dropout_p * 2**32))


def _multiply_high(multiplier: int, x: Tensor) -> Tensor:
    """High 32 bits of a 32x32-bit product held in int64, without overflowing int64."""
    low = multiplier * (x & 0xFFFF)
    return (multiplier * (x >> 16) + (low >> 16)) >> 16


def philox(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor], rounds: int = _ROUNDS
) -> tuple[Tensor, ...]:
    """Philox-4x32: four words of 32 random bits, each an int64 tensor of the broadcast shape of its inputs."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        high0, low0 = _multiply_high(_ROUND_MULTIPLIERS[0], c0), (_ROUND_MULTIPLIERS[0] * c0) & _MASK32
        high1, low1 = _multiply_high(_ROUND_MULTIPLIERS[1], c2), (_ROUND_MULTIPLIERS[1] * c2) & _MASK32
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _KEY_INCREMENTS[0]) & _MASK32, (k1 + _KEY_INCREMENTS[1]) & _MASK32
    return c0, c1, c2, c3


def keep_mask(
    rng_state: Tensor, dropout_p: float, batch_heads: Tensor, rows: Tensor, first_column: int, columns: int
) -> Tensor:
    """Which elements of a tile survive dropout.

    Args:
        rng_state: int64 ``(2,)``: seed and offset (its low 32 bits count).
        dropout_p: probability of dropping, in [0, 1).
        batch_heads: int64 ``batch * nheads_q + head``, broadcastable against ``rows``.
        rows: int64 query positions within their sequence, broadcastable against ``batch_heads``.
        first_column: first key position of the tile, counted within the sequence.
        columns: number of key positions.

    Returns:
        bool ``(*broadcast(batch_heads, rows), columns)``.
    """
    first_block = first_column // 64
    blocks = (first_column + columns - 1) // 64 - first_block + 1
    counter0 = first_block * 16 + torch.arange(blocks * 16, device=rng_state.device)
    seed, offset = rng_state.unbind(0)
    words = philox(
        (counter0, rows.unsqueeze(-1), batch_heads.unsqueeze(-1), offset & _MASK32),
        (seed & _MASK32, (seed >> 32) & _MASK32),
    )
    shape = (*torch.broadcast_shapes(batch_heads.shape, rows.shape), blocks, 16)
    bits = torch.stack([word.reshape(shape) for word in words], dim=-2).flatten(-3)
    skipped = first_column - first_block * 64
    return bits[..., skipped : skipped + columns] >= dropout_threshold(dropout_p)
