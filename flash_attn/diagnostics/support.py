"""The matrix backend x feature, from the backends' own answers."""

from __future__ import annotations

import torch

from flash_attn import dispatch, environment
from flash_attn.diagnostics.text_table import markdown_table
from flash_attn.feature_cases import FEATURES, Feature

BACKENDS = tuple(name for name in environment.BACKEND_NAMES if name != "auto")
PROBE = FEATURES[1]  # plain attention, forward and backward, in bfloat16


def device_type(backend: str) -> str:
    """Kind of device that ``backend`` is made for; PyTorch calls AMD's GPUs ``cuda`` too."""
    return "cpu" if backend in ("cpu", "reference") else "cuda"


def unsupported(backend: str, feature: Feature, device: torch.device | None = None) -> list[str]:
    """Why ``backend`` cannot answer ``feature`` on ``device`` (by default on the kind it is made for)."""
    return dispatch.backend(backend).unsupported_reasons(feature.spec(), device or torch.device(device_type(backend)))


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
