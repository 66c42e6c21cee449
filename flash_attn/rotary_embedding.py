"""Rotary position embedding: the one rotation that layers, operators and KV-cache backends share.

RoFormer (Su et al., arXiv 2104.09864, section 3.4.2) turns each pair of channels (x0, x1) of a token at
position m by the angle m * theta_i: (x0 cos - x1 sin, x0 sin + x1 cos). Pairs are the two halves of the
rotary channels (GPT-NeoX) or, interleaved, neighbouring channels (GPT-J).

`rotate` works on a table and explicit positions and waits for nothing on the host; `apply_rotary` adds
argument checks and upstream's way of naming positions (offsets, cu_seqlens).
"""

import torch
from torch import Tensor
from torch.nn import functional

_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGER = (torch.int32, torch.int64)


def rotate(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor,
    *,
    interleaved: bool = False,
    conjugate: bool = False,
    inplace: bool = False,
) -> Tensor:
    """Rotate the first rotary_dim channels of every head of x by the angles of its token's position.

    Never synchronises with the host and never reads outside the table: a row whose position is not in
    [0, seqlen_ro) stays as it is.

    Args:
        x: (..., nheads, head_dim), for instance (batch, seqlen, nheads, head_dim), any strides.
        cos: (seqlen_ro, rotary_dim / 2), rotary_dim <= head_dim, any floating dtype.
        sin: same shape as cos.
        positions: int32 or int64, broadcastable to x.shape[:-2]: (seqlen,) for a batch in step,
            (batch, seqlen) for offsets of its own per sequence, (batch, 1) for one position per sequence.
        interleaved: pairs are channels (2i, 2i + 1) instead of (i, i + rotary_dim / 2).
        conjugate: rotate backwards; this is the gradient of the rotation.
        inplace: write into x and return it.

    Returns:
        Tensor of x's shape and dtype; arithmetic is in float32 (float64 for float64) and rounds once.

    Raises:
        ValueError: the table is empty although there are positions to look up.
    """
    seqlen_ro = cos.shape[0]
    if seqlen_ro == 0:
        if positions.numel() > 0:
            raise ValueError(f"cos has shape {tuple(cos.shape)}; it needs at least one row")
        return x if inplace else x.clone()
    compute_dtype = torch.promote_types(x.dtype, torch.float32)
    outside = ((positions < 0) | (positions >= seqlen_ro)).unsqueeze(-1)
    rows = positions.clamp(0, seqlen_ro - 1)
    row_cos = cos[rows].to(compute_dtype).masked_fill(outside, 1.0).unsqueeze(-2)
    row_sin = sin[rows].to(compute_dtype).masked_fill(outside, 0.0).unsqueeze(-2)
    return rotate_pairs(x, row_cos, -row_sin if conjugate else row_sin, interleaved=interleaved, inplace=inplace)


def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool = False, inplace: bool = False) -> Tensor:
    """Rotate the first rotary_dim channels of x by angles given for every row.

    Args:
        x: (..., head_dim).
        cos: (..., rotary_dim / 2), broadcastable to x in all dimensions but the last.
        sin: same shape as cos.
        interleaved: pairs are channels (2i, 2i + 1) instead of (i, i + rotary_dim / 2).
        inplace: write into x and return it.

    Returns:
        Tensor of x's shape and dtype; arithmetic is in float32 at least and rounds once.
    """
    rotary_dim = 2 * cos.shape[-1]
    compute_dtype = torch.promote_types(x.dtype, torch.float32)
    first, second = (part.to(compute_dtype) for part in _channel_pairs(x, rotary_dim, interleaved))
    cos, sin = cos.to(compute_dtype), sin.to(compute_dtype)
    rotated_first = first * cos - second * sin
    rotated_second = first * sin + second * cos
    out = x
    if not inplace:
        out = torch.empty_like(x)
        out[..., rotary_dim:].copy_(x[..., rotary_dim:])
    out_first, out_second = _channel_pairs(out, rotary_dim, interleaved)
    out_first.copy_(rotated_first)
    out_second.copy_(rotated_second)
    return out


