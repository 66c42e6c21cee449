"""CK kernels with their host code, from public API to machine code, on the simulator. ``python -m pytest -m hip``."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ck_cases import CASES, KERNELS, SLOW_CASES, SLOW_KERNELS

from build_tools.native_build import ROOT
from tests.native_cases import simulate

pytestmark = pytest.mark.hip

# of the kernels that every architecture has
FORWARD = [
    name
    for name in CASES
    if name.startswith("forward")
    and name not in SLOW_CASES
    and not any(word in name for word in ("float16", "dropout"))
]
FP8 = [name for name in CASES if name.startswith("fp8") and not name.startswith("fp8fnuz")]
MODULE = Path(__file__).with_name("ck_cases.py")
BuildLibrary = Callable[[str, tuple[str, ...]], Path]


def cases(arch: str) -> list[str]:
    if arch == "gfx942":
        return [name for name in CASES if name not in (*FP8, *SLOW_CASES)]
    if arch == "gfx950":
        return [*FORWARD, *FP8]
    if arch == "gfx1201":
        # WMMA's lanes draw another part of a block of random bytes; its kernel for smaller head dims is not built
        return [*(name for name in FORWARD if "72" not in name), "forward dropout", *FP8]
    return FORWARD


# Loads the library where the HIP runtime sees no device, and prints what the runtime says.
WITHOUT_A_DEVICE = """
import sys
import torch
from amdgpu_sim.hip.library import load_library
load_library()
torch.ops.load_library(sys.argv[1])
q = torch.zeros(1, 8, 1, 128, dtype=torch.bfloat16)
lse = torch.zeros(1, 1, 8)
for call in (
    lambda: torch.ops.flash_attn_ck.device_architecture(0),
    lambda: torch.ops.flash_attn_ck.forward(q, q, q, q, lse, *[None] * 8, 8, 8, 1.0, 0.0, 0.0, -1, -1),
):
    try:
        call()
    except RuntimeError as error:
        print(error)
"""


def test_without_a_device_the_library_loads_and_says_so(build_library: BuildLibrary) -> None:
    library = build_library("gfx942", KERNELS["gfx942"])
    command = [sys.executable, "-c", WITHOUT_A_DEVICE, str(library)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["device 0: no ROCm-capable device is detected"] * 2


@pytest.mark.parametrize(("arch", "name"), [(arch, name) for arch in KERNELS for name in cases(arch)])
def test_the_kernels_are_as_exact_as_pytorch(build_library: BuildLibrary, arch: str, name: str) -> None:
    check(name, simulate(MODULE, build_library(arch, KERNELS[arch]), arch, *cases(arch))[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_CASES)
def test_more_kernels_are_as_exact_as_pytorch(build_library: BuildLibrary, name: str) -> None:
    library = build_library("gfx942", (*KERNELS["gfx942"], *SLOW_KERNELS))
    check(name, simulate(MODULE, library, "gfx942", *SLOW_CASES)[name])


def check(name: str, results: dict[str, tuple[float, float]]) -> None:
    assert results.keys() >= ({"out", "lse", "dq", "dk", "dv"} if name.startswith("backward") else {"out", "lse"})
    wrong = {result: errors for result, errors in results.items() if not errors[0] <= errors[1]}
    assert not wrong
