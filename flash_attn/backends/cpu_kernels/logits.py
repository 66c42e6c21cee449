"""One tile of logits in base 2: scale, softcap, ALiBi and mask; and the dropout of a tile."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flash_attn.backends.cpu_kernels.tiles import Workspace, product, product_dtype
from flash_attn.backends.cpu_kernels.units import Unit
from flash_attn.backends.dropout import keep_mask

LOG2E = math.log2(math.e)


class Tile:
    """Query rows ``row0 .. row1`` against keys ``column0 .. column1`` of a unit."""

    def __init__(self, unit: Unit, row0: int, row1: int, column0: int, column1: int) -> None:
        self.unit = unit
        self.row0, self.row1, self.column0, self.column1 = row0, row1, column0, column1

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(heads, group * rows, columns)``."""
        unit = self.unit
        return unit.heads, unit.group * (self.row1 - self.row0), self.column1 - self.column0

    def by_query_head(self, x: Tensor) -> Tensor:
        """View of ``(heads, group * rows, columns)`` as ``(heads, group, rows, columns)``."""
        return torch.unflatten(x, 1, (self.unit.group, self.row1 - self.row0))

    def clear_hidden(self, x: Tensor) -> None:
        """Set what the positional mask hides to 0."""
        self.unit.band.clear_hidden(self.by_query_head(x), self.row0, self.column0)

    def kept(self) -> Tensor:
        """Bool ``(heads, group * rows, columns)``: which elements dropout keeps."""
        unit, spec = self.unit, self.unit.spec
        assert unit.inputs.rng_state is not None
        rows = torch.arange(self.row0, self.row1) + unit.row_start
        column0, columns = unit.column_start + self.column0, self.column1 - self.column0
        heads = unit.batch_heads().unsqueeze(-1)
        return keep_mask(unit.inputs.rng_state, spec.dropout_p, heads, rows, column0, columns).flatten(1, 2)


def needs_fp32_scores(unit: Unit) -> bool:
    """Whether the logits are more than scaled products, so that bf16 would round them twice."""
    return unit.spec.softcap > 0 or unit.inputs.alibi_slopes is not None


def score_tile(tile: Tile, q: Tensor, k: Tensor, workspace: Workspace) -> Tensor:
    """Scaled products in base 2, neither capped nor biased nor masked; in the dtype of the products."""
    scores = workspace.take("scores", tile.shape, product_dtype(tile.unit.spec))
    return product(q, k.mT, scores, tile.unit.spec.softmax_scale * LOG2E)


def logit_tile(
    tile: Tile, q: Tensor, k: Tensor, workspace: Workspace, *, large: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Finished logits in base 2, ``-inf`` where masked, in fp32 (fp64 for fp64).

    Where they are ``large``, products of bf16 are not rounded to bf16: its unit in the last place is then more than
    a probability bears. Also returns ``tanh`` of the capped scores where there is a softcap, for its gradient.
    """
    unit, spec = tile.unit, tile.unit.spec
    softcap = spec.softcap if spec.softcap > 0 else 1 / LOG2E
    dtype = product_dtype(spec)
    if large and dtype == torch.bfloat16:
        logits = workspace.take("logits", tile.shape, torch.float32)
        product(q.float(), k.float().mT, logits, spec.softmax_scale / softcap)
    else:
        logits = scores = workspace.take("scores", tile.shape, dtype)
        product(q, k.mT, scores, spec.softmax_scale / softcap)
        if dtype == torch.bfloat16:
            logits = workspace.take("logits", tile.shape, torch.float32).copy_(scores)
    capped = None
    if spec.softcap > 0:
        capped = workspace.take("capped", tile.shape, logits.dtype)
        torch.tanh(logits, out=capped)
        torch.mul(capped, spec.softcap * LOG2E, out=logits)
    by_head = tile.by_query_head(logits)
    if unit.inputs.alibi_slopes is not None:
        slopes = unit.head_values(unit.inputs.alibi_slopes).to(logits.dtype)
        rows = torch.arange(tile.row0, tile.row1).unsqueeze(1) + unit.diagonal
        distance = (rows - torch.arange(tile.column0, tile.column1)).abs_().to(logits.dtype)
        by_head.addcmul_(slopes[..., None, None], distance, value=-LOG2E)
    unit.band.hide(by_head, tile.row0, tile.column0)
    return logits, capped


def exp2_into_product_dtype(logits: Tensor, tile: Tile, workspace: Workspace) -> tuple[Tensor, Tensor]:
    """``2 ** logits`` in place, and the same in the dtype of the products."""
    weights = logits.exp2_()
    return weights, in_product_dtype(weights, tile, workspace)


def in_product_dtype(weights: Tensor, tile: Tile, workspace: Workspace) -> Tensor:
    """``weights``, rounded to the dtype of the products."""
    dtype = product_dtype(tile.unit.spec)
    return weights if weights.dtype == dtype else workspace.take("scores", tile.shape, dtype).copy_(weights)
