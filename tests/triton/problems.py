"""Runs a case of ``flash_attn.testing`` through the launchers of the Triton kernels and compares with the oracle."""

from __future__ import annotations

from flash_attn.triton_amd.backward import attention_backward
from flash_attn.triton_amd.forward import attention_forward
from flash_attn.triton_amd.tuning import BackwardConfig, ForwardConfig, backward_config

from flash_attn.backends.reference import ReferenceBackend
from flash_attn.backends.triton_calls import attention_problem
from flash_attn.testing import AttentionCase, Comparison, compare_results, make_attention, output_gradients


def compare_forward(case: AttentionCase, config: ForwardConfig) -> list[Comparison]:
    """Output and log-sum-exp of the forward kernel against the oracle's."""
    spec, inputs = make_attention(case)
    out, lse = attention_forward(attention_problem(spec, inputs), config)
    return compare_results(case, spec, inputs, {"out": out, "lse": lse})


def compare_backward(case: AttentionCase, config: BackwardConfig | None = None) -> list[Comparison]:
    """Gradients of the backward kernels, which get the oracle's forward, against the oracle's.

    Without a ``config`` they run as on gfx942. The gradient of the sink is computed from softmax_d, as operators do.
    """
    spec, inputs = make_attention(case)
    problem = attention_problem(spec, inputs)
    result = ReferenceBackend().forward(spec, inputs)
    dout, dlse = output_gradients(result.out, result.softmax_lse, case)
    config = config or backward_config(problem, "gfx942")
    dq, dk, dv, softmax_d = attention_backward(problem, result.out, result.softmax_lse, dout, dlse, config)
    gradients = {"dq": dq, "dk": dk, "dv": dv}
    if inputs.learnable_sink is not None:
        shares = (inputs.learnable_sink.view(-1, 1) - result.softmax_lse).exp() * softmax_d
        gradients["dlearnable_sink"] = -shares.transpose(-1, -2).flatten(0, -2).sum(0)
    return compare_results(case, spec, inputs, gradients)


def failures(comparisons: list[Comparison]) -> list[str]:
    """What a failed test prints."""
    return [
        f"{c.name}{list(c.where)}: error {c.error:.3g}, allowed {c.allowed:.3g}" for c in comparisons if not c.passed
    ]
