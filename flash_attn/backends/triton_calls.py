"""From a spec and its inputs to launches of the Triton kernels; importing this imports Triton."""

from __future__ import annotations

from torch import Tensor

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends.base import AttentionInputs, ForwardResult, Gradients
from flash_attn.backends.triton_runtime import ConfigChoice
from flash_attn.triton_amd.autotune import autotuner
from flash_attn.triton_amd.backward import attention_backward
from flash_attn.triton_amd.forward import attention_forward
from flash_attn.triton_amd.probabilities import attention_probabilities
from flash_attn.triton_amd.problem import Problem
from flash_attn.triton_amd.tuning import backward_config, forward_config


def forward(spec: AttentionSpec, inputs: AttentionInputs, choice: ConfigChoice) -> ForwardResult:
    """Attention of validated inputs."""
    described = problem(spec, inputs)
    if choice.autotune:
        config = autotuner(choice.arch).forward_config(described)
    else:
        config = forward_config(described, choice.arch, choice.forward_config)
    out, softmax_lse = attention_forward(described, config)
    probs = attention_probabilities(described, softmax_lse) if spec.return_attn_probs else None
    return ForwardResult(out, softmax_lse, probs)


def backward(
    spec: AttentionSpec,
    inputs: AttentionInputs,
    result: ForwardResult,
    dout: Tensor,
    dlse: Tensor | None,
    choice: ConfigChoice,
) -> Gradients:
    """Gradients of a forward call."""
    described, out, softmax_lse = problem(spec, inputs), result.out, result.softmax_lse
    if choice.autotune:
        config = autotuner(choice.arch).backward_config(described, out, softmax_lse, dout, dlse)
    else:
        config = backward_config(described, choice.arch)
    return Gradients(*attention_backward(described, out, softmax_lse, dout, dlse, config))


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
