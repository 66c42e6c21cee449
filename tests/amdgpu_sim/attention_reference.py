"""Attention in float64 and how far the kernels' result may be from it, element by element.

The bounds are first-order rounding analysis of the kernels in :mod:`attention_kernels`: what is stored in the
tensors' type is rounded once (half a unit of that type, or half of its smallest number), sums of n products in
float32 lose at most n units of float32. They are doubled, which covers products of errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
FLOAT32 = 2.0**-24


@dataclass(frozen=True)
class Rounding:
    """Of the tensors' type: unit roundoff and smallest number; of matrix products: roundoff of their inputs."""

    unit: float
    tiny: float
    product: float = 0.0


class Attention:
    """Forward and gradients of (batch, seqlen, nheads, head_dim) float64 arrays."""

    def __init__(self, tensors: Sequence[Array], scale: float, causal: bool) -> None:
        """Compute everything from q, k, v and dout; heads come to the front: (batch, nheads, seqlen, head_dim)."""
        self.q, self.k, self.v, self.dout = (x.astype(np.float64).swapaxes(1, 2) for x in tensors)
        self.scale = scale
        self.scores = self.q @ self.k.swapaxes(2, 3) * scale
        visible = np.tril(np.ones(self.scores.shape[-2:], bool)) if causal else np.ones(self.scores.shape[-2:], bool)
        masked = np.where(visible, self.scores, -np.inf)
        peak = masked.max(-1, keepdims=True)
        weights = np.exp(masked - peak)
        self.visible = visible
        self.lse = (peak + np.log(weights.sum(-1, keepdims=True)))[..., 0]
        self.p = weights / weights.sum(-1, keepdims=True)
        self.out = self.p @ self.v
        self.delta = (self.out * self.dout).sum(-1)
        self.dp = self.dout @ self.v.swapaxes(2, 3)
        self.ds = self.p * (self.dp - self.delta[..., None]) * scale
        self.dq, self.dk, self.dv = self.ds @ self.k, self.ds.swapaxes(2, 3) @ self.q, self.p.swapaxes(2, 3) @ self.dout

    def _probability_error(self, r: Rounding) -> Array:
        """Of the unrounded probabilities: the score's error and that of the exponent, a few float32 operations."""
        head_dim = self.q.shape[-1]
        score = (
            self.scale * (np.abs(self.q) @ np.abs(self.k).swapaxes(2, 3)) * ((head_dim + 4) * FLOAT32 + 2 * r.product)
        )
        worst = np.where(self.visible, score, 0).max(-1, keepdims=True)
        largest = np.where(self.visible, np.abs(self.scores), 0).max(-1, keepdims=True) + np.abs(self.lse)[..., None]
        error: Array = self.p * (score + worst + (8 * largest + self.p.shape[-1] + 16) * FLOAT32)
        return error

    def forward_bounds(self, r: Rounding, stored: Rounding) -> tuple[Array, Array]:
        """Of the output (batch, seqlen, nheads, head_dim), kept as ``stored``, and of the log-sum-exp."""
        error = self._probability_error(r)
        rounded = np.where(self.visible, error + (r.unit + r.product) * self.p + r.tiny / 2, 0)
        products = (self.p.shape[-1] * FLOAT32 + r.product) * (self.p @ np.abs(self.v))
        # the normalisation carries the row's error again
        row = error.sum(-1, keepdims=True) * np.abs(self.out)
        out = rounded @ np.abs(self.v) + products + row + stored.unit * np.abs(self.out) + stored.tiny / 2
        lse = error.sum(-1) + 8 * FLOAT32 * (1 + np.abs(self.lse) + np.abs(self.scores).max(-1))
        return 2 * out.swapaxes(1, 2), 2 * lse

    def backward_bounds(self, r: Rounding) -> tuple[Array, Array, Array]:
        """Of dQ (float32), dK and dV, (batch, seqlen, nheads, head_dim) each."""
        head_dim, seqlen = self.q.shape[-1], self.p.shape[-1]
        products = seqlen * FLOAT32 + 2 * r.product
        p_error = self._probability_error(r)
        dp_error = np.abs(self.dout) @ np.abs(self.v).swapaxes(2, 3) * (head_dim * FLOAT32 + 2 * r.product)
        dp_error += 4 * FLOAT32 * (np.abs(self.dp) + np.abs(self.delta)[..., None])
        ds_error = self.scale * (p_error * np.abs(self.dp - self.delta[..., None]) + self.p * dp_error)
        ds_error = np.where(self.visible, ds_error + r.unit * np.abs(self.ds) + r.tiny / 2, 0)
        p_error = np.where(self.visible, p_error + r.unit * self.p + r.tiny / 2, 0)
        size = np.abs(self.ds)
        dq = (ds_error + products * size) @ np.abs(self.k)
        dk = (ds_error + products * size).swapaxes(2, 3) @ np.abs(self.q) + r.unit * np.abs(self.dk) + r.tiny / 2
        dv = (p_error + products * self.p).swapaxes(2, 3) @ np.abs(self.dout) + r.unit * np.abs(self.dv) + r.tiny / 2
        return 2 * dq.swapaxes(1, 2), 2 * dk.swapaxes(1, 2), 2 * dv.swapaxes(1, 2)
