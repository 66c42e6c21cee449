"""Cases of attention and decoding, and their validated random tensors; :mod:`flash_attn.testing` compares them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flash_attn.attention_spec import FP8_DTYPES, AttentionSpec
from flash_attn.backends.base import AttentionInputs, DecodeInputs
from flash_attn.validation import attention_request, decode_request


@dataclass(frozen=True)
class AttentionCase:
    """One forward and backward call. Dense layouts need equal lengths in ``seqlens_q`` and in ``seqlens_k``.

    ``kv_dtype`` is that of k and v where it is not ``dtype``; ``descale`` gives every tensor scales of its own.
    """

    seqlens_q: tuple[int, ...] = (33, 33)
    seqlens_k: tuple[int, ...] = (47, 47)
    nheads_q: int = 4
    nheads_k: int = 4
    head_dim: int = 32
    head_dim_v: int = 32
    dtype: torch.dtype = torch.float32
    varlen: bool = False
    page_size: int = 0
    causal: bool = False
    window_size: tuple[int, int] = (-1, -1)
    softcap: float = 0.0
    softmax_scale: float | None = None
    dropout_p: float = 0.0
    alibi_dims: int = 0
    sink: bool = False
    seqused: bool = False
    leftpad: bool = False
    deterministic: bool = False
    num_splits: int = 0
    backward: bool = True
    kv_dtype: torch.dtype | None = None
    descale: bool = False
    qv: bool = False
    seqused_q: bool = False
    attention_chunk: int = 0
    seed: int = 0


@dataclass(frozen=True)
class DecodeCase:
    """One call of ``flash_attn_with_kvcache`` over caches that hold ``cache_seqlens`` tokens.

    ``seqlens_q`` and ``seqlens_new`` make queries and new tokens ragged, in place of ``seqlen_q`` and ``seqlen_new``;
    ``rotary_offset`` > 0 rotates at positions that are so much further than those in the cache. With ``shares_cache``
    the last sequence reads the cache row (``batch_idx``) or the pages of the first; it can append nothing then.
    """

    cache_seqlens: tuple[int, ...] = (17, 40)
    seqlen_q: int = 1
    seqlen_new: int = 0
    capacity: int = 48
    nheads_q: int = 4
    nheads_k: int = 2
    head_dim: int = 32
    head_dim_v: int = 32
    dtype: torch.dtype = torch.float32
    page_size: int = 0
    causal: bool = True
    window_size: tuple[int, int] = (-1, -1)
    softcap: float = 0.0
    alibi_dims: int = 0
    sink: bool = False
    leftpad: bool = False
    batch_idx: bool = False
    shares_cache: bool = False
    rotary_dim: int = 0
    rotary_interleaved: bool = True
    num_splits: int = 0
    kv_dtype: torch.dtype | None = None
    descale: bool = False
    qv: bool = False
    seqlens_q: tuple[int, ...] | None = None
    seqlens_new: tuple[int, ...] | None = None
    rotary_offset: int = 0
    attention_chunk: int = 0
    seed: int = 0


def make_attention(case: AttentionCase, device: torch.device | str = "cpu") -> tuple[AttentionSpec, AttentionInputs]:
    """Validated random inputs of ``case``, reproducible by its seed."""
    generator = torch.Generator().manual_seed(case.seed)
    batch = len(case.seqlens_q)

    def normal(*shape: int, dtype: torch.dtype = case.dtype) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).to(device)

    def descale() -> Tensor | None:
        drawn = torch.rand(batch, case.nheads_k, generator=generator) + 0.5
        return drawn.to(device) if case.descale else None

    def below(limits: tuple[int, ...]) -> Tensor:
        drawn = [int(torch.randint(0, limit + 1, (), generator=generator)) for limit in limits]
        return torch.tensor(drawn, dtype=torch.int32, device=device)

    paged = case.page_size > 0
    q_shape = (sum(case.seqlens_q),) if case.varlen else (batch, max(case.seqlens_q, default=0))
    block_table = None
    if paged:
        pages = -(-max(case.seqlens_k, default=0) // case.page_size)
        block_table = shuffled_pages(batch, pages, generator).to(device)
        k_shape: tuple[int, ...] = (batch * pages + 1, case.page_size)
    else:
        k_shape = (sum(case.seqlens_k),) if case.varlen else (batch, max(case.seqlens_k, default=0))
    seqused = below(case.seqlens_k) if case.seqused else None
    leftpad = below(tuple(n // 2 for n in case.seqlens_k)) if case.leftpad else None
    rng_state = torch.randint(0, 2**63 - 1, (2,), generator=generator)
    alibi_shape = {1: (case.nheads_q,), 2: (batch, case.nheads_q)}
    alibi = normal(*alibi_shape[case.alibi_dims], dtype=torch.float32).abs() / 4 if case.alibi_dims else None
    kv_dtype = case.kv_dtype or case.dtype
    return attention_request(
        normal(*q_shape, case.nheads_q, case.head_dim),
        normal(*k_shape, case.nheads_k, case.head_dim, dtype=kv_dtype),
        normal(*k_shape, case.nheads_k, case.head_dim_v, dtype=kv_dtype),
        cumulative(case.seqlens_q, device) if case.varlen else None,
        cumulative(case.seqlens_k, device) if case.varlen else None,
        max(case.seqlens_q, default=0),
        max(case.seqlens_k, default=0),
        seqused,
        leftpad,
        block_table,
        alibi,
        normal(case.nheads_q, dtype=torch.float32) if case.sink else None,
        rng_state.to(device) if case.dropout_p > 0 else None,
        case.dropout_p,
        case.softmax_scale,
        case.causal,
        *case.window_size,
        case.softcap,
        case.deterministic,
        False,
        case.num_splits,
        case.backward,
        descale(),
        descale(),
        descale(),
        normal(*q_shape, case.nheads_q, case.head_dim_v) if case.qv else None,
        below(case.seqlens_q) if case.seqused_q else None,
        case.attention_chunk,
    )


def make_decode(case: DecodeCase, device: torch.device | str = "cpu") -> tuple[AttentionSpec, DecodeInputs]:
    """Validated random caches and new tokens of ``case``, reproducible by its seed."""
    generator = torch.Generator().manual_seed(case.seed)
    batch = len(case.cache_seqlens)

    def normal(*shape: int, dtype: torch.dtype = case.dtype) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).to(device)

    def descale() -> Tensor | None:
        drawn = torch.rand(batch, case.nheads_k, generator=generator) + 0.5
        return drawn.to(device) if case.descale else None

    block_table = batch_idx = None
    cache_shape = (batch, case.capacity)
    if case.page_size:
        pages = -(-case.capacity // case.page_size)
        block_table = shuffled_pages(batch, pages, generator).to(device)
        cache_shape = (batch * pages + 1, case.page_size)
    elif case.batch_idx:
        batch_idx = torch.randperm(batch + 1, generator=generator)[:batch].to(torch.int32).to(device)
        cache_shape = (batch + 1, case.capacity)
    shared = block_table if batch_idx is None else batch_idx
    if case.shares_cache and shared is not None:
        shared[-1] = shared[0]
    capacity = case.capacity if block_table is None else block_table.shape[1] * case.page_size
    longest_new = max(case.seqlens_new or (case.seqlen_new,))
    angles = (
        torch.rand(
            capacity + case.rotary_offset + longest_new, case.rotary_dim // 2, generator=generator, dtype=torch.float64
        )
        * 6.28
    )
    cos, sin = (x.to(case.dtype).to(device) if case.rotary_dim else None for x in (angles.cos(), angles.sin()))
    leftpad = [int(torch.randint(0, n // 2 + 1, (), generator=generator)) for n in case.cache_seqlens]
    rotary_seqlens = torch.tensor(case.cache_seqlens, dtype=torch.int32, device=device) + case.rotary_offset
    alibi_shape = {1: (case.nheads_q,), 2: (batch, case.nheads_q)}
    kv_dtype = case.kv_dtype or case.dtype
    new_dtype = kv_dtype if case.dtype in FP8_DTYPES else case.dtype
    q_shape = (batch, case.seqlen_q) if case.seqlens_q is None else (sum(case.seqlens_q),)
    new_shape = (batch, case.seqlen_new) if case.seqlens_new is None else (sum(case.seqlens_new),)
    appends = case.seqlen_new > 0 or case.seqlens_new is not None
    return decode_request(
        normal(*q_shape, case.nheads_q, case.head_dim),
        normal(*cache_shape, case.nheads_k, case.head_dim, dtype=kv_dtype),
        normal(*cache_shape, case.nheads_k, case.head_dim_v, dtype=kv_dtype),
        normal(*new_shape, case.nheads_k, case.head_dim, dtype=new_dtype) if appends else None,
        normal(*new_shape, case.nheads_k, case.head_dim_v, dtype=new_dtype) if appends else None,
        cos,
        sin,
        torch.tensor(case.cache_seqlens, dtype=torch.int32, device=device),
        batch_idx,
        torch.tensor(leftpad, dtype=torch.int32, device=device) if case.leftpad else None,
        block_table,
        normal(*alibi_shape[case.alibi_dims], dtype=torch.float32).abs() / 4 if case.alibi_dims else None,
        normal(case.nheads_q, dtype=torch.float32) if case.sink else None,
        None,
        case.causal,
        *case.window_size,
        case.softcap,
        case.rotary_interleaved,
        case.num_splits,
        descale(),
        descale(),
        descale(),
        normal(*q_shape, case.nheads_q, case.head_dim_v) if case.qv else None,
        None if case.seqlens_q is None else cumulative(case.seqlens_q, device),
        max(case.seqlens_q or (0,)),
        None if case.seqlens_new is None else cumulative(case.seqlens_new, device),
        rotary_seqlens if case.rotary_offset > 0 and case.rotary_dim > 0 else None,
        case.attention_chunk,
    )


def cumulative(seqlens: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
    """int32 cumulative lengths, 0 first."""
    return torch.tensor([0, *seqlens], dtype=torch.int32).cumsum(0, dtype=torch.int32).to(device)


def shuffled_pages(batch: int, pages: int, generator: torch.Generator) -> Tensor:
    """A block table that scatters every sequence over the pages, and leaves one page unused."""
    order = torch.randperm(batch * pages + 1, generator=generator)[: batch * pages]
    return order.to(torch.int32).view(batch, pages)
