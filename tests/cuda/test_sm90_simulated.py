"""The kernels of csrc_cuda/sm90, compiled by nvcc to PTX and executed in ptx_sim, against the oracle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from sm90_cases import RAGGED, SHAPES
from sm90_kernels import Kernel, forward

from flash_attn.testing import AttentionCase, compare_results, make_attention

pytestmark = pytest.mark.cuda

FP16, BF16 = torch.float16, torch.bfloat16
D64 = Kernel(BF16, 64, (192, 128, 2), ("masked",))
D128 = Kernel(FP16, 128, (128, 128, 2), ("masked",))
D128_VARLEN = Kernel(BF16, 128, (128, 128, 2), ("varlen", "masked"))


def _case(kernel: Kernel, **changes: Any) -> AttentionCase:
    base = AttentionCase(
        seqlens_q=(200, 200),
        seqlens_k=(300, 300),
        nheads_q=2,
        nheads_k=1,
        head_dim=kernel.head_dim,
        head_dim_v=kernel.head_dim,
        dtype=kernel.dtype,
        backward=False,
    )
    return replace(base, **changes)


def _run(kernel: Kernel, case: AttentionCase, multiprocessors: int = 3) -> None:
    spec, inputs = make_attention(case)
    result, _ = forward(kernel, spec, inputs, multiprocessors)
    comparisons = compare_results(case, spec, inputs, {"out": result.out, "lse": result.softmax_lse})
    assert all(comparison.passed for comparison in comparisons), comparisons


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("kernel", [D64, D128], ids=["d64", "d128"])
def test_masks_and_shapes(kernel: Kernel, name: str) -> None:
    _run(kernel, replace(_case(kernel), **SHAPES[name]))


@pytest.mark.parametrize("causal", [False, True], ids=["unbounded", "causal"])
@pytest.mark.parametrize("name", RAGGED)
def test_ragged_batches(name: str, causal: bool) -> None:
    _run(D128_VARLEN, replace(_case(D128_VARLEN), varlen=True, causal=causal, **RAGGED[name]))


def test_rows_beyond_those_in_use_do_not_matter() -> None:
    case = _case(D128_VARLEN, varlen=True, seqlens_q=(60, 40), seqlens_k=(150, 290))
    spec, inputs = make_attention(case)
    used = torch.tensor([33, 190], dtype=torch.int32)
    inputs, spec = inputs._replace(seqused_k=used), spec._replace(has_seqused_k=True)
    k, v = inputs.k.clone(), inputs.v.clone()
    for first, count, last in ((0, 33, 150), (150, 190, 440)):
        k[first + count : last], v[first + count : last] = float("nan"), float("inf")
    expected, _ = forward(D128_VARLEN, spec, inputs)
    result, _ = forward(D128_VARLEN, spec, inputs._replace(k=k, v=v))
    assert torch.equal(result.out, expected.out)
    assert torch.equal(result.softmax_lse, expected.softmax_lse)


def test_strides_of_heads_before_rows_and_of_repeated_heads() -> None:
    case = _case(D64, causal=True, nheads_q=4, nheads_k=4)
    spec, inputs = make_attention(case)
    q = inputs.q.transpose(1, 2).contiguous().transpose(1, 2)
    k, v = (x[:, :, :1].expand(-1, -1, 4, -1) for x in (inputs.k, inputs.v))
    inputs = inputs._replace(q=q, k=k, v=v)
    result, _ = forward(D64, spec, inputs)
    comparisons = compare_results(case, spec, inputs, {"out": result.out, "lse": result.softmax_lse})
    assert all(comparison.passed for comparison in comparisons), comparisons


@pytest.mark.parametrize("multiprocessors", [1, 2, 5, 132])
def test_every_tile_is_taken_once(multiprocessors: int) -> None:
    _run(D64, _case(D64, causal=True, seqlens_q=(500,), seqlens_k=(500,), nheads_q=3, nheads_k=3), multiprocessors)


OTHERS = {
    "d64 softcap": Kernel(FP16, 64, (192, 128, 2), ("masked", "softcap")),
    "d64 alibi": Kernel(BF16, 64, (192, 128, 2), ("masked", "alibi")),
    "d256": Kernel(BF16, 256, (128, 64, 2), ("masked",)),
    "d128 without a mask": Kernel(BF16, 128, (128, 128, 2), ()),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_kernels(name: str) -> None:
    kernel = OTHERS[name]
    changes: dict[str, dict[str, Any]] = {
        "softcap": {"softcap": 2.0},
        "alibi": {"alibi_dims": 2},
    }
    chosen = {key: value for word in kernel.features for key, value in changes.get(word, {}).items()}
    _run(kernel, _case(kernel, causal="masked" in kernel.features, **chosen))


def test_one_row_repeated_is_refused() -> None:
    spec, inputs = make_attention(_case(D64))
    k = inputs.k[:, :1].expand(-1, inputs.k.shape[1], -1, -1)
    with pytest.raises(RuntimeError, match="k repeats one row"):
        forward(D64, spec, inputs._replace(k=k))
