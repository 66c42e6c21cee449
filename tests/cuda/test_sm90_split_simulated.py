"""The split-key kernels of csrc_cuda/sm90, compiled by nvcc to PTX and executed in ptx_sim, against the oracle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from merged_splits import merge
from sm90_kernels import Kernel, split

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends.base import AttentionInputs
from flash_attn.testing import AttentionCase, compare_results, make_attention

pytestmark = pytest.mark.cuda

FP16, BF16 = torch.float16, torch.bfloat16
ROWS = Kernel(FP16, 64, (64, 128, 6), ("masked",), "split")
PAGES = Kernel(BF16, 128, (64, 64, 6), ("masked", "paged"), "split")


def _case(kernel: Kernel, **changes: Any) -> AttentionCase:
    base = AttentionCase(
        seqlens_q=(11, 11),
        seqlens_k=(300, 300),
        nheads_q=6,
        nheads_k=2,
        head_dim=kernel.head_dim,
        head_dim_v=kernel.head_dim,
        dtype=kernel.dtype,
        backward=False,
    )
    return replace(base, **changes)


def _require(
    kernel: Kernel, case: AttentionCase, spec: AttentionSpec, inputs: AttentionInputs, num_splits: int
) -> None:
    result = merge(*split(kernel, spec, inputs, num_splits), spec.dtype)
    comparisons = compare_results(case, spec, inputs, {"out": result.out, "lse": result.softmax_lse})
    assert all(comparison.passed for comparison in comparisons), comparisons


def _run(kernel: Kernel, case: AttentionCase, num_splits: int) -> None:
    _require(kernel, case, *make_attention(case), num_splits)


SHAPES: dict[str, dict[str, Any]] = {
    "unbounded": {},
    "causal, two tiles of rows": {"causal": True, "seqlens_q": (30, 30)},
    "rows without keys": {"causal": True, "seqlens_q": (30,), "seqlens_k": (12,)},
    "window": {"window_size": (70, 9), "seqlens_k": (600,)},
    "keys without rows": {"window_size": (9, 0), "seqlens_q": (3,), "seqlens_k": (400,)},
    "one of each": {"seqlens_q": (1,), "seqlens_k": (1,), "nheads_q": 1, "nheads_k": 1},
    "no keys": {"seqlens_k": (0, 0)},
    "head dims 40 and 24": {"head_dim": 40, "head_dim_v": 24},
    "negative scale": {"softmax_scale": -0.3},
}


@pytest.mark.parametrize("name", SHAPES)
def test_cache_rows(name: str) -> None:
    case = replace(_case(ROWS), **SHAPES[name])
    spec, inputs = make_attention(case)
    _require(ROWS, case, spec, inputs, 3)


def test_permuted_cache_rows_and_lengths_in_use() -> None:
    case = _case(ROWS, causal=True, seqlens_q=(2, 2, 2), seqlens_k=(300, 300, 300))
    spec, inputs = make_attention(case)
    rows, used = (torch.tensor(x, dtype=torch.int32) for x in ([2, 0, 2], [129, 0, 256]))
    k, v = inputs.k.clone(), inputs.v.clone()
    k[0], v[0] = float("nan"), float("inf")
    k[1], v[1] = float("nan"), float("inf")
    k[2, 256:], v[2, 256:] = float("nan"), float("inf")
    inputs = inputs._replace(k=k, v=v, cache_batch_idx=rows, seqused_k=used)
    _require(ROWS, case, spec._replace(has_cache_batch_idx=True, has_seqused_k=True), inputs, 2)


# 64 and 192: boxes of a whole tile; 48 and 24: of a part; 17 and 1: rows
@pytest.mark.parametrize(("page_size", "num_splits"), [(1, 3), (17, 1), (24, 2), (48, 1), (64, 5), (192, 9)])
def test_pages(page_size: int, num_splits: int) -> None:
    case = _case(PAGES, causal=True, page_size=page_size, seqused=True, seqlens_q=(3, 3, 3), seqlens_k=(300, 97, 200))
    _run(PAGES, case, num_splits)


@pytest.mark.parametrize("page_size", [20, 64])
def test_what_lies_beyond_a_sequence_in_its_pages_does_not_matter(page_size: int) -> None:
    case = _case(PAGES, page_size=page_size, seqlens_q=(2,), seqlens_k=(5 * page_size,))
    spec, inputs = make_attention(case)
    assert inputs.block_table is not None
    table = inputs.block_table[0].long()
    inputs = inputs._replace(seqused_k=torch.tensor([3 * page_size + 7], dtype=torch.int32))
    k, v = inputs.k.clone(), inputs.v.clone()
    k[table[3], 7:], v[table[3], 7:] = float("nan"), float("inf")
    k[table[4]], v[table[4]] = float("inf"), float("nan")
    _require(PAGES, case, spec._replace(has_seqused_k=True), inputs._replace(k=k, v=v), 2)


RAGGED: dict[str, dict[str, Any]] = {
    "prefill and decoding": {"seqlens_q": (1, 70, 0, 5), "seqlens_k": (300, 90, 17, 65)},
    "decoding": {"seqlens_q": (1, 1, 0, 2), "seqlens_k": (300, 90, 17, 65), "seqused": True},
}


@pytest.mark.parametrize("page_size", [16, 17])
@pytest.mark.parametrize("name", RAGGED)
def test_queries_of_several_lengths_over_pages(name: str, page_size: int) -> None:
    _run(PAGES, _case(PAGES, varlen=True, causal=True, page_size=page_size, **RAGGED[name]), 2)


@pytest.mark.parametrize("kernel", [ROWS, PAGES], ids=["rows", "pages"])
def test_padding_on_the_left(kernel: Kernel) -> None:
    page_size = 16 if kernel is PAGES else 0
    case = _case(kernel, causal=True, page_size=page_size, seqused=True, leftpad=True, seqlens_q=(4, 4))
    spec, inputs = make_attention(case)
    assert inputs.leftpad_k is not None
    if inputs.block_table is None:
        for row, pad in enumerate(inputs.leftpad_k.tolist()):
            inputs.k[row, :pad], inputs.v[row, :pad] = float("nan"), float("inf")
    _require(kernel, case, spec, inputs, 2)


OTHERS = {
    "d256": Kernel(BF16, 256, (64, 64, 6), ("masked", "paged"), "split"),
    "d128 softcap": Kernel(FP16, 128, (64, 64, 6), ("masked", "paged", "softcap"), "split"),
    "d64 alibi": Kernel(BF16, 64, (64, 128, 6), ("masked", "paged", "alibi"), "split"),
}
CHANGES: dict[str, dict[str, Any]] = {"softcap": {"softcap": 2.0}, "alibi": {"alibi_dims": 2}}


@pytest.mark.parametrize("name", OTHERS)
def test_other_kernels(name: str) -> None:
    kernel = OTHERS[name]
    chosen = {key: value for word in kernel.features for key, value in CHANGES.get(word, {}).items()}
    _run(kernel, _case(kernel, causal=True, page_size=16, **chosen), 2)


def test_strides_of_heads_before_rows() -> None:
    case = _case(ROWS, causal=True)
    spec, inputs = make_attention(case)
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (inputs.q, inputs.k, inputs.v))
    _require(ROWS, case, spec, inputs._replace(q=q, k=k, v=v), 2)