def _channel_pairs(x: Tensor, rotary_dim: int, interleaved: bool) -> tuple[Tensor, Tensor]:
    if interleaved:
        return x[..., 0:rotary_dim:2], x[..., 1:rotary_dim:2]
    return x[..., : rotary_dim // 2], x[..., rotary_dim // 2 : rotary_dim]


def dense_positions(seqlen: int, seqlen_offsets: int | Tensor, device: torch.device) -> Tensor:
    """Positions of a padded batch: token i of a sequence stands at its offset + i.

    Args:
        seqlen: tokens per sequence.
        seqlen_offsets: one offset for all, or (batch,) int32 or int64.
        device: where the positions are needed.

    Returns:
        (seqlen,) for an int offset, (batch, seqlen) for a tensor.
    """
    tokens = torch.arange(seqlen, device=device)
    if isinstance(seqlen_offsets, Tensor):
        return tokens + seqlen_offsets.unsqueeze(-1)
    return tokens + seqlen_offsets


def packed_positions(total: int, cu_seqlens: Tensor, seqlen_offsets: int | Tensor) -> Tensor:
    """Positions of packed sequences: each counts from its own start and offset.

    Args:
        total: packed tokens; may exceed cu_seqlens[-1].
        cu_seqlens: (batch + 1,) int32 or int64, starting at 0, not decreasing.
        seqlen_offsets: one offset for all, or (batch,) int32 or int64.

    Returns:
        (total,); -1, which `rotate` leaves alone, for tokens behind the last sequence.
    """
    tokens = torch.arange(total, device=cu_seqlens.device, dtype=cu_seqlens.dtype)
    sequence = torch.searchsorted(cu_seqlens.contiguous(), tokens, right=True) - 1
    positions = tokens - cu_seqlens[sequence]
    if isinstance(seqlen_offsets, Tensor):
        # The tokens behind the last sequence look up one entry more than there are sequences.
        positions = positions + functional.pad(seqlen_offsets, (0, 1))[sequence]
    else:
        positions = positions + seqlen_offsets
    return positions.masked_fill(tokens >= cu_seqlens[-1], -1)


def apply_rotary(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    seqlen_offsets: int | Tensor = 0,
    cu_seqlens: Tensor | None = None,
    max_seqlen: int | None = None,
    interleaved: bool = False,
    inplace: bool = False,
    conjugate: bool = False,
) -> Tensor:
    """Rotate x by its tokens' positions; a plain function outside autograd's bookkeeping.

    Args:
        x: (batch, seqlen, nheads, head_dim), or (total, nheads, head_dim) with cu_seqlens; float16, bfloat16,
            float32 or float64.
        cos: (seqlen_ro, rotary_dim / 2) in x's dtype; rotary_dim <= head_dim, further channels pass through.
        sin: same shape and dtype as cos.
        seqlen_offsets: position of each sequence's first token: an int or (batch,) int32 or int64.
        cu_seqlens: (batch + 1,) int32 or int64, cumulative sequence lengths. Tokens behind the last
            sequence stay as they are.
        max_seqlen: longest sequence; required with cu_seqlens.
        interleaved: pairs are channels (2i, 2i + 1) instead of (i, i + rotary_dim / 2).
        inplace: write into x and return it.
        conjugate: rotate backwards.

    Returns:
        Tensor of x's shape and dtype.

    Raises:
        TypeError: an argument is of a wrong type or dtype.
        ValueError: shapes, devices or lengths do not fit. Values of cu_seqlens and of an offset tensor are
            checked when they live on the CPU; elsewhere a position outside cos leaves its row as it is.
    """
    check_rotary_arguments(x, cos, sin, seqlen_offsets, cu_seqlens, max_seqlen)
    if cu_seqlens is None:
        positions = dense_positions(x.shape[1], seqlen_offsets, x.device)
    else:
        positions = packed_positions(x.shape[0], cu_seqlens, seqlen_offsets)
    return rotate(x, cos, sin, positions, interleaved=interleaved, conjugate=conjugate, inplace=inplace)


def check_rotary_arguments(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    seqlen_offsets: int | Tensor = 0,
    cu_seqlens: Tensor | None = None,
    max_seqlen: int | None = None,
) -> None:
    """Raise what `apply_rotary` raises, and do nothing else."""
    _check_tables(x, cos, sin)
    _check_positions(x, cos.shape[0], seqlen_offsets, cu_seqlens, max_seqlen)


def _check_tables(x: Tensor, cos: Tensor, sin: Tensor) -> None:
    if x.dtype not in _FLOATING:
        raise TypeError(f"x has dtype {x.dtype}; accepted are float16, bfloat16, float32 and float64")
    if cos.ndim != 2:
        raise ValueError(f"cos has shape {tuple(cos.shape)}; accepted is (seqlen_ro, rotary_dim / 2)")
    if sin.shape != cos.shape:
        raise ValueError(f"sin has shape {tuple(sin.shape)}; accepted is the shape of cos, {tuple(cos.shape)}")
    for name, table in (("cos", cos), ("sin", sin)):
        if table.dtype != x.dtype:
            raise TypeError(f"{name} has dtype {table.dtype}; accepted is the dtype of x, {x.dtype}")
        if table.device != x.device:
            raise ValueError(f"{name} is on {table.device}; accepted is the device of x, {x.device}")
    if 2 * cos.shape[1] > x.shape[-1]:
        raise ValueError(
            f"cos has {cos.shape[1]} columns, a rotary_dim of {2 * cos.shape[1]}; "
            f"accepted is at most the head_dim of x, {x.shape[-1]}"
        )


def _check_positions(
    x: Tensor, seqlen_ro: int, seqlen_offsets: int | Tensor, cu_seqlens: Tensor | None, max_seqlen: int | None
) -> None:
    if cu_seqlens is None:
        if x.ndim != 4:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; accepted is (batch, seqlen, nheads, head_dim), "
                "or (total, nheads, head_dim) with cu_seqlens"
            )
        batch, seqlen = x.shape[:2]
    else:
        if x.ndim != 3:
            raise ValueError(f"x has shape {tuple(x.shape)}; accepted with cu_seqlens is (total, nheads, head_dim)")
        _check_index_tensor("cu_seqlens", cu_seqlens, x.device)
        if cu_seqlens.shape[0] == 0:
            raise ValueError("cu_seqlens is empty; accepted is (batch + 1,)")
        if not isinstance(max_seqlen, int | torch.SymInt):
            raise TypeError(f"max_seqlen is {max_seqlen!r}; with cu_seqlens it must be an int")
        batch, seqlen = cu_seqlens.shape[0] - 1, max_seqlen
    if seqlen > seqlen_ro:
        raise ValueError(f"cos has {seqlen_ro} rows; sequences of {seqlen} tokens need at least as many")
    if isinstance(seqlen_offsets, Tensor):
        _check_index_tensor("seqlen_offsets", seqlen_offsets, x.device)
        if seqlen_offsets.shape[0] != batch:
            raise ValueError(f"seqlen_offsets has shape {tuple(seqlen_offsets.shape)}; accepted is ({batch},)")
    elif not isinstance(seqlen_offsets, int | torch.SymInt):
        raise TypeError(f"seqlen_offsets is {seqlen_offsets!r}; accepted is an int or a tensor of shape ({batch},)")
    elif seqlen_offsets < 0:
        raise ValueError(f"seqlen_offsets is {seqlen_offsets}; accepted is 0 or more")
    elif seqlen_offsets + seqlen > seqlen_ro:
        raise ValueError(
            f"cos has {seqlen_ro} rows; seqlen_offsets {seqlen_offsets} and sequences of {seqlen} tokens "
            f"need at least {seqlen_offsets + seqlen}"
        )
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        _check_position_values(x, seqlen_ro, seqlen_offsets, cu_seqlens, max_seqlen)


