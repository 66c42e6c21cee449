"""What the compiler makes of CK kernels: registers, spills and matrix instructions. ``python -m pytest -m hip``."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from ck_cases import KERNELS

from build_tools.ck_build import ROOT
from build_tools.kernel_report import read_remarks

pytestmark = pytest.mark.hip
BuildLibrary = Callable[[str, tuple[str, ...]], Path]


@pytest.mark.parametrize("arch", KERNELS)
def test_no_kernel_spills_vector_registers(build_library: BuildLibrary, arch: str) -> None:
    build_library(arch, KERNELS[arch])
    remarks = sorted((ROOT / "build" / "ck-tests" / arch).glob("*.remarks"))
    assert remarks
    for path in remarks:
        kernels, _ = read_remarks(path.read_text())
        assert kernels
        for kernel in kernels:
            assert (kernel["VGPRs Spill"], kernel["ScratchSize [bytes/lane]"]) == ("0", "0"), path.name


def test_every_instance_has_a_symbol_of_its_own(build_library: BuildLibrary) -> None:
    library = build_library("gfx942", KERNELS["gfx942"])
    symbols = set(re.findall(rb"6kernelINS0_\d+(\w+?)E", library.read_bytes()))
    remarks = (ROOT / "build" / "ck-tests" / "gfx942").glob("*.remarks")
    assert symbols >= {path.name.removesuffix(".o.remarks").encode() for path in remarks}
