"""The kernels of csrc_cuda/sm80, compiled by nvcc to PTX and executed in ptx_sim, against the oracle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from merged_splits import merge
from sm80_kernels import Kernel, Unit, backward, forward, split

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends.base import AttentionInputs
from flash_attn.backends.reference import ReferenceBackend
from flash_attn.testing import AttentionCase, Comparison, compare_results, make_attention, output_gradients

pytestmark = pytest.mark.cuda

FP16, BF16 = torch.float16, torch.bfloat16


def _case(head_dim: int, dtype: torch.dtype, **changes: Any) -> AttentionCase:
    base = AttentionCase(
        seqlens_q=(70, 70),
        seqlens_k=(140, 140),
        nheads_q=2,
        nheads_k=1,
        head_dim=head_dim,
        head_dim_v=head_dim,
        dtype=dtype,
        backward=False,
    )
    return replace(base, **changes)


def _require(comparisons: list[Comparison]) -> None:
    assert all(comparison.passed for comparison in comparisons), comparisons


def _run_forward(name: str, case: AttentionCase) -> None:
    spec, inputs = make_attention(case)
    result = forward(FORWARD, name, spec, inputs)
    _require(compare_results(case, spec, inputs, {"out": result.out, "lse": result.softmax_lse}))


def _run_backward(name: str, case: AttentionCase) -> None:
    spec, inputs = make_attention(case)
    result = ReferenceBackend().forward(spec, inputs)
    dout, dlse = output_gradients(result.out, result.softmax_lse, case)
    dq, dk, dv, _ = backward(BACKWARD, name, spec, inputs, result, dout, dlse)
    _require(compare_results(case, spec, inputs, {"dq": dq, "dk": dk, "dv": dv}))


def _run_split(name: str, case: AttentionCase, spec: AttentionSpec, inputs: AttentionInputs, num_splits: int) -> None:
    result = merge(*split(SPLIT, name, spec, inputs, num_splits), spec.dtype)
    _require(compare_results(case, spec, inputs, {"out": result.out, "lse": result.softmax_lse}))


VARLEN: dict[str, Any] = {"varlen": True, "seqlens_q": (5, 131, 64, 0), "seqlens_k": (17, 140, 0, 3)}
SHAPES: dict[str, dict[str, Any]] = {
    "unbounded": {},
    "causal": {"causal": True},
    "rows without keys": {"causal": True, "seqlens_q": (150,), "seqlens_k": (70,)},
    "window": {"window_size": (20, 9), "seqlens_q": (150,)},
    "keys without rows": {"window_size": (9, 0), "seqlens_q": (3,), "seqlens_k": (200,)},
    "one of each": {"seqlens_q": (1,), "seqlens_k": (1,)},
    "no keys": {"seqlens_k": (0, 0)},
    "grouped heads": {"nheads_q": 6, "nheads_k": 2},
    "small head dims": {"head_dim": 40, "head_dim_v": 24},
    "negative scale": {"softmax_scale": -0.3},
    "scale of zero": {"softmax_scale": 0.0, "causal": True},
}
FEATURES: dict[str, dict[str, Any]] = {
    "varlen": {**VARLEN, "seqused": True},
    "softcap": {"softcap": 2.0},
    "alibi": {"alibi_dims": 2},
    "softcap_alibi": {"alibi_dims": 1, "softcap": 2.0},
    "dropout": {"dropout_p": 0.2},
    "varlen_dropout": {**VARLEN, "dropout_p": 0.2},
    "deterministic": {"deterministic": True},
    "varlen_deterministic": {**VARLEN, "deterministic": True},
}
FORWARD_FEATURES = ("varlen", "softcap", "alibi", "dropout", "softcap_alibi", "varlen_dropout")
BACKWARD_FEATURES = ("varlen", "softcap_alibi", "varlen_dropout", "deterministic", "varlen_deterministic")
FORWARD_TILES = {32: (128, 64, 4), 96: (128, 64, 4), 192: (64, 64, 4), 256: (64, 64, 4)}
BACKWARD_TILES = {32: (64, 128, 8), 96: (64, 64, 4), 192: (64, 32, 4), 256: (32, 32, 4)}


def _named(name: str) -> tuple[str, ...]:
    return ("masked", *name.split("_"))


FORWARD = Unit(
    d64=Kernel("forward", BF16, 64, 128, 64, 4, ("masked",)),
    **{name: Kernel("forward", FP16, 128, 128, 32, 4, _named(name)) for name in FORWARD_FEATURES},
    **{f"d{dim}": Kernel("forward", BF16, dim, *tile, ("masked",)) for dim, tile in FORWARD_TILES.items()},
)
BACKWARD = Unit(
    d64=Kernel("backward", BF16, 64, 64, 128, 8, ("masked",)),
    **{name: Kernel("backward", FP16, 128, 64, 64, 4, _named(name)) for name in BACKWARD_FEATURES},
    **{f"d{dim}": Kernel("backward", BF16, dim, *tile, ("masked",)) for dim, tile in BACKWARD_TILES.items()},
)
SPLIT = Unit(
    rows=Kernel("split", FP16, 64, 64, 64, 4, ("masked",)),
    pages=Kernel("split", BF16, 128, 64, 64, 4, ("masked", "paged")),
    features=Kernel("split", BF16, 128, 64, 64, 4, ("masked", "paged", "softcap", "alibi")),
)


@pytest.mark.parametrize("name", SHAPES)
def test_the_forward_of_masks_and_shapes(name: str) -> None:
    _run_forward("d64", replace(_case(64, BF16), **SHAPES[name]))


@pytest.mark.parametrize("name", SHAPES)
def test_the_backward_of_masks_and_shapes(name: str) -> None:
    _run_backward("d64", replace(_case(64, BF16, backward=True), **SHAPES[name]))


def test_strides_of_heads_before_rows() -> None:
    case = _case(64, BF16, causal=True, nheads_q=4, nheads_k=2)
    spec, inputs = make_attention(case)
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (inputs.q, inputs.k, inputs.v))
    result = forward(FORWARD, "d64", spec, inputs._replace(q=q, k=k, v=v))
    _require(compare_results(case, spec, inputs, {"out": result.out, "lse": result.softmax_lse}))


@pytest.mark.parametrize("name", FORWARD_FEATURES)
def test_the_forward_of_features(name: str) -> None:
    _run_forward(name, replace(_case(128, FP16, causal=True), **FEATURES[name]))


@pytest.mark.parametrize("name", BACKWARD_FEATURES)
def test_the_backward_of_features(name: str) -> None:
    _run_backward(name, replace(_case(128, FP16, causal=True, backward=True), **FEATURES[name]))


@pytest.mark.parametrize("head_dim", FORWARD_TILES)
def test_the_forward_of_other_head_dims(head_dim: int) -> None:
    _run_forward(f"d{head_dim}", _case(head_dim, BF16, causal=True))


@pytest.mark.parametrize("head_dim", BACKWARD_TILES)
def test_the_backward_of_other_head_dims(head_dim: int) -> None:
    _run_backward(f"d{head_dim}", _case(head_dim, BF16, causal=True, backward=True))


@pytest.mark.parametrize(("page_size", "num_splits"), [(1, 3), (17, 1), (64, 9)])
def test_a_split_over_pages(page_size: int, num_splits: int) -> None:
    case = _case(128, BF16, causal=True, nheads_q=6, nheads_k=2, page_size=page_size, seqused=True)
    spec, inputs = make_attention(case)
    _run_split("pages", case, spec, inputs, num_splits)


@pytest.mark.parametrize("name", ["unbounded", "causal", "window", "keys without rows", "no keys", "small head dims"])
def test_a_split_over_cache_rows(name: str) -> None:
    case = replace(_case(64, FP16, nheads_q=6, nheads_k=2), **SHAPES[name])
    spec, inputs = make_attention(case)
    _run_split("rows", case, spec, inputs, 3)
    rows = torch.tensor([2, 0], dtype=torch.int32)[: inputs.batch_size]
    k, v = (x[[1, 0, 0] if x.shape[0] > 1 else [0, 0, 0]] for x in (inputs.k, inputs.v))
    inputs = inputs._replace(k=k, v=v, cache_batch_idx=rows)
    _run_split("rows", case, spec._replace(has_cache_batch_idx=True), inputs, 2)


@pytest.mark.parametrize("page_size", [1, 24])
def test_a_split_of_queries_of_several_lengths_over_pages(page_size: int) -> None:
    case = _case(128, BF16, varlen=True, causal=True, nheads_q=6, nheads_k=2, page_size=page_size)
    case = replace(case, seqlens_q=(1, 40, 0, 5), seqlens_k=(140, 60, 17, 70))
    _run_split("pages", case, *make_attention(case), 2)


@pytest.mark.parametrize("name", ["rows", "pages"])
def test_a_split_with_padding_on_the_left(name: str) -> None:
    kernel = SPLIT[name]
    page_size = 24 if name == "pages" else 0
    case = _case(kernel.head_dim, kernel.dtype, causal=True, page_size=page_size, seqused=True, leftpad=True)
    spec, inputs = make_attention(case)
    assert inputs.leftpad_k is not None
    if inputs.block_table is None:
        for row, pad in enumerate(inputs.leftpad_k.tolist()):
            inputs.k[row, :pad], inputs.v[row, :pad] = float("nan"), float("inf")
    _run_split(name, case, spec, inputs, 2)


def test_a_split_with_alibi_and_softcap() -> None:
    case = _case(128, BF16, nheads_q=6, nheads_k=2, page_size=24, seqused=True, softcap=3.0, alibi_dims=2)
    spec, inputs = make_attention(case)
    _run_split("features", case, spec, inputs, 2)
