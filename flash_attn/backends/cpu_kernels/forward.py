"""Tiled forward: row tiles over their visible keys, without subtracting the row maximum where that is safe.

``2 ** logit`` of ordinary inputs is far from the ends of fp32's and bf16's common exponent range, so the
maximum is not needed: a row tile is computed without it and its row sums are checked; where one leaves
``SAFE_SUM`` the tile is computed again with the running maximum of Milakov & Gimelshein, "Online normalizer
calculation for softmax" (2018), and so are all tiles after it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends.base import AttentionInputs, ForwardResult
from flash_attn.backends.cpu_kernels.fused import fits_fused, fused_forward
from flash_attn.backends.cpu_kernels.logits import (
    LOG2E,
    Tile,
    exp2_into_product_dtype,
    logit_tile,
    needs_fp32_scores,
    score_tile,
)
from flash_attn.backends.cpu_kernels.tiles import Workspace, blocks, product, product_dtype
from flash_attn.backends.cpu_kernels.units import KeyTiles, Unit, units

SAFE_SUM = (2.0**-40, 2.0**40)
"""Row sums between which no weight that counts, and no product of one with a value, leaves the exponent range."""


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Dtype of sums over keys."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def attention_forward(spec: AttentionSpec, inputs: AttentionInputs) -> ForwardResult:
    """Output, log-sum-exp and, where asked for, probabilities of a validated call."""
    if fits_fused(spec, inputs):
        return fused_forward(spec, inputs)
    q = inputs.q
    out = q.new_zeros(*q.shape[:-1], spec.head_dim_v, dtype=spec.out_dtype)
    rows = (spec.nheads_q, q.shape[0]) if spec.varlen_q else (q.shape[0], spec.nheads_q, q.shape[1])
    lse = torch.full(rows, float("-inf"), dtype=torch.float32)
    probs = None
    if spec.return_attn_probs:
        shape = (inputs.batch_size, spec.nheads_q, inputs.max_seqlen_q, inputs.max_seqlen_k)
        probs = q.new_zeros(shape, dtype=spec.out_dtype)
    workspace = Workspace()
    shifted = False
    for unit in units(spec, inputs):
        shifted = _forward_unit(unit, out, lse, probs, workspace, shifted)
    return ForwardResult(out, lse, probs)


def sink_logits(unit: Unit) -> Tensor | None:
    """Sink logits of the unit's heads, ``(heads, group, 1)`` in the accumulation dtype."""
    if unit.inputs.learnable_sink is None:
        return None
    dtype = accumulation_dtype(unit.spec.dtype)
    return unit.head_values(unit.inputs.learnable_sink).to(dtype).unsqueeze(-1)


def _forward_unit(
    unit: Unit, out: Tensor, lse: Tensor, probs: Tensor | None, workspace: Workspace, shifted: bool
) -> bool:
    """Fill the unit's part of the results; returns whether a maximum has been needed so far."""
    spec, inputs = unit.spec, unit.inputs
    out_rows, lse_rows = unit.queries(out), unit.row_values(lse)
    first_row = unit.band.first_row(unit.seqlen_q)
    sink = sink_logits(unit)
    if sink is not None:
        lse_rows[..., :first_row] = sink.view(*lse_rows.shape[:3], 1)
    keys = KeyTiles(unit, inputs.k) if inputs.qv is None else KeyTiles(unit, inputs.k, inputs.v)
    values = KeyTiles(unit, inputs.v)
    for row0, row1 in blocks(first_row, unit.seqlen_q, unit.tile.rows):
        q = unit.score_queries(row0, row1, product_dtype(spec))
        sums = None if shifted else _attend(unit, row0, row1, q, keys, values, sink, workspace)
        if sums is None:
            shifted = True
            sums = attend_shifted(unit, row0, row1, q, keys, values, sink, workspace)
        weighted, total, log2_total = sums
        weighted.mul_(total.reciprocal_().mul_(1 / (1 - spec.dropout_p)).unsqueeze(-1))
        if inputs.v_descale is not None:
            weighted.mul_(unit.key_head_values(inputs.v_descale))
        shape = (*lse_rows.shape[:3], row1 - row0)
        out_rows[..., row0:row1, :].copy_(weighted.view(*shape, spec.head_dim_v))
        if probs is not None:
            _store_probabilities(unit, row0, row1, q, keys, log2_total, probs, workspace, shifted)
        lse_rows[..., row0:row1].copy_(log2_total.mul_(1 / LOG2E).view(shape))
    return shifted


