"""Dropout mask of the CK kernels, which have their own generator: Philox-4x32 of 7 rounds, a byte an element.

The element at (batch, head, row, column) of a matrix of probabilities lies in a block of 32 rows and 32 columns, for
which 64 lanes make 16 bytes each:

===========  ====================================================================================================
lane         ``column % 32 + row // 8 % 2 * 32``
key          low and high half of ``rng_state[0]``, the seed
counter      low and high half of ``rng_state[1] + (batch * nheads_q + head) * 64 + lane``, ``row // 32``,
             ``column // 32``
byte         ``row // 16 % 2 * 8 + row % 8``
===========  ====================================================================================================

It is kept where the byte is at most ``floor((1 - dropout_p) * 255)``, so probabilities count in steps of 1/256, and
scaled by ``1 / (1 - dropout_p)``. The order of a block is that of ``BlockDropout`` in ck_tile/ops/fmha/block.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flash_attn.backends.dropout import philox

_BLOCK = 32  # rows and columns
_LANES = 64
_ROUNDS = 7
_MASK32 = 0xFFFFFFFF


def highest_kept_byte(dropout_p: float) -> int:
    """A byte beyond it drops its element; computed in float32, as the launcher does."""
    kept = (1.0 - torch.tensor(dropout_p, dtype=torch.float32).double()).float()
    return int((kept * 255).floor())


def keep_mask(
    rng_state: Tensor, dropout_p: float, batch_heads: Tensor, rows: Tensor, first_column: int, columns: int
) -> Tensor:
    """Which elements of a tile survive dropout; as :func:`flash_attn.backends.dropout.keep_mask`.

    A block of Philox is computed anew for every element: it is for checking kernels.
    """
    row = rows.unsqueeze(-1)
    column = first_column + torch.arange(columns, device=rng_state.device)
    seed, offset = rng_state.unbind(0)
    lane = column % _BLOCK + row // 8 % 2 * _BLOCK
    position = offset + batch_heads.unsqueeze(-1) * _LANES + lane
    words = philox(
        (position & _MASK32, position >> 32 & _MASK32, row // _BLOCK, column // _BLOCK),
        (seed & _MASK32, seed >> 32 & _MASK32),
        _ROUNDS,
    )
    bits = torch.stack(torch.broadcast_tensors(*words), dim=-1)
    word = (row // 16 % 2 * 2 + row % 8 // 4).expand(bits.shape[:-1]).unsqueeze(-1)
    byte = bits.gather(-1, word).squeeze(-1) >> (row % 4 * 8) & 0xFF
    return byte <= highest_kept_byte(dropout_p)
