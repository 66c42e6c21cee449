"""Runs a case of ``flash_attn.testing`` through the launchers of the decode kernels and compares with the oracle."""

from __future__ import annotations

import torch
from flash_attn.triton_amd.decode import decode
from flash_attn.triton_amd.decode_config import DecodeConfig
from torch import Tensor

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends.base import DecodeInputs
from flash_attn.backends.reference import ReferenceBackend
from flash_attn.backends.triton_calls import decode_problem
from flash_attn.testing import Bound, Comparison, DecodeCase, compare, decode_copy, make_decode


def compare_case(case: DecodeCase, config: DecodeConfig, num_splits: int) -> list[Comparison]:
    """Output, log-sum-exp and caches of the kernels against the oracle's."""
    return compare_call(*make_decode(case), config, num_splits)


def compare_call(spec: AttentionSpec, inputs: DecodeInputs, config: DecodeConfig, num_splits: int) -> list[Comparison]:
    """As :func:`compare_case`, for a call that no case describes."""
    runs = []
    for compute_dtype in (torch.float64, None):
        dtype = compute_dtype or spec.dtype
        cast = decode_copy(inputs, dtype)
        result = ReferenceBackend(compute_dtype).decode(spec._replace(dtype=dtype), cast)
        runs.append(_results(result.out, result.softmax_lse, cast))
    tested = decode_copy(inputs, spec.dtype)
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
