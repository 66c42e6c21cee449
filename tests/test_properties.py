"""Random specs, forward and gradients, against the definition in float64."""

from hypothesis import given, settings
from strategies import attention_cases, decode_cases

from flash_attn.testing import AttentionCase, Comparison, DecodeCase, compare_attention, compare_decode


def _assert_passed(case: object, comparisons: list[Comparison]) -> None:
    failed = [comparison for comparison in comparisons if not comparison.passed]
    assert not failed, f"{case}: {failed}"


@settings(max_examples=500)
@given(attention_cases())
def test_attention_equals_its_definition(case: AttentionCase) -> None:
    _assert_passed(case, compare_attention(case))


@settings(max_examples=200)
@given(decode_cases())
def test_decoding_equals_its_definition(case: DecodeCase) -> None:
    _assert_passed(case, compare_decode(case))
