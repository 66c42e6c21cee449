"""CUDA kernels with their host code, from public API to PTX, in ptx_sim. ``python -m pytest -m cuda``."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cuda_cases import CASES, DECODE_KERNELS, FP8_CASES, FP8_KERNELS, GRID, KERNELS

from build_tools.native_build import ROOT
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


@pytest.mark.parametrize("name", FP8_CASES)
def test_fp8_is_as_exact_as_its_rounding(build_library: BuildLibrary, name: str) -> None:
    library = build_library(("sm_90a",), FP8_KERNELS, True)
    results = simulate(MODULE, library, "sm_90", *FP8_CASES)[name]
    assert results.keys() >= {"out", "lse"}
    wrong = {result: errors for result, errors in results.items() if not errors[0] <= errors[1]}
    assert not wrong


@pytest.mark.parametrize("name", GRID)
@pytest.mark.parametrize(
    ("arch", "device", "kernels"),
    [("sm_80", "sm_80", KERNELS), ("sm_90a", "sm_90", DECODE_KERNELS)],
    ids=["ampere", "hopper"],
)
def test_decoding_is_as_exact_as_pytorch(
    build_library: BuildLibrary, arch: str, device: str, kernels: tuple[str, ...], name: str
) -> None:
    library = build_library((arch,), kernels, True)
    results = simulate(MODULE, library, device, *GRID)[name]
    wrong = {result: errors for result, errors in results.items() if not errors[0] <= errors[1]}
    assert results
    assert not wrong


REPEATED = """
import sys, torch, flash_attn
from dataclasses import replace
from pathlib import Path
from flash_attn import dispatch
native = dispatch.backend("cuda")
native.library = replace(native.library, path=Path(sys.argv[1]))
q = torch.ones(1, 8, 1, 64, dtype=torch.bfloat16)
with flash_attn.use_backend("cuda"):
    flash_attn.flash_attn_func(q, q[:, :1].expand(-1, 8, -1, -1), q)
"""


def test_a_tensor_that_repeats_one_row_is_refused(build_library: BuildLibrary) -> None:
    library = build_library(("sm_80",), KERNELS, True)
    done = subprocess.run(
        [sys.executable, "-c", REPEATED, str(library)],
        cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "FLASH_ATTENTION_SIMULATE": "sm_80"},
    )  # fmt: skip
    assert done.returncode != 0
    assert "k repeats one row (stride 0 in dimension 1): make it contiguous" in done.stderr
