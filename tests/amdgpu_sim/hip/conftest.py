"""Builds the HIP programs of this folder with the toolchain of scripts/install_hip_toolchain.sh."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import amdgpu_sim

Build = Callable[..., Path]
HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def toolchain() -> Path:
    """The folder of the toolchain: $HIP_TOOLCHAIN, or where the script installs it by default."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get("HIP_TOOLCHAIN") or cache / "flash-attn" / "hip-toolchain")
    if not (folder / "bin" / "clang++").exists():
        pytest.fail(f"no HIP toolchain in {folder}: run scripts/install_hip_toolchain.sh, or set HIP_TOOLCHAIN")
    os.environ["HIP_TOOLCHAIN"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def build(toolchain: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """``build(source, *flags, targets=...)`` compiles a program of this folder for ``targets``, once."""
    folder = tmp_path_factory.mktemp("hip")
    built: dict[tuple[str, ...], Path] = {}

    def compile_program(source: str, *flags: str, targets: tuple[str, ...] = tuple(amdgpu_sim.TARGETS)) -> Path:
        key = (source, *flags, *targets)
        if key not in built:
            out = folder / f"{len(built)}.{Path(source).stem}"
            command = [str(toolchain / "bin" / "clang++"), "-x", "hip", f"--rocm-path={toolchain}", "-std=c++17", "-O3"]
            command += ["-Wall", "-Werror", "-gline-tables-only", *(f"--offload-arch={target}" for target in targets)]
            command += [*(flags or ("-fPIC", "-shared")), str(HERE / source), "-o", str(out)]
            subprocess.run(command, check=True)
            built[key] = out
        return built[key]

    return compile_program


@pytest.fixture
def load(build: Build) -> Callable[..., ctypes.CDLL]:
    """``load(source, targets=...)``: the program as a loaded library; a HIP device must be installed."""
    return lambda source, **options: ctypes.CDLL(str(build(source, **options)))
