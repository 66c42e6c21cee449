"""What the kernels of one attention call work on: tensors, numbers, and the arguments that all kernels share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import triton
from torch import Tensor

# Offsets inside of a tile are 32-bit where a tile of this many rows stays below 2^31 elements.
_MAX_TILE_ROWS = 512
# Smallest base-2 scale: a scale of 0 would turn the -inf of a masked logit into NaN.
_MIN_SCALE = 2.0**-120
_MAX_HEAD_DIM = 512
# Beyond every sequence, and a position plus it stays in 32 bits.
_MAX_CHUNK = 2**30


@dataclass(frozen=True)
class Problem:
    """Tensors and numbers of an attention call.

    Layouts: q ``(batch, seqlen_q, nheads_q, head_dim)`` or, with ``cu_seqlens_q``, ``(total_q, nheads_q, head_dim)``;
    k and v ``(batch_k, seqlen_k, nheads_k, head_dim)``, ``(total_k, nheads_k, head_dim)`` with ``cu_seqlens_k``, or
    ``(num_pages, page_size, nheads_k, head_dim)`` with ``block_table``. The last dimension is contiguous. A window
    bound of -1 is unbounded; causal is ``window_right`` 0. An ``attention_chunk`` of 0 is none. ``alibi_slopes`` is
    fp32 ``(nheads_q,)`` or ``(batch, nheads_q)``, ``learnable_sink`` ``(nheads_q,)``, ``rng_state`` int64 ``(2,)``.
    ``q_descale``, ``k_descale`` and ``v_descale``, fp32 ``(batch, nheads_k)`` with any strides, multiply 8-bit inputs.
    With ``qv``, laid out as q with the head dim of v, scores are ``q.k + qv.v``.
    ``seqused_q`` and ``seqused_k`` int32 ``(batch,)`` are how many of a sequence's rows and keys count.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    max_seqlen_q: int
    max_seqlen_k: int
    softmax_scale: float
    window_left: int = -1
    window_right: int = -1
    softcap: float = 0.0
    dropout_p: float = 0.0
    attention_chunk: int = 0
    cu_seqlens_q: Tensor | None = None
    cu_seqlens_k: Tensor | None = None
    seqused_k: Tensor | None = None
    leftpad_k: Tensor | None = None
    block_table: Tensor | None = None
    cache_batch_idx: Tensor | None = None
    alibi_slopes: Tensor | None = None
    learnable_sink: Tensor | None = None
    rng_state: Tensor | None = None
    q_descale: Tensor | None = None
    k_descale: Tensor | None = None
    v_descale: Tensor | None = None
    qv: Tensor | None = None
    seqused_q: Tensor | None = None

    @property
    def batch_size(self) -> int:
        """Number of sequences."""
        return self.q.shape[0] if self.cu_seqlens_q is None else self.cu_seqlens_q.shape[0] - 1

    @property
    def nheads_q(self) -> int:
        """Query heads."""
        return self.q.shape[-2]

    @property
    def nheads_k(self) -> int:
        """Key and value heads."""
        return self.k.shape[-2]

    @property
    def head_dim(self) -> int:
        """Head dim of q and k."""
        return self.q.shape[-1]

    @property
    def head_dim_v(self) -> int:
        """Head dim of v and of the output."""
        return self.v.shape[-1]

    @property
    def depth(self) -> int:
        """The larger head dim, with qv both together up to 512: what the size of a tile depends on."""
        together = 0 if self.qv is None else min(self.head_dim + self.head_dim_v, _MAX_HEAD_DIM)
        return max(self.head_dim, self.head_dim_v, together)

    @property
    def nheads_per_group(self) -> int:
        """Query heads that share a KV head."""
        return self.nheads_q // self.nheads_k

    @property
    def is_banded(self) -> bool:
        """Whether a causal mask, a window or a chunk bounds the keys of a row."""
        return self.window_left >= 0 or self.window_right >= 0 or self.attention_chunk > 0

    @property
    def has_unused_rows(self) -> bool:
        """Whether rows of q may belong to no sequence, so that no program writes their results."""
        return self.cu_seqlens_q is not None or self.seqused_q is not None

    def kernel_arguments(self) -> dict[str, Any]:
        """Arguments that every attention kernel takes, by the names of its parameters."""
        farthest = self.max_seqlen_q + self.max_seqlen_k
        paged = self.block_table is not None
        return {
            "q_ptr": self.q,
            "k_ptr": self.k,
            "v_ptr": self.v,
            "qv_ptr": self.qv,
            **strides("q", self.q),
            **strides("qv", self.qv),
            **strides("k", self.k),
            **strides("v", self.v),
            "cu_seqlens_q": self.cu_seqlens_q,
            "cu_seqlens_k": self.cu_seqlens_k,
            "seqused_q": self.seqused_q,
            "seqused_k": self.seqused_k,
            "leftpad_k": self.leftpad_k,
            "block_table": self.block_table,
            "stride_table": 0 if self.block_table is None else self.block_table.stride(0),
            "cache_batch_idx": self.cache_batch_idx,
            "alibi_slopes": self.alibi_slopes,
            "stride_alibi": 0 if self.alibi_slopes is None or self.alibi_slopes.dim() == 1 else self.nheads_q,
            "rng_state": self.rng_state if self.dropout_p > 0 else None,
            **_descale("q", self.q_descale),
            **_descale("k", self.k_descale),
            **_descale("v", self.v_descale),
            "rows_q": self.q.shape[-3],
            "rows_k": self.capacity_k,
            "sequences_k": self.k.shape[0] if self.k.dim() == 4 else 1,
            "max_seqlen_q": self.max_seqlen_q,
            "nheads_q": self.nheads_q,
            "nheads_k": self.nheads_k,
            "nheads_per_group": self.nheads_per_group,
            "softmax_scale": self.softmax_scale,
            "scale_log2": max(abs(self.softmax_scale) * math.log2(math.e), _MIN_SCALE),
            "softcap_log2": self.softcap * math.log2(math.e),
            "window_left": min(self.window_left, farthest),
            "window_right": min(self.window_right, farthest),
            "dropout_threshold": min(0xFFFFFFFF, round(self.dropout_p * 2**32)),
            "dropout_scale": 1.0 / (1.0 - self.dropout_p),
            "HEAD_DIM": self.head_dim,
            "HEAD_DIM_V": self.head_dim_v,
            "BLOCK_D": max(16, triton.next_power_of_2(self.head_dim)),
            "BLOCK_DV": max(16, triton.next_power_of_2(self.head_dim_v)),
            "PAGE_SIZE": self.k.shape[1] if paged else 0,
            "HAS_WINDOW_LEFT": self.window_left >= 0,
            "HAS_WINDOW_RIGHT": self.window_right >= 0,
            "CHUNK": min(self.attention_chunk, _MAX_CHUNK),
            "HAS_SOFTCAP": self.softcap > 0,
            "NEGATIVE_SCALE": self.softmax_scale < 0,
            "WIDE_OFFSETS": needs_wide_offsets(self.q, self.k, self.v, self.qv),
        }

    @property
    def capacity_k(self) -> int:
        """Key rows that one sequence can address: the clamp of every length."""
        if self.block_table is not None:
            return self.block_table.shape[1] * self.k.shape[1]
        return self.k.shape[-3]


def strides(name: str, x: Tensor | None) -> Mapping[str, int | None]:
    """Strides of a tensor by batch (or page), row and head; a packed tensor has one batch, no tensor has none."""
    if x is None:
        return dict.fromkeys((f"stride_{name}b", f"stride_{name}s", f"stride_{name}h"))
    return {
        f"stride_{name}b": 0 if x.dim() == 3 else x.stride(0),
        f"stride_{name}s": x.stride(-3),
        f"stride_{name}h": x.stride(-2),
    }


def needs_wide_offsets(*tensors: Tensor | None) -> bool:
    """Whether a tile of one of the tensors spans offsets beyond 32 bits."""
    return _MAX_TILE_ROWS * max(x.stride(-3) for x in tensors if x is not None) >= 2**31


def _descale(name: str, x: Tensor | None) -> Mapping[str, Any]:
    """A scale by batch and KV head, and its strides."""
    return {
        f"{name}_descale": x,
        f"stride_{name}_descale_b": 0 if x is None else x.stride(0),
        f"stride_{name}_descale_h": 0 if x is None else x.stride(1),
    }
