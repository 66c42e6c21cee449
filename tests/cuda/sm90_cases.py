"""Masks, shapes and ragged batches for the tests of Hopper's kernels: what changes of a file's own base case."""

from __future__ import annotations

from typing import Any

Changes = dict[str, dict[str, Any]]

SHAPES: Changes = {
    "unbounded": {},
    "causal": {"causal": True},
    "rows without keys": {"causal": True, "seqlens_q": (300,), "seqlens_k": (130,)},
    "window": {"window_size": (70, 9), "seqlens_k": (600, 600)},
    "keys without rows": {"window_size": (9, 0), "seqlens_q": (3,), "seqlens_k": (400,)},
    "one of each": {"seqlens_q": (1,), "seqlens_k": (1,)},
    "no keys": {"seqlens_k": (0, 0)},
    "grouped heads": {"nheads_q": 6, "nheads_k": 2},
    "small head dims": {"head_dim": 40, "head_dim_v": 24},
    "negative scale": {"softmax_scale": -0.3},
    "scale of zero": {"softmax_scale": 0.0, "causal": True},
}

RAGGED: Changes = {
    "every length": {"seqlens_q": (5, 231, 64, 0, 1), "seqlens_k": (17, 340, 0, 3, 1)},
    "keys in use": {"seqlens_q": (130, 40), "seqlens_k": (150, 290), "seqused": True},
    "one row": {"seqlens_q": (1,), "seqlens_k": (1,)},
    "small head dims": {"seqlens_q": (130, 40), "seqlens_k": (150, 290), "head_dim": 72, "head_dim_v": 104},
}
