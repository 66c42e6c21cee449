"""From a spec and its inputs to launches of the Triton kernels; importing this imports Triton."""

from __future__ import annotations

from torch import Tensor

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends.base import AttentionInputs, ForwardResult, Gradients
from flash_attn.triton_amd.backward import attention_backward, default_backward_config
from flash_attn.triton_amd.forward import attention_forward
from flash_attn.triton_amd.probabilities import attention_probabilities
from flash_attn.triton_amd.problem import Problem
from flash_attn.triton_amd.tuning import ForwardConfig


def forward(spec: AttentionSpec, inputs: AttentionInputs, arch: str) -> ForwardResult:
    """Attention of validated inputs on architecture ``arch``."""
    described = problem(spec, inputs)
    out, softmax_lse = attention_forward(described, ForwardConfig())
    probs = attention_probabilities(described, softmax_lse) if spec.return_attn_probs else None
    return ForwardResult(out, softmax_lse, probs)


def backward(
    spec: AttentionSpec, inputs: AttentionInputs, result: ForwardResult, dout: Tensor, dlse: Tensor | None, arch: str
) -> Gradients:
    """Gradients of a forward call on architecture ``arch``."""
    described = problem(spec, inputs)
    config = default_backward_config(described)
    return Gradients(*attention_backward(described, result.out, result.softmax_lse, dout, dlse, config))


def problem(spec: AttentionSpec, inputs: AttentionInputs) -> Problem:
    """The problem that the kernels know."""
    given = inputs._replace(
        alibi_slopes=_contiguous(inputs.alibi_slopes),
        learnable_sink=_contiguous(inputs.learnable_sink),
        rng_state=_contiguous(inputs.rng_state),
    )
    return Problem(
        **given._asdict(),
        softmax_scale=spec.softmax_scale,
        window_left=spec.window_left,
        window_right=spec.window_right,
        softcap=spec.softcap,
        dropout_p=spec.dropout_p,
    )


def _contiguous(x: Tensor | None) -> Tensor | None:
    """A small vector as the kernels read it."""
    return None if x is None else x.contiguous()
