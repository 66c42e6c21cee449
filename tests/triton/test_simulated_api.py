"""The public functions on simulated AMD GPUs: forward, autograd, packed sequences, a paged cache; every feature."""

from collections.abc import Callable

import pytest
import torch
from feature_verdicts import as_expected

from flash_attn import dispatch, environment, flash_attn_func, flash_attn_varlen_func, flash_attn_with_kvcache
from flash_attn.diagnostics import check
from flash_attn.feature_cases import FEATURES, Feature
from flash_attn.testing import AttentionCase, Bound, DecodeCase, compare, compare_attention, compare_decode

TARGETS = environment.SIMULATED_TARGETS
CPU = torch.device("cpu")
TRAINING = AttentionCase(
    (70, 70), (77, 77), nheads_q=2, nheads_k=1, head_dim=32, head_dim_v=32, causal=True, dtype=torch.bfloat16
)
DECODING = DecodeCase((17, 70), seqlen_new=1, capacity=80, page_size=16, dtype=torch.bfloat16)


@pytest.mark.parametrize("target", TARGETS)
def test_forward_and_gradients(target: str, simulate: Callable[[str], None]) -> None:
    simulate(target)
    results = compare_attention(TRAINING)
    assert all(result.passed for result in results), results
    assert {result.name for result in results} == {"out", "lse", "dq", "dk", "dv"}


@pytest.mark.parametrize("target", TARGETS)
def test_decoding_from_pages(target: str, simulate: Callable[[str], None]) -> None:
    simulate(target)
    results = compare_decode(DECODING)
    assert all(result.passed for result in results), results


def test_public_functions(simulate: Callable[[str], None]) -> None:
    simulate("gfx942")
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 70, 2, 32, generator=generator).bfloat16() for _ in range(3))
    lengths = torch.tensor([0, 30, 70], dtype=torch.int32)
    used = torch.tensor([65], dtype=torch.int32)

    def call(dtype: torch.dtype) -> list[torch.Tensor]:
        query, key, value = (x.to(dtype) for x in (q, k, v))
        leaves = [x.clone().requires_grad_() for x in (query, key, value)]
        out = flash_attn_func(leaves[0], leaves[1], leaves[2], causal=True)
        packed = flash_attn_varlen_func(query[0], key[0], value[0], lengths, lengths, 40, 40)
        decoded = flash_attn_with_kvcache(query[:, :1], key, value, cache_seqlens=used)
        assert isinstance(out, torch.Tensor)
        assert isinstance(packed, torch.Tensor)
        assert isinstance(decoded, torch.Tensor)
        return [out.detach(), packed, decoded, *torch.autograd.grad(out, leaves, query)]

    assert dispatch.candidates(CPU) == ("triton",)
    ours = call(torch.bfloat16)
    with dispatch.use_backend("reference"):
        exact = call(torch.float64)
    for name, mine, oracle in zip(("out", "packed", "decoded", "dq", "dk", "dv"), ours, exact, strict=True):
        # The oracle's result, rounded, is the least that plain bf16 can be off by.
        result = compare(name, mine, oracle, oracle.bfloat16(), Bound(torch.bfloat16, 0))
        assert result.passed, result


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_every_feature(feature: Feature, target: str, simulate: Callable[[str], None]) -> None:
    simulate(target)
    row = check.check_feature("triton", CPU, feature.shortened())
    assert as_expected(feature, row), row
