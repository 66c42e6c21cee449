"""The 8-bit forward of csrc_cuda/sm90, compiled by nvcc to PTX and executed in ptx_sim, against the oracle.

The bound is that of flash_attn.testing for 8-bit floats: on the inputs as they are, the probabilities are rounded to
e4m3 once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import sm90_cases
import torch
from sm90_kernels import Kernel, forward

from flash_attn.testing import AttentionCase, compare_results, make_attention

pytestmark = pytest.mark.cuda

F8 = torch.float8_e4m3fn
D64 = Kernel(F8, 64, (192, 128, 2), ("masked",))
D128 = Kernel(F8, 128, (128, 128, 2), ("masked",))
D128_VARLEN = Kernel(F8, 128, (128, 128, 2), ("varlen", "masked"))
D256 = Kernel(F8, 256, (128, 128, 2), ("masked",))


def _case(kernel: Kernel, **changes: Any) -> AttentionCase:
    base = AttentionCase(
        seqlens_q=(200, 200),
        seqlens_k=(300, 300),
        nheads_q=2,
        nheads_k=1,
        head_dim=kernel.head_dim,
        head_dim_v=kernel.head_dim,
        dtype=F8,
        descale=True,
        backward=False,
    )
    return replace(base, **changes)


def _run(kernel: Kernel, case: AttentionCase) -> None:
    spec, inputs = make_attention(case)
    result, _ = forward(kernel, spec, inputs)
    assert result.out.dtype == torch.bfloat16
    comparisons = compare_results(case, spec, inputs, {"out": result.out, "lse": result.softmax_lse})
    assert all(comparison.passed for comparison in comparisons), comparisons


# head dims of 8 bits are multiples of 16
SHAPES = sm90_cases.SHAPES | {
    "no descales": {"descale": False, "causal": True},
    "grouped heads": {"nheads_q": 6, "nheads_k": 2, "causal": True},
    "small head dims": {"head_dim": 48, "head_dim_v": 16},
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("kernel", [D64, D128], ids=["d64", "d128"])
def test_masks_and_shapes(kernel: Kernel, name: str) -> None:
    _run(kernel, replace(_case(kernel), **SHAPES[name]))


RAGGED = sm90_cases.RAGGED | {
    "small head dims": {"seqlens_q": (130, 40), "seqlens_k": (150, 290), "head_dim": 80, "head_dim_v": 112},
}


@pytest.mark.parametrize("name", RAGGED)
def test_ragged_batches(name: str) -> None:
    _run(D128_VARLEN, replace(_case(D128_VARLEN), varlen=True, causal=True, nheads_q=4, nheads_k=2, **RAGGED[name]))


def test_the_largest_head_dim() -> None:
    _run(D256, _case(D256, causal=True))
    _run(D256, _case(D256, head_dim=192, head_dim_v=176, seqlens_q=(70,), seqlens_k=(140,)))


def test_every_value_reaches_its_place() -> None:
    """One key at a time, of which all columns differ: nothing is rounded, so nothing may be elsewhere."""
    spec, inputs = make_attention(_case(D128, seqlens_q=(128,), seqlens_k=(256,), nheads_q=1, descale=False))
    seen = torch.arange(128) * 2 + 1
    k = torch.zeros_like(inputs.k, dtype=torch.float32)
    q = torch.zeros_like(inputs.q, dtype=torch.float32)
    # key 2 i + 1 alone has the product 240 with row i
    q[0, torch.arange(128), 0, torch.arange(128)] = 15.0
    k[0, seen, 0, torch.arange(128)] = 16.0
    inputs = inputs._replace(q=q.to(F8), k=k.to(F8))
    result, _ = forward(D128, spec._replace(softmax_scale=1.0), inputs)
    assert torch.equal(result.out[0, :, 0].float(), inputs.v[0, seen, 0].float())


def test_scales_are_those_of_the_head_of_k() -> None:
    spec, inputs = make_attention(_case(D64, nheads_q=4, nheads_k=2))
    scales = torch.tensor([[[0.5, 2.0], [1.0, 0.25]], [[3.0, 1.0], [0.5, 1.5]], [[2.0, 4.0], [0.125, 8.0]]])
    case = _case(D64, nheads_q=4, nheads_k=2)
    given = inputs._replace(q_descale=scales[0], k_descale=scales[1], v_descale=scales[2])
    expanded = inputs._replace(v_descale=scales[2, 0].expand(2, 2))
    for each in (given, expanded):
        result, _ = forward(D64, spec, each)
        comparisons = compare_results(case, spec, each, {"out": result.out, "lse": result.softmax_lse})
        assert all(comparison.passed for comparison in comparisons), comparisons


OTHERS = {
    "d64 softcap": Kernel(F8, 64, (192, 128, 2), ("masked", "softcap")),
    "d64 alibi": Kernel(F8, 64, (192, 128, 2), ("masked", "alibi")),
    "d128 without a mask": Kernel(F8, 128, (128, 128, 2), ()),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_kernels(name: str) -> None:
    kernel = OTHERS[name]
    changes: dict[str, dict[str, Any]] = {"softcap": {"softcap": 2.0}, "alibi": {"alibi_dims": 2}}
    chosen = {key: value for word in kernel.features for key, value in changes.get(word, {}).items()}
    _run(kernel, _case(kernel, causal="masked" in kernel.features, **chosen))
