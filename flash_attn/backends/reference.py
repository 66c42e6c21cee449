"""The oracle: attention as its definition reads, on the whole score matrix, in float64.

Slow and hungry for memory by design; every other backend is compared with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends.base import AttentionInputs, Backend, DecodeInputs, ForwardResult, Gradients
from flash_attn.backends.kv_append import append_and_rotate


class ReferenceBackend(Backend):
    """Attention by its definition, for any device and any floating dtype.

    Args:
        compute_dtype: dtype of all arithmetic; ``None`` computes in the dtype of the output, as plain PyTorch
            code would.
        dropout_of: the backend whose dropout mask is drawn; ``None`` for this one's own.
    """

    name = "reference"
    device_type = "cpu"

    def __init__(self, compute_dtype: torch.dtype | None = torch.float64, dropout_of: Backend | None = None) -> None:
        self.compute_dtype = compute_dtype
        self._dropout_of = dropout_of or self

    def unsupported_reasons(self, spec: AttentionSpec, device: torch.device) -> list[str]:
        """The definition covers every spec."""
        return []

    def forward(self, spec: AttentionSpec, inputs: AttentionInputs) -> ForwardResult:
        """Attention of validated inputs."""
        with torch.no_grad():
            out, lse, probs = self._attend(spec, inputs)
        attn_probs = probs.to(spec.out_dtype) if spec.return_attn_probs else None
        return ForwardResult(out.to(spec.out_dtype).contiguous(), lse.to(torch.float32).contiguous(), attn_probs)

    def backward(
        self,
        spec: AttentionSpec,
        inputs: AttentionInputs,
        result: ForwardResult,
        dout: Tensor,
        dlse: Tensor | None,
    ) -> Gradients:
        """Gradients by differentiating the definition with autograd."""
        leaves = [tensor.detach().requires_grad_() for tensor in (inputs.q, inputs.k, inputs.v)]
        with _recording_autograd():
            out, lse, _ = self._attend(spec, inputs._replace(q=leaves[0], k=leaves[1], v=leaves[2]))
            loss = (out * dout.to(out.dtype)).sum()
            if dlse is not None:
                seen = lse > float("-inf")
                loss = loss + (lse.masked_fill(~seen, 0.0) * dlse.to(lse.dtype)).sum()
            if loss.requires_grad:
                dq, dk, dv = torch.autograd.grad(loss, leaves, materialize_grads=True)
            else:  # there is no row, so that nothing depends on the inputs
                dq, dk, dv = (torch.zeros_like(leaf) for leaf in leaves)
        softmax_d = (dout.to(out.dtype) * out.detach()).sum(-1).transpose(-1, -2)
        if dlse is not None:
            softmax_d = softmax_d - dlse
        return Gradients(dq, dk, dv, softmax_d.to(torch.float32).contiguous())

    def decode(self, spec: AttentionSpec, inputs: DecodeInputs) -> ForwardResult:
        """Append, rotate and attend to a KV cache; the caches change in place."""
        return self.forward(*append_and_rotate(spec, inputs))

    def _attend(self, spec: AttentionSpec, inputs: AttentionInputs) -> tuple[Tensor, Tensor, Tensor]:
        """Output and lse in their layouts, and signed probabilities ``(batch, nheads, seqlen_q, seqlen_k)``."""
        dtype = self.compute_dtype or spec.out_dtype
        q, q_lengths = _padded_queries(inputs._replace(q=inputs.q.to(dtype)))
        k, v, k_lengths = _padded_keys(inputs._replace(k=inputs.k.to(dtype), v=inputs.v.to(dtype)))
        q = _scaled(q, inputs.q_descale, spec.nheads_per_group)
        k, v = _scaled(k, inputs.k_descale), _scaled(v, inputs.v_descale)
        if inputs.qv is not None:
            qv, _ = _padded_queries(inputs._replace(q=inputs.qv.to(dtype)))
            q, k = torch.cat([q, qv], dim=-1), torch.cat([k, v], dim=-1)
        k = k.repeat_interleave(spec.nheads_per_group, dim=2)
        v = v.repeat_interleave(spec.nheads_per_group, dim=2)
        rows = torch.arange(q.shape[1], device=q.device).view(1, 1, -1, 1)
        columns = torch.arange(k.shape[1], device=q.device).view(1, 1, 1, -1)
        q_len, k_len = q_lengths.view(-1, 1, 1, 1), k_lengths.view(-1, 1, 1, 1)
        diagonal = rows + k_len - q_len

        scores = torch.einsum("bihd,bjhd->bhij", q, k) * spec.softmax_scale
        if spec.softcap > 0:
            scores = spec.softcap * torch.tanh(scores / spec.softcap)
        if inputs.alibi_slopes is not None:
            slopes = inputs.alibi_slopes.to(dtype).view(-1, spec.nheads_q, 1, 1)
            scores = scores - slopes * (diagonal - columns).abs()
        inside = rows < q_len
        visible = inside & (columns < k_len)
        if spec.attention_chunk > 0:
            chunk_start = diagonal - diagonal % spec.attention_chunk
            visible = visible & (columns >= chunk_start) & (columns < chunk_start + spec.attention_chunk)
        if spec.window_left >= 0:
            visible = visible & (columns >= diagonal - spec.window_left)
        if spec.window_right >= 0:
            visible = visible & (columns <= diagonal + spec.window_right)
        logits = scores.masked_fill(~visible, float("-inf"))
        if inputs.learnable_sink is not None:
            sink = inputs.learnable_sink.to(dtype).view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
            logits = torch.cat([logits, sink], dim=-1)
        empty = ~((logits > float("-inf")).any(-1, keepdim=True) & inside)
        logits = logits.masked_fill(empty, 0.0)
        probs = torch.softmax(logits, dim=-1)[..., : k.shape[1]].masked_fill(empty, 0.0)
        lse = torch.logsumexp(logits, dim=-1).masked_fill(empty.squeeze(-1), float("-inf"))

        dropped = signed = probs
        if spec.dropout_p > 0:
            assert inputs.rng_state is not None
            kept = _keep_mask(self._dropout_of, spec, inputs.rng_state, probs)
            dropped = torch.where(kept, probs / (1 - spec.dropout_p), 0.0)
            signed = torch.where(kept, probs, -probs)
        out = torch.einsum("bhij,bjhd->bihd", dropped, v)
        if inputs.cu_seqlens_q is None:
            return out, lse, signed
        return *_packed(out, lse, inputs.cu_seqlens_q, inputs.q.shape[0]), signed


@contextmanager
def _recording_autograd() -> Iterator[None]:
    """Let autograd record although an operator's kernel runs below it."""
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for key in (torch._C.DispatchKey.AutogradFunctionality, torch._C.DispatchKey.ADInplaceOrView):
        excluded = excluded - torch._C.DispatchKeySet(key)
    included = torch._C._dispatch_tls_local_include_set()
    with torch._C._ForceDispatchKeyGuard(included, excluded), torch.enable_grad():
        yield


