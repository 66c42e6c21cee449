"""Runs a case of ``flash_attn.testing`` through the launchers of the decode kernels and compares with the oracle."""

from __future__ import annotations

import torch
from flash_attn.triton_amd.append import NewTokens
from flash_attn.triton_amd.decode import decode
from flash_attn.triton_amd.decode_config import DecodeConfig
from flash_attn.triton_amd.problem import Problem
from torch import Tensor

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends.base import DecodeInputs
from flash_attn.backends.reference import ReferenceBackend
from flash_attn.testing import Bound, Comparison, DecodeCase, _decode_to, compare, make_decode


def decode_problem(spec: AttentionSpec, inputs: DecodeInputs) -> tuple[Problem, NewTokens | None]:
    """The problem that a validated call poses, and its new tokens."""
    pages = 1 if inputs.block_table is None else inputs.block_table.shape[1]
    problem = Problem(
        inputs.q,
        inputs.k_cache,
        inputs.v_cache,
        inputs.q.shape[1],
        inputs.k_cache.shape[1] * pages,
        spec.softmax_scale,
        spec.window_left,
        spec.window_right,
        spec.softcap,
        seqused_k=inputs.cache_seqlens,
        leftpad_k=inputs.cache_leftpad,
        block_table=inputs.block_table,
        cache_batch_idx=inputs.cache_batch_idx,
        alibi_slopes=inputs.alibi_slopes,
        learnable_sink=inputs.learnable_sink,
    )
    if inputs.k_new is None or inputs.v_new is None:
        return problem, None
    return problem, NewTokens(inputs.k_new, inputs.v_new, inputs.rotary_cos, inputs.rotary_sin, spec.rotary_interleaved)


def compare_case(case: DecodeCase, config: DecodeConfig, num_splits: int) -> list[Comparison]:
    """Output, log-sum-exp and caches of the kernels against the oracle's."""
    return compare_call(*make_decode(case), config, num_splits)


def compare_call(spec: AttentionSpec, inputs: DecodeInputs, config: DecodeConfig, num_splits: int) -> list[Comparison]:
    """As :func:`compare_case`, for a call that no case describes."""
    runs = []
    for compute_dtype in (torch.float64, None):
        dtype = compute_dtype or spec.dtype
        cast = _decode_to(inputs, dtype)
        result = ReferenceBackend(compute_dtype).decode(spec._replace(dtype=dtype), cast)
        runs.append(_results(result.out, result.softmax_lse, cast))
    tested = _decode_to(inputs, spec.dtype)
    problem, new_tokens = decode_problem(spec, tested)
    out, lse = decode(problem, config, 4, new_tokens, num_splits)
    bound = Bound(spec.dtype, 0)
    return [
        compare(name, result, runs[0][name], runs[1][name], bound)
        for name, result in _results(out, lse, tested).items()
    ]


def failed(comparisons: list[Comparison]) -> list[Comparison]:
    """Those that are beyond what is allowed."""
    return [comparison for comparison in comparisons if not comparison.passed]


def _results(out: Tensor, lse: Tensor, inputs: DecodeInputs) -> dict[str, Tensor]:
    return {"out": out, "lse": lse, "k_cache": inputs.k_cache, "v_cache": inputs.v_cache}
