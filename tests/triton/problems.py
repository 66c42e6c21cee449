"""Runs a case of ``flash_attn.testing`` through the launchers of the Triton kernels and compares with the oracle."""

from __future__ import annotations

import torch
from flash_attn.triton_amd.backward import attention_backward, default_backward_config
from flash_attn.triton_amd.forward import attention_forward
from flash_attn.triton_amd.problem import Problem
from flash_attn.triton_amd.tuning import BackwardConfig, ForwardConfig
from torch import Tensor

from flash_attn import testing
from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends.base import AttentionInputs
from flash_attn.testing import AttentionCase, Bound, Comparison, make_attention


def make_problem(spec: AttentionSpec, inputs: AttentionInputs) -> Problem:
    """The problem that a validated call poses."""
    return Problem(
        **inputs._asdict(),
        softmax_scale=spec.softmax_scale,
        window_left=spec.window_left,
        window_right=spec.window_right,
        softcap=spec.softcap,
        dropout_p=spec.dropout_p,
    )


def compare_forward(case: AttentionCase, config: ForwardConfig) -> list[Comparison]:
    """Output and log-sum-exp of the forward kernel against the oracle's."""
    spec, inputs = make_attention(case)
    out, lse = attention_forward(make_problem(spec, inputs), config)
    return _compared(case, spec, inputs, {"out": out, "lse": lse})


def compare_backward(case: AttentionCase, config: BackwardConfig | None = None) -> list[Comparison]:
    """Gradients of the backward kernels, which get the oracle's forward, against the oracle's."""
    spec, inputs = make_attention(case)
    problem = make_problem(spec, inputs)
    result = testing.ReferenceBackend().forward(spec, inputs)
    dout, dlse = testing._output_gradients(result.out, result.softmax_lse, case)
    config = config or default_backward_config(problem)
    dq, dk, dv, _ = attention_backward(problem, result.out, result.softmax_lse, dout, dlse, config)
    return _compared(case, spec, inputs, {"dq": dq, "dk": dk, "dv": dv})


def _compared(
    case: AttentionCase, spec: AttentionSpec, inputs: AttentionInputs, results: dict[str, Tensor]
) -> list[Comparison]:
    exact = testing._oracle(torch.float64, spec, inputs, case)
    plain = testing._oracle(None, spec, inputs, case)
    scales = testing._cancelling_magnitudes(spec, inputs, case) if case.backward else {}
    bound = Bound(case.dtype, case.head_dim + max((*case.seqlens_q, *case.seqlens_k), default=0))
    return [
        testing.compare(name, result, exact[name], plain[name], bound, scales.get(name, 1.0))
        for name, result in results.items()
    ]