def _keep_mask(backend: Backend, spec: AttentionSpec, rng_state: Tensor, probs: Tensor) -> Tensor:
    """Dropout's survivors over the whole probability matrix."""
    batch, nheads, seqlen_q, seqlen_k = probs.shape
    batch_heads = torch.arange(batch * nheads, device=probs.device).view(batch, nheads, 1)
    rows = torch.arange(seqlen_q, device=probs.device).view(1, 1, -1)
    return backend.keep_mask(rng_state, spec.dropout_p, batch_heads, rows, 0, seqlen_k)


def _gather_rows(rows: Tensor, index: Tensor, valid: Tensor) -> Tensor:
    """``rows[index]`` where valid and inside of ``rows``, else zeros."""
    valid = valid & (index >= 0) & (index < rows.shape[0])
    with_zero_row = torch.cat([rows, rows.new_zeros(1, *rows.shape[1:])])
    return with_zero_row[torch.where(valid, index, rows.shape[0])]


def _padded_queries(inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
    """Queries as ``(batch, max_seqlen_q, nheads, head_dim)`` and the int64 length of each sequence."""
    q, cu_seqlens = inputs.q, inputs.cu_seqlens_q
    whole = torch.full((q.shape[0],), q.shape[1], device=q.device)
    lengths = whole if cu_seqlens is None else cu_seqlens.long().diff()
    used = lengths if inputs.seqused_q is None else torch.minimum(inputs.seqused_q.long(), lengths)
    if cu_seqlens is None:
        return q, used
    position = torch.arange(inputs.max_seqlen_q, device=q.device)
    index = cu_seqlens[:-1].long().unsqueeze(1) + position
    return _gather_rows(q, index, position < used.unsqueeze(1)), used


def _scaled(x: Tensor, descale: Tensor | None, group: int = 1) -> Tensor:
    """``x`` ``(batch, seqlen, nheads, head_dim)`` times the scale of its sequence and KV head."""
    if descale is None:
        return x
    return x * descale.to(x.dtype).repeat_interleave(group, dim=1)[:, None, :, None]


def _padded_keys(inputs: AttentionInputs) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values as ``(batch, max_seqlen_k, nheads_k, head_dim)`` and the int64 key count of each sequence."""
    k, device = inputs.k, inputs.k.device
    batch = torch.arange(inputs.batch_size, device=device)
    leftpad = torch.zeros_like(batch) if inputs.leftpad_k is None else inputs.leftpad_k.long()
    column = torch.arange(inputs.max_seqlen_k, device=device)
    position = leftpad.unsqueeze(1) + column
    if inputs.block_table is not None:
        page_size, table = k.shape[1], inputs.block_table.long()
        page = (position // max(page_size, 1)).clamp(max=table.shape[1] - 1)
        index = table.gather(1, page) * page_size + position % max(page_size, 1)
        lengths = torch.full_like(batch, table.shape[1] * page_size)
    elif inputs.cu_seqlens_k is not None:
        index = inputs.cu_seqlens_k[:-1].long().unsqueeze(1) + position
    else:
        rows = batch if inputs.cache_batch_idx is None else inputs.cache_batch_idx.long()
        index = rows.unsqueeze(1) * k.shape[1] + position
        lengths = torch.full_like(batch, k.shape[1])
    if inputs.cu_seqlens_k is not None:
        lengths = inputs.cu_seqlens_k.long().diff()
    if inputs.seqused_k is not None:
        limit = lengths if inputs.block_table is None else table.shape[1] * page_size
        lengths = torch.minimum(inputs.seqused_k.long(), torch.as_tensor(limit))
    lengths = (lengths - leftpad).clamp(min=0)
    valid = column < lengths.unsqueeze(1)
    flat = inputs.cu_seqlens_k is None or inputs.block_table is not None
    k, v = (x.flatten(0, 1) if flat else x for x in (inputs.k, inputs.v))
    return _gather_rows(k, index, valid), _gather_rows(v, index, valid), lengths


def _packed(out: Tensor, lse: Tensor, cu_seqlens: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """Padded output and lse in the packed layout; 0 and -inf outside of every sequence."""
    if out.shape[0] == 0 or out.shape[1] == 0:
        return out.new_zeros(total, *out.shape[2:]), lse.new_full((lse.shape[1], total), float("-inf"))
    token = torch.arange(total, device=out.device)
    ends = cu_seqlens[1:].long().contiguous()
    batch = torch.searchsorted(ends, token, right=True).clamp(max=out.shape[0] - 1)
    row = (token - cu_seqlens.long()[batch]).clamp(max=out.shape[1] - 1)
    outside = token >= ends[-1]
    out = out[batch, row].masked_fill(outside.view(-1, 1, 1), 0.0)
    lse = lse[batch, :, row].masked_fill(outside.unsqueeze(1), float("-inf"))
    return out, lse.transpose(0, 1)
