"""Flash-attention forward and backward, compiled by Triton for every target and simulated."""

from __future__ import annotations

from typing import Any, NamedTuple

import attention_kernels as kernels
import numpy as np
import pytest
import torch
import triton

import amdgpu_sim

TARGETS = list(amdgpu_sim.TARGETS)
# the 8-bit type of each target's matrix instructions, or one that Triton converts in software
FP8 = {
    "gfx90a": torch.float8_e5m2, "gfx942": torch.float8_e4m3fnuz, "gfx950": torch.float8_e4m3fn,
    "gfx1100": torch.float8_e5m2, "gfx1201": torch.float8_e4m3fn,
}  # fmt: skip
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


class Case(NamedTuple):
    """One forward configuration; ``tile`` is the matrix instruction's M = N on CDNA."""

    dtype: str
    head_dim: int
    stages: int
    tile: int
    buffer: bool
    causal: bool
    seqlen: int = 80


FORWARD = [
    Case("fp16", 64, 1, 16, False, True, 150),
    Case("fp16", 64, 2, 32, True, True),
    Case("bf16", 128, 2, 32, False, False),
    Case("bf16", 32, 1, 16, True, True, 150),
    Case("fp32", 32, 2, 32, False, True),
    Case("fp32", 64, 1, 16, True, False),
    Case("fp16", 80, 1, 16, True, False),
    Case("fp8", 64, 1, 16, True, False),
    Case("fp8", 64, 2, 32, False, True),
]
BACKWARD = [
    Case("fp16", 64, 1, 16, False, True),
    Case("bf16", 32, 2, 32, True, False, 70),
    Case("fp16", 128, 1, 32, True, True, 50),
]


def reference(q: Any, k: Any, v: Any, dout: Any, scale: float, causal: bool) -> tuple[np.ndarray[Any, Any], ...]:
    """Output, log-sum-exp, delta and the three gradients in float64."""
    q, k, v, dout = (x.double().numpy() for x in (q, k, v, dout))
    scores = np.einsum("bmhd,bnhd->bhmn", q, k) * scale
    if causal:
        scores = np.where(np.tril(np.ones(scores.shape[-2:], bool)), scores, -np.inf)
    peak = scores.max(-1, keepdims=True)
    p = np.exp(scores - peak)
    total = p.sum(-1, keepdims=True)
    p /= total
    out = np.einsum("bhmn,bnhd->bmhd", p, v)
    delta = np.einsum("bmhd,bmhd->bhm", out, dout)
    ds = p * (np.einsum("bmhd,bnhd->bhmn", dout, v) - delta[..., None]) * scale
    grads = (
        np.einsum("bhmn,bnhd->bmhd", ds, k),
        np.einsum("bhmn,bmhd->bnhd", ds, q),
        np.einsum("bhmn,bmhd->bnhd", p, dout),
    )
    return out, (peak + np.log(total))[..., 0], delta, *grads


def contiguous(array: np.ndarray[Any, Any]) -> Any:
    return torch.tensor(array).float().contiguous()


def options(case: Case, target: str) -> dict[str, Any]:
    chosen: dict[str, Any] = {"num_stages": case.stages, "num_warps": 4}
    if target.startswith("gfx9"):
        chosen["matrix_instr_nonkdim"] = case.tile
    return chosen


def rounding(dtype: str, target: str) -> float:
    """Unit roundoff of the type that the probabilities are rounded to."""
    mantissa = {"fp16": 10, "bf16": 7, "fp32": 9, "fp8": 2 if "e5m2" in str(FP8[target]) else 3}[dtype]
    return 2.0 ** -(mantissa + 1)


