"""Builds a few CUDA kernels with nvcc, in a folder for every worker of pytest-xdist; later runs reuse the objects."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from build_tools.cuda_build import CudaBuild
from build_tools.detect import Detection, detect
from build_tools.native_build import ROOT, compile_extension
from build_tools.obstacles import obstacles_to
from build_tools.plan import GIB_PER_JOB, bounded_jobs
from build_tools.settings import Settings

BuildLibrary = Callable[[tuple[str, ...], tuple[str, ...], bool], Path]


@pytest.fixture(scope="session")
def detection() -> Detection:
    """What there is to build with; the tests fail with what is missing."""
    settings = Settings.from_environment()
    found = detect(settings)
    if missing := obstacles_to("cuda", settings, found, {"cuda"}, cross=True):
        pytest.fail("\n".join(missing))
    return found


@pytest.fixture(scope="session")
def build_library(detection: Detection, worker_id: str) -> BuildLibrary:
    """Return a function that builds kernels (by pattern) for architectures, perhaps to be simulated."""
    jobs, _ = bounded_jobs(Settings.from_environment(), detection, GIB_PER_JOB["cuda"])

    def build(archs: tuple[str, ...], only: tuple[str, ...], simulated: bool) -> Path:
        where = ROOT / "build" / "cuda-tests" / worker_id / ("-".join(archs) + "-simulated" * simulated)
        plan = CudaBuild(archs, (64,), "default", where, where / "_cuda.so", jobs, only)
        compile_extension(replace(plan, simulated=simulated), detection)
        return plan.output

    return build