def _check_index_tensor(name: str, index: Tensor, device: torch.device) -> None:
    if index.ndim != 1:
        raise ValueError(f"{name} has shape {tuple(index.shape)}; accepted is one dimension")
    if index.dtype not in _INTEGER:
        raise TypeError(f"{name} has dtype {index.dtype}; accepted are int32 and int64")
    if index.device != device:
        raise ValueError(f"{name} is on {index.device}; accepted is the device of x, {device}")


def _check_position_values(
    x: Tensor, seqlen_ro: int, seqlen_offsets: int | Tensor, cu_seqlens: Tensor | None, max_seqlen: int | None
) -> None:
    seqlens: int | Tensor = x.shape[1]
    if cu_seqlens is not None:
        seqlens = cu_seqlens.diff()
        if cu_seqlens[0] != 0 or (seqlens < 0).any() or cu_seqlens[-1] > x.shape[0]:
            raise ValueError(
                f"cu_seqlens is {cu_seqlens.tolist()}; accepted are values that start at 0, do not decrease "
                f"and end at most at the number of tokens in x, {x.shape[0]}"
            )
        if max_seqlen is not None and (seqlens > max_seqlen).any():
            raise ValueError(f"max_seqlen is {max_seqlen}; the longest sequence of cu_seqlens has {int(seqlens.max())}")
    if isinstance(seqlen_offsets, Tensor):
        if (seqlen_offsets < 0).any():
            raise ValueError(f"seqlen_offsets is {seqlen_offsets.tolist()}; accepted are values of 0 or more")
        ends = seqlen_offsets + seqlens
        if (ends > seqlen_ro).any():
            raise ValueError(f"cos has {seqlen_ro} rows; seqlen_offsets and lengths need at least {int(ends.max())}")
