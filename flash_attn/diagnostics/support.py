"""The matrix backend x feature, from the backends' own answers."""

from __future__ import annotations

import torch

from flash_attn import dispatch, environment
from flash_attn.diagnostics.text_table import markdown_table
from flash_attn.feature_cases import FEATURES, Feature

BACKENDS = tuple(name for name in environment.BACKEND_NAMES if name != "auto")
PROBE = FEATURES[1]  # plain attention, forward and backward, in bfloat16


def unsupported(backend: str, feature: Feature) -> list[str]:
    """Why ``backend`` does not have ``feature``, on any machine."""
    asked = dispatch.backend(backend)
    return asked.unsupported_reasons(feature.spec(), torch.device(asked.device_type))


def support_matrix() -> str:
    """Markdown: a table of backends by features, then the reasons behind every ``no``."""
    reasons = {name: [unsupported(name, feature) for feature in FEATURES] for name in BACKENDS}
    rows = [
        [feature.name, *("no" if reasons[name][i] else "yes" for name in BACKENDS)]
        for i, feature in enumerate(FEATURES)
    ]
    table = markdown_table(["feature", *BACKENDS], rows)
    notes = []
    for name in BACKENDS:
        distinct = dict.fromkeys(reason for against in reasons[name] for reason in against)
        if distinct:
            notes.append(f"- {name}: {'; '.join(distinct)}")
    return "\n".join([table, "", *notes]).rstrip()
