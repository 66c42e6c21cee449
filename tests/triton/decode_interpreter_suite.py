"""The grid of decode_grid.py in Triton's interpreter; the variable must be set before Triton is imported:

``TRITON_INTERPRET=1 python -m pytest [-m slow] tests/triton/decode_interpreter_suite.py``.
``test_decode_interpreter.py`` runs it in a process of its own.
"""

from __future__ import annotations

import pytest
import triton
from decode_grid import CORE, FULL, failures, is_fp8  # type: ignore[import-not-found]
from flash_attn.triton_amd import interpreter

from flash_attn import UnsupportedError, use_backend

assert triton.knobs.runtime.interpret, "set TRITON_INTERPRET=1"
interpreter.install()

_TIERS = [pytest.param(name, marks=() if name in CORE else pytest.mark.slow) for name in FULL]


@pytest.mark.parametrize("name", _TIERS)
def test_grid(name: str) -> None:
    with use_backend("triton"):
        if is_fp8(FULL[name]):
            with pytest.raises(UnsupportedError, match="Triton's interpreter does not round to fp8"):
                failures(name)
        else:
            assert not failures(name)
