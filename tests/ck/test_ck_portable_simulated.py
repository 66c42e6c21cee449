"""The kernels of csrc_common as machine code of AMD GPUs, on the simulator. ``python -m pytest -m hip``."""

from collections.abc import Callable
from pathlib import Path

import pytest
from ck_cases import KERNELS

from build_tools.kernel_report import read_remarks
from build_tools.native_build import portable_kernels
from tests import portable_cases
from tests.native_cases import simulate

pytestmark = pytest.mark.hip

MODULE = Path(portable_cases.__file__)
ARCHS = ("gfx942", "gfx1201")  # waves of 64 and of 32 lanes
BuildLibrary = Callable[[str, tuple[str, ...]], Path]


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("name", portable_cases.CASES)
def test_the_kernels_are_as_exact_as_float32(build_library: BuildLibrary, arch: str, name: str) -> None:
    library = build_library(arch, KERNELS[arch])
    results = simulate(MODULE, library, arch, *portable_cases.CASES)[name]
    wrong = {result: errors for result, errors in results.items() if not errors[0] <= errors[1]}
    assert not wrong


@pytest.mark.parametrize("arch", ARCHS)
def test_no_kernel_spills(build_library: BuildLibrary, arch: str) -> None:
    folder = build_library(arch, KERNELS[arch]).parent
    for source in portable_kernels():
        remarks = folder / f"{source.stem}.o.remarks"
        kernels, _ = read_remarks(remarks.read_text())
        assert len(kernels) >= 2, source.stem
        assert all(kernel["VGPRs Spill"] == kernel["SGPRs Spill"] == "0" for kernel in kernels), source.stem
