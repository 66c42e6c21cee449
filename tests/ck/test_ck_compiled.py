"""What the compiler makes of CK kernels: registers, spills and matrix instructions. ``python -m pytest -m hip``."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from ck_cases import KERNELS, SLOW_KERNELS

from build_tools.detect import detect
from build_tools.kernel_report import code_objects, count_instructions, find_objdump, read_remarks
from build_tools.settings import Settings

pytestmark = pytest.mark.hip
BuildLibrary = Callable[[str, tuple[str, ...]], Path]


@pytest.mark.parametrize(
    ("arch", "kernels"), [*KERNELS.items(), pytest.param("gfx942", SLOW_KERNELS, marks=pytest.mark.slow)]
)
def test_no_kernel_spills_and_each_multiplies_matrices(
    build_library: BuildLibrary, arch: str, kernels: tuple[str, ...]
) -> None:
    objects = sorted(build_library(arch, kernels).parent.glob("*_gfx*.o"))
    rocm = detect(Settings(rocm_path=Path(os.environ["HIP_TOOLCHAIN"]))).rocm
    assert objects
    assert rocm
    for path in objects:
        (kernel,), _ = read_remarks(Path(f"{path}.remarks").read_text())
        assert kernel["VGPRs Spill"] == "0", path.name
        # gfx12 reserves scratch that nothing uses
        assert kernel["ScratchSize [bytes/lane]"] == "0" or arch.startswith("gfx12"), path.name
        counts = count_instructions(find_objdump(rocm), dict(code_objects(path.read_bytes()))[arch])
        assert counts["scratch instructions"] == 0, path.name
        assert counts["matrix instructions"] > 0, path.name


def test_every_instance_has_a_symbol_of_its_own(build_library: BuildLibrary) -> None:
    library = build_library("gfx942", KERNELS["gfx942"])
    symbols = set(re.findall(rb"6kernelINS0_\d+(\w+?)E", library.read_bytes()))
    sources = list((library.parent / "generated").glob("*.hip"))
    assert sources
    assert symbols >= {path.stem.encode() for path in sources}
