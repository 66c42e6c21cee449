"""Builds a few CK kernels with the toolchain of scripts/install_hip_toolchain.sh; later runs reuse the objects.

Every worker of pytest-xdist has a folder of its own.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from build_tools.ck_build import CkBuild
from build_tools.detect import detect
from build_tools.native_build import ROOT, compile_extension
from build_tools.plan import GIB_PER_JOB, bounded_jobs
from build_tools.settings import Settings

BuildLibrary = Callable[[str, tuple[str, ...]], Path]


@pytest.fixture(scope="session")
def build_library(worker_id: str) -> BuildLibrary:
    """Return a function that builds kernels (by pattern) for an architecture and returns the library."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get("HIP_TOOLCHAIN") or cache / "flash-attn" / "hip-toolchain")
    os.environ["HIP_TOOLCHAIN"] = str(folder)
    settings = Settings.from_environment({**os.environ, "ROCM_PATH": str(folder)})
    detection = detect(settings)
    if detection.rocm is None or detection.ck_include is None or detection.host.ninja is None:
        pytest.fail(f"no HIP compiler with CK in {folder}, or no ninja: run scripts/install_hip_toolchain.sh --with-ck")
    jobs, _ = bounded_jobs(settings, detection, GIB_PER_JOB["rocm"])

    def build(arch: str, only: tuple[str, ...]) -> Path:
        where = ROOT / "build" / "ck-tests" / worker_id / arch
        compile_extension(CkBuild((arch,), (96, 128, 192), "default", where, where / "_ck.so", jobs, only), detection)
        return where / "_ck.so"

    return build
