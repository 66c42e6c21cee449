"""Quantising q, k and v to fp8 for the scales of the FlashAttention-3 interface.

``x`` is about ``quantised * descale``: the largest magnitude that shares a scale becomes the largest number of the
dtype. :func:`incoherent_processing` spreads outliers over the head dimension before that, as section 3.3 of
FlashAttention-3 does (Shah et al. 2024, arXiv 2407.08608), after QuIP (Chee et al. 2023, arXiv 2307.13304).
``docs/fp8.md`` has the error of every variant, measured.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flash_attn.attention_spec import FP8_DTYPES


def quantize_per_tensor(x: Tensor, nheads_k: int, dtype: torch.dtype = torch.float8_e4m3fn) -> tuple[Tensor, Tensor]:
    """One scale for the whole tensor.

    Args:
        x: ``(batch, seqlen, nheads, head_dim)``, q, k or v, of a floating dtype of 16 bits or more.
        nheads_k: number of KV heads of the call, for the shape of the scale.
        dtype: an fp8 dtype.

    Returns:
        ``x`` in ``dtype``, and the fp32 descale ``(batch, nheads_k)``, an expanded view of one number.

    Raises:
        TypeError, ValueError: dtype is not fp8, or x has another shape.
    """
    _check(x, nheads_k, dtype)
    descale = _descale(_largest(x, (0, 1, 2, 3)).reshape(1, 1), dtype)
    return _divided(x, descale[:, None, :, None], dtype), descale.expand(x.shape[0], nheads_k)


def quantize_per_head(x: Tensor, nheads_k: int, dtype: torch.dtype = torch.float8_e4m3fn) -> tuple[Tensor, Tensor]:
    """A scale for every sequence and KV head; the query heads of a KV head share theirs.

    Args, returns and errors as :func:`quantize_per_tensor`, but that the descale holds numbers of its own.
    """
    _check(x, nheads_k, dtype)
    group = x.shape[2] // nheads_k
    largest = _largest(x, (1, 3)).view(x.shape[0], nheads_k, group).amax(-1)
    descale = _descale(largest, dtype)
    return _divided(x, descale.repeat_interleave(group, dim=1)[:, None, :, None], dtype), descale


def quantize_blockwise(
    x: Tensor, block_size: int = 128, dtype: torch.dtype = torch.float8_e4m3fn
) -> tuple[Tensor, Tensor]:
    """A scale for every block of ``block_size`` tokens of a head.

    The attention functions take no scale that changes along the sequence; :func:`dequantize_blockwise` undoes it.

    Args:
        x: ``(batch, seqlen, nheads, head_dim)`` of a floating dtype of 16 bits or more.
        block_size: tokens that share a scale, 1 or more; the last block may be shorter.
        dtype: an fp8 dtype.

    Returns:
        ``x`` in ``dtype``, and the fp32 descale ``(batch, blocks, nheads)``.

    Raises:
        TypeError, ValueError: dtype is not fp8, x has another shape, or block_size is less than 1.
    """
    _check(x, x.shape[-2] if x.dim() == 4 else 1, dtype)
    _check_block_size(block_size)
    batch, seqlen, nheads, _ = x.shape
    blocks = -(-seqlen // block_size)
    by_token = _largest(x, (3,))
    padded = by_token.new_zeros(batch, blocks * block_size, nheads)
    padded[:, :seqlen] = by_token
    descale = _descale(padded.view(batch, blocks, block_size, nheads).amax(2), dtype)
    return _divided(x, _by_token(descale, block_size, seqlen), dtype), descale


def dequantize_blockwise(x: Tensor, descale: Tensor, block_size: int = 128) -> Tensor:
    """fp32 ``(batch, seqlen, nheads, head_dim)`` of what :func:`quantize_blockwise` returned for this ``block_size``.

    Raises:
        ValueError: the shapes of x and descale do not belong together, or block_size is less than 1.
    """
    _check_block_size(block_size)
    accepted = (*x.shape[:1], *(-(-n // block_size) for n in x.shape[1:2]), *x.shape[2:3])
    if x.dim() != 4 or descale.shape != accepted:
        raise ValueError(
            f"descale: got shape {tuple(descale.shape)} for x of shape {tuple(x.shape)} in blocks of {block_size}; "
            "accepted is (batch, blocks, nheads) of x (batch, seqlen, nheads, head_dim)"
        )
    return x.to(torch.float32) * _by_token(descale, block_size, x.shape[1])


def hadamard_transform(x: Tensor, signs: Tensor) -> Tensor:
    """``H diag(signs) x / sqrt(head_dim)`` along the last dimension, an orthogonal map of O(head_dim log head_dim).

    Args:
        x: ``(..., head_dim)`` of a floating dtype of 16 bits or more, head_dim a power of two.
        signs: ``(head_dim,)`` of 1 and -1.

    Returns:
        Tensor of the shape and dtype of x; arithmetic is fp32, fp64 for fp64.

    Raises:
        TypeError: x is not floating.
        ValueError: head_dim is not a power of two, or signs has another shape.
    """
    _check_floating(x)
    head_dim = x.shape[-1] if x.dim() > 0 else 0
    if head_dim < 1 or head_dim & (head_dim - 1):
        raise ValueError(f"x: got head_dim {head_dim}; accepted is a power of two")
    if signs.shape != (head_dim,):
        raise ValueError(f"signs: got shape {tuple(signs.shape)}; accepted is {(head_dim,)}")
    wide = x.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
    wide = wide * signs.to(wide.dtype)
    half = 1
    while half < head_dim:
        pairs = wide.unflatten(-1, (-1, 2, half))
        first, second = pairs.unbind(-2)
        wide = torch.stack([first + second, first - second], dim=-2).flatten(-3)
        half *= 2
    return (wide / math.sqrt(head_dim)).to(x.dtype)


def incoherent_processing(q: Tensor, k: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """q and k under one random orthogonal map, which leaves every score ``q.k`` as it is and spreads outliers.

    Args:
        q: ``(..., head_dim)`` of a floating dtype of 16 bits or more, head_dim a power of two.
        k: ``(..., head_dim)`` likewise.
        generator: draws the signs of the map; the default one of q's device by default.

    Returns:
        ``(q, k)`` of the same shapes and dtypes; quantise these.

    Raises:
        ValueError: head_dim is not a power of two, or that of k is another.
    """
    if k.shape[-1] != q.shape[-1]:
        raise ValueError(f"k: got head_dim {k.shape[-1]}; accepted is that of q, {q.shape[-1]}")
    signs = torch.randint(0, 2, (q.shape[-1],), generator=generator, device=q.device) * 2 - 1
    return hadamard_transform(q, signs), hadamard_transform(k, signs)


def _check_floating(x: Tensor) -> None:
    if not x.is_floating_point() or x.dtype.itemsize == 1:
        raise TypeError(f"x: got dtype {x.dtype}; accepted is a floating dtype of 16 bits or more")


def _check_block_size(block_size: int) -> None:
    if not isinstance(block_size, int) or block_size < 1:
        raise ValueError(f"block_size: got {block_size}; accepted is a whole number from 1")


def _check(x: Tensor, nheads_k: int, dtype: torch.dtype) -> None:
    _check_floating(x)
    if dtype not in FP8_DTYPES:
        raise TypeError(f"dtype: got {dtype}; accepted are {', '.join(map(str, FP8_DTYPES))}")
    if x.dim() != 4 or not 1 <= nheads_k <= x.shape[2] or x.shape[2] % nheads_k != 0:
        raise ValueError(
            f"x: got shape {tuple(x.shape)}; accepted is (batch, seqlen, nheads, head_dim) with nheads a multiple of "
            f"nheads_k, {nheads_k}"
        )


def _largest(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Largest magnitude over ``dims``, 0 where there is nothing."""
    if any(x.shape[dim] == 0 for dim in dims):
        return x.new_zeros([size for dim, size in enumerate(x.shape) if dim not in dims])
    return x.abs().amax(dims)


def _descale(largest: Tensor, dtype: torch.dtype) -> Tensor:
    """fp32 scale that makes ``largest`` the largest number of ``dtype``; 1 where that is 0 in fp32."""
    descale = largest.to(torch.float32) / torch.finfo(dtype).max
    return torch.where(descale > 0, descale, 1.0)


def _divided(x: Tensor, descale: Tensor, dtype: torch.dtype) -> Tensor:
    largest = torch.finfo(dtype).max
    return (x.to(torch.float32) / descale).clamp(-largest, largest).to(dtype)


def _by_token(descale: Tensor, block_size: int, seqlen: int) -> Tensor:
    """``(batch, seqlen, nheads, 1)`` of a descale by blocks."""
    return descale.repeat_interleave(block_size, dim=1)[:, :seqlen].unsqueeze(-1)
