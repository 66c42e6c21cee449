"""Tiled backward: every row tile recomputes its probabilities from the log-sum-exp and adds to dk and dv.

With ``P = 2 ** (S - L)``, where ``L`` is the row's base-2 log-sum-exp, ``dv = P' dout`` and
``dS = P * (dout v' - D)`` (Dao et al., "FlashAttention", 2022, appendix B.4). Two rearrangements save passes:
where every ``|L|`` is small, ``2 ** -L`` multiplies the rows of ``dout`` and ``D`` in place of ``P``; and ``D``
is subtracted inside the product, as two more columns of ``dout`` (its value and the rounding error of that)
against columns of ones beside ``v``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends.base import AttentionInputs, ForwardResult, Gradients
from flash_attn.backends.cpu_kernels.forward import accumulation_dtype, attend_shifted, sink_logits
from flash_attn.backends.cpu_kernels.logits import (
    LOG2E,
    Tile,
    exp2_into_product_dtype,
    in_product_dtype,
    logit_tile,
    needs_fp32_scores,
    score_tile,
)
from flash_attn.backends.cpu_kernels.tiles import Workspace, blocks, product, product_dtype
from flash_attn.backends.cpu_kernels.units import KeyTiles, Unit, units

SAFE_LOG2_SUM = 30.0
"""Up to this ``|L|`` the factor ``2 ** -L`` is moved to ``dout`` without danger of leaving the exponent range."""


def attention_backward(
    spec: AttentionSpec, inputs: AttentionInputs, result: ForwardResult, dout: Tensor, dlse: Tensor | None
) -> Gradients:
    """Gradients of q, k and v in their layouts, and ``softmax_d``."""
    dq = torch.zeros_like(inputs.q, memory_format=torch.contiguous_format)
    dk = torch.zeros_like(inputs.k, memory_format=torch.contiguous_format)
    dv = torch.zeros_like(inputs.v, memory_format=torch.contiguous_format)
    softmax_d = torch.zeros_like(result.softmax_lse) if dlse is None else -dlse.to(torch.float32)
    workspace = Workspace()
    for unit in units(spec, inputs):
        _UnitBackward(unit, result, dout, dlse, workspace).run(dq, dk, dv, softmax_d)
    return Gradients(dq, dk, dv, softmax_d)


class _Weights(NamedTuple):
    """Probabilities of a tile less the factor that ``dout`` carries, the same in the dtype of the products, and
    ``tanh`` of the capped scores where there is a softcap."""

    exact: Tensor
    rounded: Tensor
    capped: Tensor | None


class _Normaliser(NamedTuple):
    """How the weights of some query rows become probabilities.

    ``shift`` is subtracted from the logits where they are more than scaled products or ``large``, ``factor`` is left
    for ``dout``, and ``weights`` are those of the rows' only block, where they had to be made already.
    """

    shift: Tensor | None = None
    factor: Tensor | None = None
    weights: _Weights | None = None
    large: bool = False


class _RowTile:
    """What the backward needs of some query rows; every matrix is ``(heads, group * rows, ...)``."""

    def __init__(
        self, rows: tuple[int, int], q: Tensor, dout_and_delta: Tensor, head_dim_v: int, normaliser: _Normaliser
    ) -> None:
        self.rows, self.q, self.dout_and_delta, self.normaliser = rows, q, dout_and_delta, normaliser
        self.q_transposed = q.mT.contiguous()
        self.dout_transposed = dout_and_delta[..., :head_dim_v].mT.contiguous()


class _UnitBackward:
    """Backward of one unit; dk and dv are summed transposed, ``(heads, head_dim, keys)``, in the accumulation dtype."""

    def __init__(
        self, unit: Unit, result: ForwardResult, dout: Tensor, dlse: Tensor | None, workspace: Workspace
    ) -> None:
        self.unit, self.result, self.dout, self.dlse, self.workspace = unit, result, dout, dlse, workspace
        self.product_dtype = product_dtype(unit.spec)
        self.sum_dtype = accumulation_dtype(unit.spec.dtype)
        self.keys, self.values = KeyTiles(unit, unit.inputs.k), KeyTiles(unit, unit.inputs.v)

    def run(self, dq: Tensor, dk: Tensor, dv: Tensor, softmax_d: Tensor) -> None:
        """Fill the unit's part of the gradients."""
        unit, spec = self.unit, self.unit.spec
        take = self.workspace.take
        dk_sum = take("dk", (unit.heads, spec.head_dim, unit.seqlen_k), self.sum_dtype).zero_()
        dv_sum = take("dv", (unit.heads, spec.head_dim_v, unit.seqlen_k), self.sum_dtype).zero_()
        dq_rows, d_rows = unit.queries(dq), unit.row_values(softmax_d)
        for row0, row1 in blocks(unit.band.first_row(unit.seqlen_q), unit.seqlen_q, unit.tile.rows):
            rows = self._row_tile(row0, row1, d_rows)
            dq_tile = self._row_tile_gradients(rows, dk_sum, dv_sum)
            target = dq_rows[..., row0:row1, :]
            target.copy_(dq_tile.mul_(spec.softmax_scale).view(target.shape))
        unit.store_key_gradient(dk, dk_sum.mul_(spec.softmax_scale).mT)
        unit.store_key_gradient(dv, dv_sum.mT)

    def _row_tile(self, row0: int, row1: int, d_rows: Tensor) -> _RowTile:
        """Read and prepare query rows; stores their ``softmax_d``."""
        unit, spec = self.unit, self.unit.spec
        dout = unit.query_tile(self.dout, row0, row1, self.sum_dtype)
        out = unit.query_tile(self.result.out, row0, row1, self.sum_dtype)
        delta = (dout * out).sum(-1)
        if self.dlse is not None:
            dlse = unit.row_values(self.dlse)[..., row0:row1].reshape(delta.shape)
            delta -= dlse.to(self.sum_dtype)
        target = d_rows[..., row0:row1]
        target.copy_(delta.view(target.shape))
        q = unit.query_tile(unit.inputs.q, row0, row1, self.product_dtype)
        normaliser = self._normaliser(row0, row1, q)
        dout_and_delta = dout.new_empty(*dout.shape[:2], spec.head_dim_v + 2)
        dout_columns = dout_and_delta[..., :-2]
        high, low = dout_and_delta[..., -2:-1], dout_and_delta[..., -1:]
        dout_columns.copy_(dout)
        torch.neg(delta.unsqueeze(-1), out=high)
        if spec.dropout_p > 0:
            dout_columns.mul_(1 / (1 - spec.dropout_p))
        if normaliser.factor is not None:
            dout_and_delta[..., :-1].mul_(normaliser.factor.unsqueeze(-1))
        low.copy_(high - high.to(self.product_dtype))
        return _RowTile((row0, row1), q, dout_and_delta.to(self.product_dtype), spec.head_dim_v, normaliser)

    def _normaliser(self, row0: int, row1: int, q: Tensor) -> _Normaliser:
        """The normaliser of query rows ``row0 .. row1``.

        ``softmax_lse`` is rounded to fp32 at the magnitude of a logit, which is too coarse for fp32 and fp64
        gradients: where the row tile has one block, its weights are added up again instead.
        """
        unit = self.unit
        bf16 = self.product_dtype == torch.bfloat16
        column0, column1 = unit.band.columns(row0, row1)
        one_block = column1 - column0 <= unit.tile.columns
        if self.sum_dtype == torch.float64 and not one_block:
            sums = attend_shifted(unit, row0, row1, q, self.keys, self.values, sink_logits(unit), self.workspace)[2]
        else:
            lse = unit.row_values(self.result.softmax_lse)[..., row0:row1].reshape(unit.heads, -1)
            sums = lse.to(self.sum_dtype) * LOG2E
        sums = sums.masked_fill(sums == float("-inf"), 0.0)
        large = sums.abs().max().item() > SAFE_LOG2_SUM
        tile = Tile(unit, row0, row1, column0, column1)
        if large and one_block:
            return _Normaliser(weights=self._softmax(tile, q, self.keys.block(column0, column1)))
        shift: Tensor | None = None
        if large or needs_fp32_scores(unit):
            if bf16:
                return _Normaliser(sums.unsqueeze(-1), large=large)
            shift = sums.round()
            sums -= shift
            shift = shift.unsqueeze(-1)
        if bf16 or not one_block:
            return _Normaliser(shift, sums.neg_().exp2_(), large=large)
        weights = self._weights(tile, q, self.keys.block(column0, column1), shift)
        total = weights.exact.sum(-1)
        sink = sink_logits(unit)
        if sink is not None:
            by_head = total.view(unit.heads, unit.group, -1)
            by_head += (sink * LOG2E - (0.0 if shift is None else shift.view(by_head.shape))).exp2()
        return _Normaliser(shift, total.reciprocal().masked_fill(total == 0, 0.0), weights)

    def _softmax(self, tile: Tile, q: Tensor, keys: Tensor) -> _Weights:
        """Probabilities of rows whose only block this is, by their own maximum: an fp32 lse may be off by powers."""
        logits, capped = logit_tile(tile, q, keys, self.workspace, large=True)
        largest = logits.amax(-1, keepdim=True)
        largest.masked_fill_(largest == float("-inf"), 0.0)
        weights = logits.sub_(largest).exp2_()
        total = weights.sum(-1, keepdim=True)
        sink = sink_logits(self.unit)
        if sink is not None:
            by_head = total.view(self.unit.heads, self.unit.group, -1)
            by_head += (sink * LOG2E - largest.view(by_head.shape)).exp2()
        weights.mul_(total.reciprocal().masked_fill(total == 0, 0.0))
        return _Weights(weights, in_product_dtype(weights, tile, self.workspace), capped)

    def _row_tile_gradients(self, rows: _RowTile, dk_sum: Tensor, dv_sum: Tensor) -> Tensor:
        """Add the row tile's part of dk and dv; returns its dq before the softmax scale."""
        unit, spec, take = self.unit, self.unit.spec, self.workspace.take
        heads, packed_rows, _ = rows.q.shape
        dq_sum: Tensor | None = None
        for column0, column1 in blocks(*unit.band.columns(*rows.rows), unit.tile.columns):
            tile = Tile(unit, *rows.rows, column0, column1)
            columns = column1 - column0
            keys = self.keys.block(column0, column1)
            normaliser = rows.normaliser
            made = normaliser.weights or self._weights(tile, rows.q, keys, normaliser.shift, normaliser.large)
            weights, factors, capped = made.exact, made.rounded, made.capped
            dscores = take("dscores", tile.shape, self.product_dtype)
            if spec.dropout_p > 0:
                kept = tile.kept()
                product(rows.dout_and_delta[..., :-2], self.values.block(column0, column1).mT, dscores)
                minus_delta = rows.dout_and_delta[..., -2:].to(self.sum_dtype).sum(-1, keepdim=True)
                gradient = dscores.to(self.sum_dtype).mul_(kept).add_(minus_delta)
                factors = factors * kept
            else:
                product(rows.dout_and_delta, self._values_and_ones(column0, column1).mT, dscores)
                gradient = dscores
            block = take("dv block", (heads, spec.head_dim_v, columns), self.product_dtype)
            dv_sum[..., column0:column1].add_(product(rows.dout_transposed, factors, block))
            if capped is not None:
                weights.mul_(capped.square_().neg_().add_(1.0))
            if gradient is dscores and weights.dtype == dscores.dtype:
                dscores.mul_(weights)
            else:
                dscores.copy_(weights.to(self.sum_dtype).mul_(gradient.to(self.sum_dtype)))
            block = take("dk block", (heads, spec.head_dim, columns), self.product_dtype)
            dk_sum[..., column0:column1].add_(product(rows.q_transposed, dscores, block))
            block = take("dq block", (heads, packed_rows, spec.head_dim), self.product_dtype)
            product(dscores, keys, block)
            if dq_sum is None:
                dq_sum = take("dq", block.shape, self.sum_dtype).copy_(block)
            else:
                dq_sum.add_(block)
        assert dq_sum is not None
        return dq_sum

    def _weights(self, tile: Tile, q: Tensor, keys: Tensor, shift: Tensor | None, large: bool = False) -> _Weights:
        """Weights of a tile, ``2 ** (logits - shift)``."""
        if shift is None:
            weights = score_tile(tile, q, keys, self.workspace).exp2_()
            tile.clear_hidden(weights)
            return _Weights(weights, weights, None)
        logits, capped = logit_tile(tile, q, keys, self.workspace, large=large)
        logits.sub_(shift)
        if large:
            logits.clamp_(max=0.5)  # what rounding of the lse lets pass; no probability is beyond 1
        return _Weights(*exp2_into_product_dtype(logits, tile, self.workspace), capped)

    def _values_and_ones(self, start: int, stop: int) -> Tensor:
        """Values beside two columns of ones, ``(heads, keys, head_dim_v + 2)``."""
        head_dim_v = self.unit.spec.head_dim_v
        shape = (self.unit.heads, stop - start, head_dim_v + 2)
        tile = self.workspace.take("values and ones", shape, self.product_dtype)
        tile[..., :head_dim_v].copy_(self.values.block(start, stop))
        tile[..., head_dim_v:].fill_(1.0)
        return tile
