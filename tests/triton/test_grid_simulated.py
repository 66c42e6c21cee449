"""What decode_grid.py names for simulated GPUs, through the public operators as code of each of them.

A case each is part of every run of the tests; ``-m slow`` runs all of them on all.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from decode_grid import FULL, SIMULATED, failures, is_fp8  # type: ignore[import-not-found]

from flash_attn import UnsupportedError, environment

_QUICK = {
    "gfx90a": "left padding, paged, appended",
    "gfx942": "prefill and decoding, page 16",
    "gfx950": "shared cache row",
    "gfx1100": "page 1, crossed",
    "gfx1201": "page 256, crossed",
    "sm_80": "page 1, crossed",
    "sm_90": "shared cache row",
}


@pytest.mark.parametrize(
    ("target", "name"),
    [
        pytest.param(target, name, marks=() if _QUICK[target] == name else pytest.mark.slow)
        for target in environment.SIMULATED_TARGETS
        for name in SIMULATED
    ],
)
def test_grid(target: str, name: str, simulate: Callable[[str], None]) -> None:
    simulate(target)
    if target == "sm_80" and is_fp8(FULL[name]):
        with pytest.raises(UnsupportedError, match="Triton does not convert float8_e4m3fn on sm_80"):
            failures(name)
    else:
        assert not failures(name)
