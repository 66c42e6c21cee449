"""What ``check`` says of every feature on the triton backend: passed, but for those that it does not have."""

from flash_attn.diagnostics.check import Row
from flash_attn.feature_cases import Feature

UNSUPPORTED = {
    "dtype float64": "dtype float64 is not one of",
}


def as_expected(feature: Feature, row: Row) -> bool:
    """Whether the row says what is true of the feature."""
    reason = UNSUPPORTED.get(feature.name)
    return row.verdict == "passed" if reason is None else row.verdict.startswith(f"unsupported: {reason}")
