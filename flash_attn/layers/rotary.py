"""Rotary position embedding as autograd functions and as a module that caches its tables.

The rotation itself is `flash_attn.rotary_embedding`. Functions with `inplace=True` or a trailing underscore
write into their argument; gradients flow through the tensor they return. cos and sin receive no gradient.
A backward never writes into the gradient it is given, which autograd may share with other nodes.
"""

import math
from typing import Any

import torch
from torch import Tensor

from flash_attn.rotary_embedding import (
    apply_rotary,
    check_rotary_arguments,
    dense_positions,
    rotate,
    rotate_pairs,
)


def rotate_half(x: Tensor, interleaved: bool = False) -> Tensor:
    """Turn every channel pair of x (..., dim) by 90 degrees: (x0, x1) becomes (-x1, x0).

    Pairs are (i, i + dim / 2), or (2i, 2i + 1) if interleaved.

    Raises:
        ValueError: dim is odd.
    """
    if x.shape[-1] % 2:
        raise ValueError(f"x has shape {tuple(x.shape)}; accepted is an even last dimension")
    if interleaved:
        return torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def apply_rotary_emb_torch(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> Tensor:
    """Rotate x by per-token tables, differentiable in x, cos and sin.

    Args:
        x: (batch, seqlen, nheads, head_dim).
        cos: (seqlen, rotary_dim / 2) or (batch, seqlen, rotary_dim / 2); rotary_dim <= head_dim.
        sin: same shape as cos.
        interleaved: pairs are channels (2i, 2i + 1) instead of (i, i + rotary_dim / 2).

    Returns:
        Tensor of x's shape; its dtype is the promotion of x's and cos's.

    Raises:
        ValueError: a shape does not fit.
    """
    if x.ndim < 3 or cos.ndim < 2 or cos.shape[-2] != x.shape[-3]:
        raise ValueError(f"cos has shape {tuple(cos.shape)}; accepted is a row for every token of x, {tuple(x.shape)}")
    if 2 * cos.shape[-1] > x.shape[-1]:
        raise ValueError(
            f"cos has {cos.shape[-1]} columns, a rotary_dim of {2 * cos.shape[-1]}; "
            f"accepted is at most the head_dim of x, {x.shape[-1]}"
        )
    if sin.shape != cos.shape:
        raise ValueError(f"sin has shape {tuple(sin.shape)}; accepted is the shape of cos, {tuple(cos.shape)}")
    x = x.to(torch.promote_types(x.dtype, cos.dtype))
    return rotate_pairs(x, cos.unsqueeze(-2), sin.unsqueeze(-2), interleaved=interleaved)


def _save_tensors(ctx: Any, *tensors: Tensor | None, seqlen_offsets: int | Tensor) -> None:
    """Save tensors and the offset, which save_for_backward takes only as a tensor."""
    as_tensor = isinstance(seqlen_offsets, Tensor)
    ctx.seqlen_offsets = None if as_tensor else seqlen_offsets
    ctx.save_for_backward(*tensors, seqlen_offsets if as_tensor else None)


def _saved_tensors(ctx: Any) -> tuple[Any, ...]:
    """Tensors of `_save_tensors`, the offset last."""
    *tensors, offsets = ctx.saved_tensors
    return (*tensors, ctx.seqlen_offsets if offsets is None else offsets)


class ApplyRotaryEmb(torch.autograd.Function):
    """Autograd form of `apply_rotary`; see `apply_rotary_emb`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        interleaved: bool = False,
        inplace: bool = False,
        seqlen_offsets: int | Tensor = 0,
        cu_seqlens: Tensor | None = None,
        max_seqlen: int | None = None,
    ) -> Tensor:
        """Rotate x."""
        _save_tensors(ctx, cos, sin, cu_seqlens, seqlen_offsets=seqlen_offsets)
        ctx.interleaved, ctx.max_seqlen = interleaved, max_seqlen
        return apply_rotary(x, cos, sin, seqlen_offsets, cu_seqlens, max_seqlen, interleaved, inplace)

    @staticmethod
    def backward(ctx: Any, do: Tensor) -> tuple[Tensor | None, ...]:
        """Rotate the gradient backwards."""
        cos, sin, cu_seqlens, seqlen_offsets = _saved_tensors(ctx)
        dx = apply_rotary(do, cos, sin, seqlen_offsets, cu_seqlens, ctx.max_seqlen, ctx.interleaved, conjugate=True)
        return dx, None, None, None, None, None, None, None


def apply_rotary_emb(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    interleaved: bool = False,
    inplace: bool = False,
    seqlen_offsets: int | Tensor = 0,
    cu_seqlens: Tensor | None = None,
    max_seqlen: int | None = None,
) -> Tensor:
    """Rotate the first rotary_dim channels of x by its tokens' positions, differentiable in x.

    Args:
        x: (batch, seqlen, nheads, head_dim), or (total, nheads, head_dim) with cu_seqlens.
        cos: (seqlen_ro, rotary_dim / 2) in x's dtype; rotary_dim <= head_dim.
        sin: same shape and dtype as cos.
        interleaved: pairs are channels (2i, 2i + 1) instead of (i, i + rotary_dim / 2).
        inplace: write into x; use the returned tensor from then on.
        seqlen_offsets: position of each sequence's first token: an int or (batch,) int32 or int64.
        cu_seqlens: (batch + 1,) int32 or int64, cumulative sequence lengths.
        max_seqlen: longest sequence; required with cu_seqlens.

    Returns:
        Tensor of x's shape and dtype.

    Raises:
        TypeError, ValueError: as `flash_attn.rotary_embedding.apply_rotary`.
    """
    out: Tensor = ApplyRotaryEmb.apply(x, cos, sin, interleaved, inplace, seqlen_offsets, cu_seqlens, max_seqlen)
    return out


apply_rotary_emb_func = apply_rotary_emb


def _split_q_k(qkv: Tensor, num_heads_q: int | None) -> tuple[Tensor, Tensor]:
    """Views of the query and key heads of a packed tensor."""
    if qkv.ndim == 5:
        if qkv.shape[2] != 3:
            raise ValueError(f"qkv has shape {tuple(qkv.shape)}; accepted is (batch, seqlen, 3, nheads, head_dim)")
        if num_heads_q is not None and num_heads_q != qkv.shape[3]:
            raise ValueError(f"num_heads_q is {num_heads_q}; accepted with qkv of {qkv.shape[3]} heads is None or that")
        return qkv[:, :, 0], qkv[:, :, 1]
    if qkv.ndim != 4:
        raise ValueError(
            f"qkv has shape {tuple(qkv.shape)}; accepted are (batch, seqlen, 3, nheads, head_dim) and "
            "(batch, seqlen, num_heads_q + 2 * num_heads_k, head_dim)"
        )
    if num_heads_q is None:
        raise ValueError("num_heads_q is None; a qkv of four dimensions needs the number of query heads")
    num_heads_k, odd = divmod(qkv.shape[2] - num_heads_q, 2)
    if num_heads_q < 0 or num_heads_k < 0 or odd:
        raise ValueError(
            f"num_heads_q is {num_heads_q}; qkv has {qkv.shape[2]} heads, which must be num_heads_q + 2 * num_heads_k"
        )
    return qkv[:, :, :num_heads_q], qkv[:, :, num_heads_q : num_heads_q + num_heads_k]


def _rotate_q_k_(
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    cos_k: Tensor | None,
    sin_k: Tensor | None,
    interleaved: bool,
    seqlen_offsets: int | Tensor,
    num_heads_q: int | None,
    conjugate: bool = False,
) -> Tensor:
    if (cos_k is None) != (sin_k is None):
        raise ValueError("cos_k and sin_k must be given together; one of them is None")
    q, k = _split_q_k(qkv, num_heads_q)
    cos_k, sin_k = (cos if cos_k is None else cos_k), (sin if sin_k is None else sin_k)
    # Both are checked before either is written: an error leaves qkv as it was.
    check_rotary_arguments(q, cos, sin, seqlen_offsets)
    check_rotary_arguments(k, cos_k, sin_k, seqlen_offsets)
    positions = dense_positions(qkv.shape[1], seqlen_offsets, qkv.device)
    rotate(q, cos, sin, positions, interleaved=interleaved, conjugate=conjugate, inplace=True)
    rotate(k, cos_k, sin_k, positions, interleaved=interleaved, conjugate=conjugate, inplace=True)
    return qkv


class ApplyRotaryEmbQKV_(torch.autograd.Function):  # noqa: N801
    """Autograd form of `apply_rotary_emb_qkv_`."""

    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        cos: Tensor,
        sin: Tensor,
        cos_k: Tensor | None = None,
        sin_k: Tensor | None = None,
        interleaved: bool = False,
        seqlen_offsets: int | Tensor = 0,
        num_heads_q: int | None = None,
    ) -> Tensor:
        """Rotate q and k inside qkv."""
        _save_tensors(ctx, cos, sin, cos_k, sin_k, seqlen_offsets=seqlen_offsets)
        ctx.interleaved, ctx.num_heads_q = interleaved, num_heads_q
        return _rotate_q_k_(qkv, cos, sin, cos_k, sin_k, interleaved, seqlen_offsets, num_heads_q)

    @staticmethod
    def backward(ctx: Any, dqkv: Tensor) -> tuple[Tensor | None, ...]:
        """Rotate the gradients of q and k backwards."""
        cos, sin, cos_k, sin_k, seqlen_offsets = _saved_tensors(ctx)
        dqkv = dqkv.clone(memory_format=torch.contiguous_format)
        _rotate_q_k_(dqkv, cos, sin, cos_k, sin_k, ctx.interleaved, seqlen_offsets, ctx.num_heads_q, conjugate=True)
        return dqkv, None, None, None, None, None, None, None


def apply_rotary_emb_qkv_(
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    cos_k: Tensor | None = None,
    sin_k: Tensor | None = None,
    interleaved: bool = False,
    seqlen_offsets: int | Tensor = 0,
    num_heads_q: int | None = None,
) -> Tensor:
    """Rotate q and k inside a packed qkv, in place, differentiable in qkv.

    Args:
        qkv: (batch, seqlen, 3, nheads, head_dim) or
            (batch, seqlen, num_heads_q + 2 * num_heads_k, head_dim).
        cos: (seqlen_ro, rotary_dim / 2) in qkv's dtype; rotary_dim <= head_dim.
        sin: same shape and dtype as cos.
        cos_k: table for k, by default cos; given together with sin_k.
        sin_k: table for k, by default sin.
        interleaved: pairs are channels (2i, 2i + 1) instead of (i, i + rotary_dim / 2).
        seqlen_offsets: position of each sequence's first token: an int or (batch,) int32 or int64.
        num_heads_q: query heads; required for a qkv of four dimensions.

    Returns:
        qkv, rotated; use the returned tensor from then on.

    Raises:
        TypeError, ValueError: shapes do not fit, or as `flash_attn.rotary_embedding.apply_rotary`.
    """
    out: Tensor = ApplyRotaryEmbQKV_.apply(qkv, cos, sin, cos_k, sin_k, interleaved, seqlen_offsets, num_heads_q)
    return out


class ApplyRotaryEmbKV_(torch.autograd.Function):  # noqa: N801
    """Autograd form of `apply_rotary_emb_kv_`."""

    @staticmethod
    def forward(
        ctx: Any,
        kv: Tensor,
        cos: Tensor,
        sin: Tensor,
        interleaved: bool = False,
        seqlen_offsets: int | Tensor = 0,
    ) -> Tensor:
        """Rotate k inside kv."""
        if kv.ndim != 5 or kv.shape[2] != 2:
            raise ValueError(f"kv has shape {tuple(kv.shape)}; accepted is (batch, seqlen, 2, nheads, head_dim)")
        _save_tensors(ctx, cos, sin, seqlen_offsets=seqlen_offsets)
        ctx.interleaved = interleaved
        apply_rotary(kv[:, :, 0], cos, sin, seqlen_offsets, interleaved=interleaved, inplace=True)
        return kv

    @staticmethod
    def backward(ctx: Any, dkv: Tensor) -> tuple[Tensor | None, ...]:
        """Rotate the gradient of k backwards."""
        cos, sin, seqlen_offsets = _saved_tensors(ctx)
        dkv = dkv.clone(memory_format=torch.contiguous_format)
        apply_rotary(dkv[:, :, 0], cos, sin, seqlen_offsets, interleaved=ctx.interleaved, inplace=True, conjugate=True)
        return dkv, None, None, None, None


def apply_rotary_emb_kv_(
    kv: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False, seqlen_offsets: int | Tensor = 0
) -> Tensor:
    """Rotate k inside a packed kv (batch, seqlen, 2, nheads, head_dim), in place, differentiable in kv.

    The other arguments, the result and the errors are those of `apply_rotary_emb_qkv_`.
    """
    out: Tensor = ApplyRotaryEmbKV_.apply(kv, cos, sin, interleaved, seqlen_offsets)
    return out


class RotaryEmbedding(torch.nn.Module):
    """Rotary embedding with tables that grow with the sequences seen.

    RoFormer (Su et al., arXiv 2104.09864); with scale_base, XPos (Sun et al., arXiv 2212.10554), whose tables
    for q are multiplied and those for k divided by a scale that decays with the position.

    Attributes:
        inv_freq: float32 (dim / 2,), angle per position of each pair; not saved in the state dict.
        scale: float32 (dim / 2,) base of the XPos decay, or None; not saved in the state dict.
    """

    inv_freq: Tensor
    scale: Tensor | None

    def __init__(
        self,
        dim: int,
        base: float = 10000.0,
        interleaved: bool = False,
        scale_base: float | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        """Make the frequencies.

        Args:
            dim: rotary_dim, even.
            base: longest wavelength over 2 pi.
            interleaved: pairs are channels (2i, 2i + 1) instead of (i, i + dim / 2).
            scale_base: positions over which the XPos scale decays once (512 is usual); None is plain rotary.
            device: where the frequencies live.

        Raises:
            ValueError: dim is odd or negative, or base or scale_base is not a positive finite number.
        """
        super().__init__()
        if dim % 2 or dim < 0:
            raise ValueError(f"dim is {dim}; accepted are even numbers of 0 or more")
        for name, value in (("base", base), ("scale_base", scale_base)):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; accepted are positive finite numbers")
        self.dim = dim
        self.base = float(base)
        self.interleaved = interleaved
        self.scale_base = scale_base
        self.register_buffer("inv_freq", self._compute_inv_freq(device), persistent=False)
        self.register_buffer("scale", None if scale_base is None else self._compute_scale(device), persistent=False)
        self._seq_len_cached = 0
        self._cos_cached: Tensor | None = None
        self._sin_cached: Tensor | None = None
        self._cos_k_cached: Tensor | None = None
        self._sin_k_cached: Tensor | None = None

    def _channels(self, device: torch.device | str | None) -> Tensor:
        return torch.arange(0, self.dim, 2, device=device, dtype=torch.float32)

    def _compute_inv_freq(self, device: torch.device | str | None = None) -> Tensor:
        return 1.0 / (self.base ** (self._channels(device) / self.dim))

    def _compute_scale(self, device: torch.device | str | None = None) -> Tensor:
        return (self._channels(device) + 0.4 * self.dim) / (1.4 * self.dim)

    def _cache_is_stale(self, seqlen: int, device: torch.device | None, dtype: torch.dtype | None) -> bool:
        cached = self._cos_cached
        if cached is None or seqlen > self._seq_len_cached or cached.device != device or cached.dtype != dtype:
            return True
        # Autograd cannot save a table that was made in inference mode.
        return cached.is_inference() and not torch.is_inference_mode_enabled()

    def _update_cos_sin_cache(
        self, seqlen: int, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        if not self._cache_is_stale(seqlen, device, dtype):
            return
        self._seq_len_cached = seqlen
        # After module.half() the buffers are too coarse for angles of far positions.
        inv_freq = self.inv_freq if self.inv_freq.dtype == torch.float32 else self._compute_inv_freq()
        positions = torch.arange(seqlen, device=device, dtype=torch.float32)
        angles = torch.outer(positions, inv_freq.to(device))
        cos, sin = torch.cos(angles), torch.sin(angles)
        if self.scale is None or self.scale_base is None:
            self._cos_cached, self._sin_cached = cos.to(dtype), sin.to(dtype)
            return
        scale = self.scale if self.scale.dtype == torch.float32 else self._compute_scale()
        decay = scale.to(device) ** ((positions - seqlen // 2) / self.scale_base).unsqueeze(-1)
        self._cos_cached, self._sin_cached = (cos * decay).to(dtype), (sin * decay).to(dtype)
        self._cos_k_cached, self._sin_k_cached = (cos / decay).to(dtype), (sin / decay).to(dtype)

    def forward(
        self,
        qkv: Tensor,
        kv: Tensor | None = None,
        seqlen_offset: int | Tensor = 0,
        max_seqlen: int | None = None,
        num_heads_q: int | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Rotate q and k in place.

        Args:
            qkv: (batch, seqlen, 3, nheads, head_dim) or
                (batch, seqlen, num_heads_q + 2 * num_heads_k, head_dim);
                with kv it is q, (batch, seqlen, nheads, head_dim).
            kv: (batch, seqlen, 2, nheads_k, head_dim), optional.
            seqlen_offset: position of each sequence's first token: an int or (batch,) int32 or int64.
            max_seqlen: positions to make tables for; needed once with an offset tensor.
            num_heads_q: query heads; required for a packed qkv of four dimensions.

        Returns:
            qkv, or (q, kv); use the returned tensors from then on.

        Raises:
            ValueError: an offset tensor came without max_seqlen before any table was made.
            TypeError, ValueError: as `apply_rotary_emb_qkv_`.
        """
        if max_seqlen is not None:
            self._update_cos_sin_cache(max_seqlen, device=qkv.device, dtype=qkv.dtype)
        elif not isinstance(seqlen_offset, Tensor):
            self._update_cos_sin_cache(qkv.shape[1] + seqlen_offset, device=qkv.device, dtype=qkv.dtype)
        cos, sin = self._cos_cached, self._sin_cached
        if cos is None or sin is None:
            raise ValueError("max_seqlen is None; with a seqlen_offset tensor the first call needs it")
        cos_k, sin_k = (None, None) if self.scale is None else (self._cos_k_cached, self._sin_k_cached)
        if kv is None:
            return apply_rotary_emb_qkv_(qkv, cos, sin, cos_k, sin_k, self.interleaved, seqlen_offset, num_heads_q)
        q = apply_rotary_emb(qkv, cos, sin, self.interleaved, inplace=True, seqlen_offsets=seqlen_offset)
        cos_k, sin_k = (cos if cos_k is None else cos_k), (sin if sin_k is None else sin_k)
        return q, apply_rotary_emb_kv_(kv, cos_k, sin_k, self.interleaved, seqlen_offset)
