"""From a spec and its inputs to launches of the Triton kernels; importing this imports Triton."""

from __future__ import annotations

from torch import Tensor

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends.base import AttentionInputs, DecodeInputs, ForwardResult, Gradients
from flash_attn.backends.triton_runtime import ConfigChoice
from flash_attn.triton_amd import decode as split_kv
from flash_attn.triton_amd.append import NewTokens
from flash_attn.triton_amd.autotune import autotuner
from flash_attn.triton_amd.backward import attention_backward
from flash_attn.triton_amd.decode_config import decode_config
from flash_attn.triton_amd.forward import attention_forward
from flash_attn.triton_amd.probabilities import attention_probabilities
from flash_attn.triton_amd.problem import Problem
from flash_attn.triton_amd.tuning import ForwardConfig, backward_config, forward_config


def forward(spec: AttentionSpec, inputs: AttentionInputs, choice: ConfigChoice) -> ForwardResult:
    """Attention of validated inputs."""
    described = attention_problem(spec, inputs)
    shipped = choice.forward_config is None and not choice.autotune
    if shipped and split_kv.has_few_rows(described):
        tiles = decode_config(described, choice.arch)
        out, softmax_lse = split_kv.decode(described, tiles, choice.compute_units, num_splits=spec.num_splits)
    else:
        out, softmax_lse = attention_forward(described, _forward_config(described, choice))
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
    described, out, softmax_lse = attention_problem(spec, inputs), result.out, result.softmax_lse
    if choice.autotune:
        config = autotuner(choice.arch).backward_config(described, out, softmax_lse, dout, dlse)
    else:
        config = backward_config(described, choice.arch)
    return Gradients(*attention_backward(described, out, softmax_lse, dout, dlse, config))


def decode(spec: AttentionSpec, inputs: DecodeInputs, choice: ConfigChoice) -> ForwardResult:
    """Append, rotate and attend to a KV cache."""
    described, new_tokens = decode_problem(spec, inputs)
    config = decode_config(described, choice.arch)
    return ForwardResult(*split_kv.decode(described, config, choice.compute_units, new_tokens, spec.num_splits))


def _forward_config(described: Problem, choice: ConfigChoice) -> ForwardConfig:
    if choice.autotune:
        return autotuner(choice.arch).forward_config(described)
    return forward_config(described, choice.arch, choice.forward_config)


def decode_problem(spec: AttentionSpec, inputs: DecodeInputs) -> tuple[Problem, NewTokens | None]:
    """The problem over the caches as they are, and what is to be appended before."""
    described = attention_problem(spec, inputs.over_cache(inputs.q, inputs.cache_seqlens))
    if inputs.k_new is None or inputs.v_new is None:
        return described, None
    return described, NewTokens(
        inputs.k_new,
        inputs.v_new,
        inputs.rotary_cos,
        inputs.rotary_sin,
        spec.rotary_interleaved,
        inputs.cu_seqlens_k_new,
        inputs.rotary_seqlens,
    )


def attention_problem(spec: AttentionSpec, inputs: AttentionInputs) -> Problem:
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
        attention_chunk=spec.attention_chunk,
    )


def _contiguous(x: Tensor | None) -> Tensor | None:
    """A small vector as the kernels read it."""
    return None if x is None else x.contiguous()
