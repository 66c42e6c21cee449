"""CUDA kernels with their host code, from public API to PTX, in ptx_sim. ``python -m pytest -m cuda``."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cuda_cases import CASES, KERNELS

from tests.native_cases import simulate

pytestmark = pytest.mark.cuda

MODULE = Path(__file__).with_name("cuda_cases.py")
BuildLibrary = Callable[[tuple[str, ...], tuple[str, ...], bool], Path]


@pytest.mark.parametrize("name", CASES)
def test_the_kernels_are_as_exact_as_pytorch(build_library: BuildLibrary, name: str) -> None:
    library = build_library(("sm_80",), KERNELS, True)
    results = simulate(MODULE, library, "sm_80", *CASES)[name]
    assert results.keys() >= ({"out", "lse", "dq", "dk", "dv"} if name.startswith("backward") else {"out", "lse"})
    wrong = {result: errors for result, errors in results.items() if not errors[0] <= errors[1]}
    assert not wrong
