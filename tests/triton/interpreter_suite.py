"""What runs in Triton's interpreter; ``TRITON_INTERPRET=1 python -m pytest tests/triton/interpreter_suite.py``.

The variable must be set before Triton is imported, so that the other tests cannot share the process:
``test_interpreter.py`` runs this file in one of its own.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from __future__ import annotations

import dataclasses

import ml_dtypes
import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from feature_verdicts import as_expected
from flash_attn.triton_amd import interpreter
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import attention_cases, extended_decode_cases  # type: ignore[import-not-found]

from flash_attn import dispatch
from flash_attn.diagnostics import check
from flash_attn.feature_cases import FEATURES, Feature
from flash_attn.testing import AttentionCase, Comparison, DecodeCase, compare_attention, compare_decode, make_attention

CPU = torch.device("cpu")
assert triton.knobs.runtime.interpret, "set TRITON_INTERPRET=1"
interpreter.install()


@triton.jit
def compute(x, y, out, number, OPERATION: tl.constexpr):  # noqa: ANN001, ANN201
    place = tl.arange(0, 64)
    a = tl.load(x + place)
    b = tl.load(y + place)
    if OPERATION == "add":
        result = a + b
    elif OPERATION == "multiply":
        result = a * b
    elif OPERATION == "negate":
        result = -a
    elif OPERATION == "scale":
        result = a * number
    elif OPERATION == "less":
        result = tl.where(a < b, a, b)
    elif OPERATION == "from int":
        result = place.to(tl.bfloat16)
    elif OPERATION == "to int":
        result = a.to(tl.int32).to(tl.bfloat16)
    elif OPERATION == "fma":
        result = tl.fma(a, b, a)
    else:
        result = a.to(tl.float16).to(tl.bfloat16)
    tl.store(out + place, result)


@triton.jit
def product(x, y, out):  # noqa: ANN001, ANN201
    rows, cols = tl.arange(0, 16)[:, None], tl.arange(0, 16)[None, :]
    a, b = tl.load(x + rows * 16 + cols), tl.load(y + rows * 16 + cols)
    tl.store(out + rows * 16 + cols, tl.dot(a, b, tl.full((16, 16), 1.0, tl.float32)))


EXPECTED = {
    "add": lambda a, b: a + b,
    "multiply": lambda a, b: a * b,
    "negate": lambda a, b: -a,
    "scale": lambda a, b: a * 0.3,
    "less": lambda a, b: torch.minimum(a, b),
    "from int": lambda a, b: torch.arange(64).float(),
    "to int": lambda a, b: a.int().float(),
    "fma": lambda a, b: a.double() * b.double() + a.double(),
    "to half": lambda a, b: a.half().float(),
}


@pytest.mark.parametrize("operation", EXPECTED)
def test_bf16_operations_round_once(operation: str) -> None:
    x, y = (4 * torch.randn(64, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    x, y, out = x.bfloat16(), y.bfloat16(), torch.empty(64, dtype=torch.bfloat16)
    compute[(1,)](x, y, out, 0.3, OPERATION=operation)
    expected = EXPECTED[operation](x.float(), y.float())
    if operation == "scale":  # the scalar takes the dtype of the tensor
        expected = x.float() * torch.tensor(0.3).bfloat16().float()
    assert torch.equal(out, expected.bfloat16())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_products_accumulate_in_float32(dtype: torch.dtype) -> None:
    x, y, out = torch.randn(16, 16).to(dtype), torch.randn(16, 16).to(dtype), torch.empty(16, 16)
    product[(1,)](x, y, out)
    exact = x.double() @ y.double() + 1.0
    # Sixteen products, exact in float32, and the start are added up: as many roundings of partial sums.
    partial = float((x.double().abs() @ y.double().abs() + 1.0).max())
    assert float((out - exact).abs().max()) <= 17 * torch.finfo(torch.float32).eps * partial


def test_rounding_to_bf16_is_that_of_ml_dtypes() -> None:
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 2**32, 100_000, dtype=np.uint32)
    ties = (np.arange(2**16, dtype=np.uint32) << 16) + 0x8000
    values = np.concatenate([bits, ties, ties - 1, ties + 1, ties - 0x8000]).view(np.float32)
    with np.errstate(invalid="ignore"):
        expected = values.astype(ml_dtypes.bfloat16)
    ours = interpreter.bf16_bits(values)
    numbers = ~np.isnan(values)
    assert np.array_equal(ours[numbers], expected.view(np.uint16)[numbers])
    assert np.isnan(ours[~numbers].view(ml_dtypes.bfloat16).astype(np.float32)).all()


def test_widening_is_that_of_ml_dtypes() -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    expected = bits.view(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(interpreter.bf16_values(bits), expected)


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_every_feature(feature: Feature) -> None:
    row = check.check_feature("triton", CPU, feature.shortened())
    if "fp8" in feature.name:
        assert row.verdict == "unsupported: Triton's interpreter does not round to fp8"
    else:
        assert as_expected(feature, row), row


def _supported(case: AttentionCase) -> AttentionCase:
    """The case without what the backend refuses."""
    return dataclasses.replace(case, backward=not case.page_size)


def _assert_passed(case: object, comparisons: list[Comparison]) -> None:
    failed = [comparison for comparison in comparisons if not comparison.passed]
    assert not failed, f"{case}: {failed}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@settings(max_examples=10)
@given(data=st.data())
def test_attention_equals_its_definition(dtype: torch.dtype, data: st.DataObject) -> None:
    case = _supported(data.draw(attention_cases(dtype, longest=80, most_heads=2)))
    with dispatch.use_backend("triton"):
        _assert_passed(case, compare_attention(case))


@settings(max_examples=20)
@given(extended_decode_cases())
def test_decoding_equals_its_definition(case: DecodeCase) -> None:
    assume(case.dtype in (torch.float32, torch.bfloat16, torch.float16))
    case = dataclasses.replace(case, kv_dtype=None, descale=False)
    with dispatch.use_backend("triton"):
        _assert_passed(case, compare_decode(case))


@settings(max_examples=10)
@given(attention_cases(torch.float32, longest=80, most_heads=2))
def test_probabilities_equal_their_definition(case: AttentionCase) -> None:
    spec, inputs = make_attention(dataclasses.replace(_supported(case), backward=False))
    spec = spec._replace(return_attn_probs=True)
    ours, exact = (dispatch.backend(name).forward(spec, inputs).attn_probs for name in ("triton", "reference"))
    assert ours is not None
    assert exact is not None
    # A probability is at most 1; its logit, of head_dim terms in float32, is rounded as often.
    roundings = (case.head_dim + 8) * torch.finfo(torch.float32).eps
    logit = 1.0 + float(inputs.q.norm(dim=-1).amax() * inputs.k.norm(dim=-1).amax()) if exact.numel() else 1.0
    torch.testing.assert_close(ours, exact, atol=roundings * logit * max(1.0, abs(spec.softmax_scale)), rtol=0)
