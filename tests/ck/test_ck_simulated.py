"""CK kernels with their host code, from public API to machine code, on the simulator. ``python -m pytest -m hip``."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from ck_cases import CASES, KERNELS

from build_tools.ck_build import ROOT

pytestmark = pytest.mark.hip

FORWARD = [name for name in CASES if name.startswith("forward") and "float16" not in name]
BuildLibrary = Callable[[str, tuple[str, ...]], Path]


@cache
def simulate(library: Path, arch: str, *names: str) -> dict[str, dict[str, tuple[float, float]]]:
    """Return the errors and allowed errors of every case, by name and result."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("ck_cases.py")), arch, str(library), *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, tuple[float, float]]] = json.loads(done.stdout.splitlines()[-1])
    return found


def cases(arch: str) -> list[str]:
    return list(CASES) if arch == "gfx942" else [name for name in FORWARD if "72" not in name or arch != "gfx1201"]


@pytest.mark.parametrize(("arch", "name"), [(arch, name) for arch in KERNELS for name in cases(arch)])
def test_the_kernels_are_as_exact_as_pytorch(build_library: BuildLibrary, arch: str, name: str) -> None:
    library = build_library(arch, KERNELS[arch])
    results = simulate(library, arch, *cases(arch))[name]
    assert results.keys() >= ({"out", "lse", "dq", "dk", "dv"} if name.startswith("backward") else {"out", "lse"})
    wrong = {result: errors for result, errors in results.items() if not errors[0] <= errors[1]}
    assert not wrong
