"""Random specs, forward and gradients, against the definition in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import DTYPES, attention_cases, decode_cases, extended_decode_cases, forward_only_cases

from flash_attn.testing import AttentionCase, Comparison, DecodeCase, compare_attention, compare_decode


def _assert_passed(case: object, comparisons: list[Comparison]) -> None:
    failed = [comparison for comparison in comparisons if not comparison.passed]
    assert not failed, f"{case}: {failed}"


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=125)
@given(data=st.data())
def test_attention_equals_its_definition(dtype: torch.dtype, data: st.DataObject) -> None:
    case = data.draw(attention_cases(dtype))
    _assert_passed(case, compare_attention(case))


@settings(max_examples=200)
@given(decode_cases())
def test_decoding_equals_its_definition(case: DecodeCase) -> None:
    _assert_passed(case, compare_decode(case))


@settings(max_examples=200)
@given(forward_only_cases())
def test_forward_only_attention_equals_its_definition(case: AttentionCase) -> None:
    _assert_passed(case, compare_attention(case))


@settings(max_examples=200)
@given(extended_decode_cases())
def test_extended_decoding_equals_its_definition(case: DecodeCase) -> None:
    _assert_passed(case, compare_decode(case))
