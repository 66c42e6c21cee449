"""The kernels of csrc_common as PTX, in ptx_sim. ``python -m pytest -m cuda``."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cuda_cases import KERNELS

from tests import portable_cases
from tests.native_cases import simulate

pytestmark = pytest.mark.cuda

MODULE = Path(portable_cases.__file__)
BuildLibrary = Callable[[tuple[str, ...], tuple[str, ...], bool], Path]


@pytest.mark.parametrize("name", portable_cases.CASES)
def test_the_kernels_are_as_exact_as_float32(build_library: BuildLibrary, name: str) -> None:
    library = build_library(("sm_80",), KERNELS, True)
    results = simulate(MODULE, library, "sm_80", *portable_cases.CASES)[name]
    wrong = {result: errors for result, errors in results.items() if not errors[0] <= errors[1]}
    assert not wrong
