"""The grid of decode_grid.py on the cpu and reference backends, and the reference against a definition in loops."""

from __future__ import annotations

import decode_definition
import pytest
import torch
from decode_grid import CORE, FULL, SIMULATED, failures

from flash_attn import use_backend
from flash_attn.backends.reference import ReferenceBackend
from flash_attn.testing import Bound, DecodeCase, compare, decode_copy, make_decode

_TIERS = [pytest.param(name, marks=() if name in CORE else pytest.mark.slow) for name in FULL]
# Loops over a long cache take seconds, and are those over a short one.
_DEFINED = [name for name, case in CORE.items() if isinstance(case, DecodeCase) and case.capacity < 1000]


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", _TIERS)
def test_grid(name: str, backend: str) -> None:
    with use_backend(backend):
        assert not failures(name)


@pytest.mark.parametrize("name", _DEFINED)
def test_the_reference_equals_loops_over_tokens(name: str) -> None:
    spec, given = make_decode(CORE[name])  # type: ignore[arg-type]
    if not spec.is_fp8:
        given = decode_copy(given, torch.float64)
        spec = spec._replace(dtype=torch.float64)
    ours, looped = decode_copy(given, None), decode_copy(given, None)
    result = ReferenceBackend().decode(spec, ours)
    expected = decode_definition.decode(spec, looped)
    assert torch.equal(ours.k_cache.double(), looped.k_cache.double())
    assert torch.equal(ours.v_cache.double(), looped.v_cache.double())
    # Either side adds up as many terms as there are keys and dimensions; lse is fp32, and the output of fp8 bf16.
    terms = spec.head_dim + ours.capacity
    for b, rows in enumerate(expected):
        for i, (out, lse) in enumerate(rows):
            if given.cu_seqlens_q is None:
                mine, my_lse = result.out[b, i], result.softmax_lse[b, :, i]
            else:
                row = int(given.cu_seqlens_q[b]) + i
                mine, my_lse = result.out[row], result.softmax_lse[:, row]
            assert compare("out", mine, out, out, Bound(mine.dtype, terms)).passed, (b, i)
            assert compare("lse", my_lse, lse, lse, Bound(torch.float32, 0)).passed, (b, i)


def test_simulated_cases_are_of_the_grid() -> None:
    assert set(SIMULATED) <= set(CORE)
