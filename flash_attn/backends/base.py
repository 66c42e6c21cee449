"""The contract between dispatch and a backend: the tensors of a call, what comes back, the Backend class.

Conventions that every backend keeps:

- Query layout is ``(batch, seqlen_q, nheads_q, head_dim)``, or ``(total_q, nheads_q, head_dim)`` with
  int32 ``cu_seqlens_q`` of ``batch + 1`` entries. Only the last dimension is contiguous; strides are honoured.
- Key and value layout, by ``spec.kv_layout``: ``dense`` ``(batch_k, seqlen_k, nheads_k, head_dim)``, ``varlen``
  ``(total_k, nheads_k, head_dim)`` with ``cu_seqlens_k``, ``paged`` ``(num_pages, page_size, nheads_k, head_dim)``
  with int32 ``block_table`` ``(batch, max_pages)``. The value head dim may differ.
- Keys that sequence ``b`` sees: its first ``seqused_k[b]`` rows (all of its rows without ``seqused_k``), less the
  first ``leftpad_k[b]``. Masks and ALiBi count positions from ``leftpad_k[b]``, so an effective key length is
  ``max(0, length - leftpad_k[b])``.
- Query head ``h`` reads KV head ``h // (nheads_q // nheads_k)``.
- Where there is a descale, fp32 ``(batch, nheads_k)`` and possibly an expanded view, the numbers meant are
  ``q * q_descale``, ``k * k_descale`` and ``v * v_descale`` of the sequence and the KV head (a query head takes that
  of its KV head). The output is ``spec.out_dtype``.
- With ``qv``, laid out as q with the head dim of v, a score is ``q.k + qv.v``.
- Sequence ``b`` has ``seqused_q[b]`` queries where that is given (no more than its rows): the rows behind them give
  output 0 and lse ``-inf``, and positions are aligned to the last query that counts.
- A logit is ``softmax_scale * q.k``, then ``softcap * tanh(logit / softcap)`` where softcap > 0, then
  ``- slope * |i + seqlen_k - seqlen_q - j|`` with ALiBi. A sink logit joins the denominator, never the output.
- ``softmax_lse`` is the fp32 natural logarithm of the denominator, ``(batch, nheads_q, seqlen_q)`` or
  ``(nheads_q, total_q)``. A row that sees no key has output 0 and lse ``-inf`` (with a sink: the sink itself).
- Dropout keeps what :meth:`Backend.keep_mask` says. ``attn_probs`` is the normalised probability matrix
  ``(batch, nheads_q, max_seqlen_q, max_seqlen_k)``, negative where dropout removed an element.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends import dropout


class AttentionInputs(NamedTuple):
    """Tensors and lengths of a forward call, validated; ``None`` where the spec does not have them."""

    q: Tensor
    k: Tensor
    v: Tensor
    max_seqlen_q: int
    max_seqlen_k: int
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
        """Number of sequences in the call."""
        return self.q.shape[0] if self.cu_seqlens_q is None else self.cu_seqlens_q.shape[0] - 1


class ForwardResult(NamedTuple):
    """Output, log-sum-exp and, where the spec asks for it, the probability matrix."""

    out: Tensor
    softmax_lse: Tensor
    attn_probs: Tensor | None = None


class Gradients(NamedTuple):
    """Gradients of q, k and v in their layouts, and ``softmax_d``.

    ``softmax_d`` is fp32 ``rowsum(dout * out) - dlse`` in the layout of ``softmax_lse``; the gradient of
    ``learnable_sink`` is computed from it above the backends.
    """

    dq: Tensor
    dk: Tensor
    dv: Tensor
    softmax_d: Tensor


class DecodeInputs(NamedTuple):
    """Tensors of ``flash_attn_with_kvcache``.

    ``k_new``/``v_new`` ``(batch, seqlen_new, nheads_k, head_dim)`` are written into the caches in place at
    ``cache_seqlens`` before attention; ``rotary_cos``/``rotary_sin`` ``(seqlen_ro, rotary_dim / 2)`` turn
    ``k_new`` and ``q`` at absolute cache positions (``q`` at ``cache_seqlens + i`` under a causal or local mask,
    else at ``cache_seqlens``). Attention then sees ``cache_seqlens + seqlen_new`` keys a sequence.

    Where the caches are fp8 and the new tokens are not, ``k_new / k_descale`` and ``v_new / v_descale``, limited to
    the range of the dtype, are written. ``rotary_seqlens`` int32 ``(batch,)`` replaces ``cache_seqlens`` as position
    of the first new token and query. With int32 ``cu_seqlens_q`` ``(batch + 1,)`` q is ``(total_q, nheads_q,
    head_dim)``, and no sequence has more than ``max_seqlen_q`` queries; with ``cu_seqlens_k_new`` ``k_new``/``v_new``
    are ``(total_new, nheads_k, head_dim)`` likewise.
    """

    q: Tensor
    k_cache: Tensor
    v_cache: Tensor
    k_new: Tensor | None = None
    v_new: Tensor | None = None
    rotary_cos: Tensor | None = None
    rotary_sin: Tensor | None = None
    cache_seqlens: Tensor | None = None
    cache_batch_idx: Tensor | None = None
    cache_leftpad: Tensor | None = None
    block_table: Tensor | None = None
    alibi_slopes: Tensor | None = None
    learnable_sink: Tensor | None = None
    q_descale: Tensor | None = None
    k_descale: Tensor | None = None
    v_descale: Tensor | None = None
    qv: Tensor | None = None
    cu_seqlens_q: Tensor | None = None
    max_seqlen_q: int = 0
    cu_seqlens_k_new: Tensor | None = None
    rotary_seqlens: Tensor | None = None

    @property
    def batch_size(self) -> int:
        """Number of sequences in the call."""
        return self.q.shape[0] if self.cu_seqlens_q is None else self.cu_seqlens_q.shape[0] - 1

    @property
    def capacity(self) -> int:
        """Rows of cache that one sequence can address."""
        pages = 1 if self.block_table is None else self.block_table.shape[1]
        return self.k_cache.shape[1] * pages

    def over_cache(self, q: Tensor, seqused_k: Tensor | None) -> AttentionInputs:
        """Attention of ``q``, laid out as the queries, to ``seqused_k`` rows of the caches as they are."""
        return AttentionInputs(
            q,
            self.k_cache,
            self.v_cache,
            q.shape[1] if self.cu_seqlens_q is None else self.max_seqlen_q,
            self.capacity,
            cu_seqlens_q=self.cu_seqlens_q,
            seqused_k=seqused_k,
            leftpad_k=self.cache_leftpad,
            block_table=self.block_table,
            cache_batch_idx=self.cache_batch_idx,
            alibi_slopes=self.alibi_slopes,
            learnable_sink=self.learnable_sink,
            q_descale=self.q_descale,
            k_descale=self.k_descale,
            v_descale=self.v_descale,
            qv=self.qv,
        )


class Backend(ABC):
    """One implementation of attention. Knows nothing of autograd, the environment or other backends."""

    name: str

    @property
    def device_type(self) -> str:
        """Kind of device whose tensors this backend takes here; PyTorch calls AMD's GPUs ``cuda`` too."""
        return "cuda"

    @property
    def emulated(self) -> bool:
        """Whether kernels made for a GPU are simulated or interpreted here, thousands of times slower."""
        return False

    @abstractmethod
    def unsupported_reasons(self, spec: AttentionSpec, device: torch.device) -> list[str]:
        """Every reason why this version of the backend cannot answer ``spec`` on that kind of device; may be empty.

        The support matrix is made of these answers: they are the same on every machine.
        """

    def machine_reasons(self, device: torch.device) -> list[str]:
        """Every reason why nothing runs on ``device`` here, whatever the spec: what is not installed, built or there.

        A request is answered where there are neither these nor :meth:`unsupported_reasons` nor :meth:`build_reasons`.
        """
        return ["PyTorch sees no GPU"] if device.type == "cuda" and not torch.cuda.is_available() else []

    def build_reasons(self, spec: AttentionSpec, device: torch.device) -> list[str]:
        """Every reason why what was built or runs here cannot answer ``spec``; asked where there are no others."""
        return []

    def details(self) -> dict[str, str]:
        """What ``python -m flash_attn info`` says of how this backend runs here."""
        return {}

    def keep_mask(
        self, rng_state: Tensor, dropout_p: float, batch_heads: Tensor, rows: Tensor, first_column: int, columns: int
    ) -> Tensor:
        """Which probabilities survive dropout, as :func:`flash_attn.backends.dropout.keep_mask` unless overridden."""
        return dropout.keep_mask(rng_state, dropout_p, batch_heads, rows, first_column, columns)

    @abstractmethod
    def forward(self, spec: AttentionSpec, inputs: AttentionInputs) -> ForwardResult:
        """Attention of validated inputs."""

    @abstractmethod
    def backward(
        self,
        spec: AttentionSpec,
        inputs: AttentionInputs,
        result: ForwardResult,
        dout: Tensor,
        dlse: Tensor | None,
    ) -> Gradients:
        """Gradients for ``forward(spec, inputs) == result``; ``dlse`` is the gradient of ``softmax_lse``."""

    @abstractmethod
    def decode(self, spec: AttentionSpec, inputs: DecodeInputs) -> ForwardResult:
        """Append, rotate and attend to a KV cache; the caches change in place."""