def _attend(
    unit: Unit,
    row0: int,
    row1: int,
    q: Tensor,
    keys: KeyTiles,
    values: KeyTiles,
    sink: Tensor | None,
    workspace: Workspace,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Weighted values ``(heads, rows, head_dim_v)``, row sums and their base-2 logarithm; ``None`` if unsafe."""
    total: Tensor | None = None
    weighted: Tensor | None = None
    dtype = accumulation_dtype(unit.spec.dtype)
    for column0, column1 in blocks(*unit.band.columns(row0, row1), unit.tile.columns):
        tile = Tile(unit, row0, row1, column0, column1)
        if needs_fp32_scores(unit):
            logits, _ = logit_tile(tile, q, keys.block(column0, column1), workspace)
            weights, factors = exp2_into_product_dtype(logits, tile, workspace)
        else:
            weights = factors = score_tile(tile, q, keys.block(column0, column1), workspace).exp2_()
            tile.clear_hidden(weights)
        sums = row_sums(weights, dtype, workspace)
        total = sums if total is None else total.add_(sums)
        weighted = _add_values(tile, factors, values, weighted, workspace)
    assert total is not None
    assert weighted is not None
    if sink is not None:
        total.view(unit.heads, unit.group, -1).add_((sink * LOG2E).exp2_())
    smallest, largest = torch.aminmax(total)
    if not (smallest.item() >= SAFE_SUM[0] and largest.item() <= SAFE_SUM[1]):
        return None
    return weighted, total, total.log2()


def attend_shifted(
    unit: Unit,
    row0: int,
    row1: int,
    q: Tensor,
    keys: KeyTiles,
    values: KeyTiles,
    sink: Tensor | None,
    workspace: Workspace,
) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`_attend`, with the running maximum of each row subtracted from its logits."""
    heads, rows = unit.heads, unit.group * (row1 - row0)
    dtype = accumulation_dtype(unit.spec.dtype)
    largest = torch.full((heads, rows), float("-inf"), dtype=dtype)
    total = torch.zeros_like(largest)
    if sink is not None:
        largest.view(heads, unit.group, -1).copy_(sink * LOG2E)
        total.masked_fill_(largest > float("-inf"), 1.0)
    weighted: Tensor | None = None
    for column0, column1 in blocks(*unit.band.columns(row0, row1), unit.tile.columns):
        tile = Tile(unit, row0, row1, column0, column1)
        logits, _ = logit_tile(tile, q, keys.block(column0, column1), workspace, large=True)
        seen = torch.maximum(largest, logits.amax(-1))
        shift = seen.masked_fill(seen == float("-inf"), 0.0)
        rescale = (largest - shift).exp2_()
        weights, factors = exp2_into_product_dtype(logits.sub_(shift.unsqueeze(-1)), tile, workspace)
        total.mul_(rescale).add_(weights.sum(-1))
        if weighted is not None:
            weighted.mul_(rescale.unsqueeze(-1))
        weighted = _add_values(tile, factors, values, weighted, workspace)
        largest = seen
    assert weighted is not None
    empty = total == 0
    log2_total = torch.where(empty, float("-inf"), total.log2() + largest)
    return weighted, total.masked_fill_(empty, 1.0), log2_total


def row_sums(weights: Tensor, dtype: torch.dtype, workspace: Workspace) -> Tensor:
    """Sums of rows in the accumulation dtype; PyTorch's own sum of bf16 makes a new fp32 copy each time."""
    if weights.dtype != dtype:
        weights = workspace.take("wide weights", tuple(weights.shape), dtype).copy_(weights)
    return weights.sum(-1)


def _add_values(tile: Tile, weights: Tensor, values: KeyTiles, weighted: Tensor | None, workspace: Workspace) -> Tensor:
    """``weighted + weights @ values`` in the accumulation dtype; drops weights in place where there is dropout."""
    spec = tile.unit.spec
    if spec.dropout_p > 0:
        weights.mul_(tile.kept())
    heads, rows, _ = tile.shape
    block = workspace.take("block", (heads, rows, spec.head_dim_v), weights.dtype)
    product(weights, values.block(tile.column0, tile.column1), block)
    if weighted is not None:
        return weighted.add_(block)
    return workspace.take("weighted", block.shape, accumulation_dtype(spec.dtype)).copy_(block)


def _store_probabilities(
    unit: Unit,
    row0: int,
    row1: int,
    q: Tensor,
    keys: KeyTiles,
    log2_total: Tensor,
    probs: Tensor,
    workspace: Workspace,
    large: bool,
) -> None:
    """Recompute the row tile's probabilities from its row sums, negative where dropout removed them."""
    shift = log2_total.masked_fill(log2_total == float("-inf"), 0.0).unsqueeze(-1)
    heads = slice(unit.head0 * unit.group, unit.head1 * unit.group)
    for column0, column1 in blocks(*unit.band.columns(row0, row1), unit.tile.columns):
        tile = Tile(unit, row0, row1, column0, column1)
        logits, _ = logit_tile(tile, q, keys.block(column0, column1), workspace, large=large)
        weights = logits.sub_(shift).exp2_()
        if unit.spec.dropout_p > 0:
            weights = torch.where(tile.kept(), weights, -weights)
        rows = slice(unit.row_start + row0, unit.row_start + row1)
        columns = slice(unit.column_start + column0, unit.column_start + column1)
        target = probs[unit.batch0 : unit.batch1, heads, rows, columns]
        target.copy_(weights.view(target.shape))
