"""The backward of csrc_cuda/sm90, compiled by nvcc to PTX and executed in ptx_sim, against the oracle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import sm90_cases
import torch
from sm90_kernels import Kernel, backward

from flash_attn.backends.reference import ReferenceBackend
from flash_attn.testing import AttentionCase, compare_results, make_attention, output_gradients

pytestmark = pytest.mark.cuda

FP16, BF16 = torch.float16, torch.bfloat16
D64 = Kernel(BF16, 64, (128, 128, 2), ("masked",), "backward")
D128 = Kernel(BF16, 128, (64, 128, 2), ("masked",), "backward")
D128_VARLEN = Kernel(FP16, 128, (64, 128, 2), ("varlen", "masked"), "backward")


def _case(kernel: Kernel, **changes: Any) -> AttentionCase:
    base = AttentionCase(
        seqlens_q=(200, 200),
        seqlens_k=(300, 300),
        nheads_q=2,
        nheads_k=1,
        head_dim=kernel.head_dim,
        head_dim_v=kernel.head_dim,
        dtype=kernel.dtype,
        backward=True,
    )
    return replace(base, **changes)


def _run(kernel: Kernel, case: AttentionCase, multiprocessors: int = 3) -> None:
    spec, inputs = make_attention(case)
    result = ReferenceBackend().forward(spec, inputs)
    dout, dlse = output_gradients(result.out, result.softmax_lse, case)
    dq, dk, dv, _ = backward(kernel, spec, inputs, result, dout, dlse, multiprocessors)
    comparisons = compare_results(case, spec, inputs, {"dq": dq, "dk": dk, "dv": dv})
    assert all(comparison.passed for comparison in comparisons), comparisons


SHAPES = sm90_cases.SHAPES | {
    "window": {"window_size": (70, 9), "seqlens_q": (400,), "seqlens_k": (600,)},
    "grouped heads": {"nheads_q": 6, "nheads_k": 2, "seqlens_q": (100,), "seqlens_k": (140,)},
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("kernel", [D64, D128], ids=["d64", "d128"])
def test_masks_and_shapes(kernel: Kernel, name: str) -> None:
    _run(kernel, replace(_case(kernel), **SHAPES[name]))


RAGGED = sm90_cases.RAGGED | {
    "one result for each block of keys": {"seqlens_q": (70, 40), "seqlens_k": (300, 130), "deterministic": True},
}


@pytest.mark.parametrize("causal", [False, True], ids=["unbounded", "causal"])
@pytest.mark.parametrize("name", RAGGED)
def test_ragged_batches(name: str, causal: bool) -> None:
    _run(D128_VARLEN, replace(_case(D128_VARLEN), varlen=True, causal=causal, **RAGGED[name]))


def test_strides_of_heads_before_rows_and_of_repeated_heads() -> None:
    case = _case(D64, causal=True, nheads_q=4, nheads_k=4)
    spec, inputs = make_attention(case)
    q = inputs.q.transpose(1, 2).contiguous().transpose(1, 2)
    k, v = (x[:, :, :1].expand(-1, -1, 4, -1) for x in (inputs.k, inputs.v))
    inputs = inputs._replace(q=q, k=k, v=v)
    result = ReferenceBackend().forward(spec, inputs)
    dout, dlse = output_gradients(result.out, result.softmax_lse, case)
    dout = dout[:, :, :1].expand(-1, -1, 4, -1)
    dq, dk, dv, _ = backward(D64, spec, inputs, result, dout, dlse)
    packed = inputs._replace(q=q.contiguous(), k=k.contiguous(), v=v.contiguous())
    expected = backward(D64, spec, packed, result, dout.contiguous(), dlse)
    assert all(torch.equal(x, y) for x, y in zip((dk, dv), expected[1:3], strict=True))
    torch.testing.assert_close(dq, expected[0])


@pytest.mark.parametrize("multiprocessors", [1, 2, 5, 132])
def test_every_tile_is_taken_once(multiprocessors: int) -> None:
    case = _case(D64, causal=True, seqlens_q=(260,), seqlens_k=(400,), nheads_q=3, nheads_k=3)
    _run(D64, case, multiprocessors)


def test_a_deterministic_call_writes_a_result_for_each_block_of_keys() -> None:
    _run(D64, _case(D64, causal=True, deterministic=True))


OTHERS: dict[str, tuple[Kernel, dict[str, Any]]] = {
    "d128 softcap": (Kernel(FP16, 128, (64, 128, 2), ("masked", "softcap"), "backward"), {"softcap": 2.0}),
    "d64 alibi": (Kernel(BF16, 64, (128, 128, 2), ("masked", "alibi"), "backward"), {"alibi_dims": 2}),
    "d64 dropout": (Kernel(BF16, 64, (128, 128, 2), ("masked", "dropout"), "backward"), {"dropout_p": 0.2}),
    "d128 dropout": (
        Kernel(FP16, 128, (64, 128, 2), ("varlen", "masked", "dropout"), "backward"),
        {"varlen": True, "seqlens_q": (5, 131, 0), "seqlens_k": (17, 240, 3), "dropout_p": 0.2},
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_kernels(name: str) -> None:
    kernel, changes = OTHERS[name]
    _run(kernel, _case(kernel, **{"causal": True, "seqlens_q": (200,), "seqlens_k": (300,), **changes}))


def test_one_row_repeated_is_refused() -> None:
    case = _case(D64)
    spec, inputs = make_attention(case)
    result = ReferenceBackend().forward(spec, inputs)
    dout, dlse = output_gradients(result.out, result.softmax_lse, case)
    with pytest.raises(RuntimeError, match="dout repeats one row"):
        backward(D64, spec, inputs, result, dout[:, :1].expand(-1, dout.shape[1], -1, -1), dlse)