@pytest.fixture(autouse=True)
def _buffer_instructions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffer instructions are what Triton emits for tensors below 2 GiB, unless it is told not to."""
    case = request.node.callspec.params.get("case")
    if case is not None:
        monkeypatch.setenv("AMDGCN_USE_BUFFER_OPS", str(int(case.buffer)))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", FORWARD, ids=lambda case: "-".join(map(str, case)))
def test_forward(target: str, case: Case) -> None:
    torch.manual_seed(0)
    dtype = FP8[target] if case.dtype == "fp8" else DTYPES[case.dtype]
    q, k, v = (torch.randn(1, case.seqlen, 2, case.head_dim).to(dtype) for _ in range(3))
    out = torch.full(q.shape, float("nan"), dtype=torch.float32 if case.dtype == "fp8" else dtype)
    lse = torch.full((1, 2, case.seqlen), float("nan"))
    scale = case.head_dim**-0.5
    with amdgpu_sim.triton_device(target, seed=1) as device:
        kernels.attention_forward[(triton.cdiv(case.seqlen, 64), 2)](
            q, k, v, out, lse, *q.stride()[:3], scale, case.seqlen, 2, HEAD_DIM=case.head_dim,
            BLOCK_D=triton.next_power_of_2(case.head_dim), CAUSAL=case.causal, BLOCK_M=64, BLOCK_N=32,
            **options(case, target),
        )  # fmt: skip
    assert device.last_report is not None
    counts = device.last_report.by_category()
    expected, expected_lse, *_ = reference(q, k, v, q, scale, case.causal)
    # each probability and the result are rounded once; |sum p v| <= max |v|
    bound = 2 * rounding(case.dtype, target) * np.abs(v.double().numpy()).max()
    assert np.abs(out.double().numpy() - expected).max() <= bound
    assert np.abs(lse.numpy() - expected_lse).max() <= (2e-2 if case.dtype == "fp32" else 1e-4)
    native = case.dtype in ("fp16", "bf16") or (case.dtype == "fp8" and target in ("gfx942", "gfx950", "gfx1201"))
    if native:
        assert counts["matrix"] > 0


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", BACKWARD, ids=lambda case: "-".join(map(str, case)))
def test_backward(target: str, case: Case) -> None:
    torch.manual_seed(0)
    dtype = DTYPES[case.dtype]
    q, k, v, dout = (torch.randn(1, case.seqlen, 2, case.head_dim).to(dtype) for _ in range(4))
    scale = case.head_dim**-0.5
    _, lse, delta, *expected = reference(q, k, v, dout, scale, case.causal)
    dq = torch.zeros(q.shape)
    dk, dv = torch.full_like(k, float("nan")), torch.full_like(v, float("nan"))
    with amdgpu_sim.triton_device(target):
        kernels.attention_backward[(triton.cdiv(case.seqlen, 32), 2)](
            q, k, v, dout, contiguous(lse), contiguous(delta), dq, dk, dv, *q.stride()[:3], scale,
            case.seqlen, 2, HEAD_DIM=case.head_dim, CAUSAL=case.causal, BLOCK_M=32, BLOCK_N=32,
            **options(case, target),
        )  # fmt: skip
    unit = rounding(case.dtype, target)
    magnitudes = [np.abs(x.double().numpy()).max() for x in (k, q, dout)]
    p_sum = case.seqlen
    for result, wanted, magnitude in zip((dq, dk, dv), expected, magnitudes, strict=True):
        # dS, P and the result are rounded once each; their absolute row sums are below the terms' own
        bound = 2 * unit * max(np.abs(wanted).max(), magnitude) * np.sqrt(p_sum)
        assert np.abs(result.double().numpy() - wanted).max() <= bound


@pytest.mark.parametrize("target", ["gfx942", "gfx1100"])
def test_waves_interleaved_by_seeds_agree(target: str) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 70, 1, 32).half() for _ in range(3))
    results = []
    for chosen in ({}, {"seed": 3, "lockstep": False}, {"seed": 4, "lockstep": False, "waves_per_batch": 4}):
        out, lse = torch.empty_like(q), torch.empty(1, 1, 70)
        with amdgpu_sim.triton_device(target, **chosen):
            kernels.attention_forward[(2, 1)](
                q, k, v, out, lse, *q.stride()[:3], 0.2, 70, 1, HEAD_DIM=32, BLOCK_D=32, CAUSAL=True,
                BLOCK_M=64, BLOCK_N=32,
            )  # fmt: skip
        results.append(out)
    assert all(torch.equal(results[0], other) for other in results[1:])
