"""The CK build with compilers that are shell scripts: what it runs, what it runs again, and what a wheel becomes."""

import importlib.util
import os
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from fake_machine import FakeMachine, compiled, compilers_that_note

from build_tools.ck_build import CkBuild
from build_tools.detect import Detection
from build_tools.errors import BuildError
from build_tools.native_build import ROOT, compile_extension, portable_kernels


@pytest.fixture
def rocm(machine: FakeMachine, tmp_path: Path) -> FakeMachine:
    """A machine whose compilers run, with the real ninja and the real hipify."""
    machine.rocm_complete()
    compilers_that_note(
        machine, {machine.rocm_path / "bin/hipcc": "HIP version: 7.0.5", machine.bin / "g++": "g++ 12.2.0"}, tmp_path
    )
    torch = importlib.util.find_spec("torch")
    assert torch
    assert torch.origin
    shutil.copytree(Path(torch.origin).parent / "utils/hipify", machine.site / "torch/utils/hipify")
    return machine


def build(rocm: FakeMachine, tmp_path: Path, only: str = "*") -> tuple[CkBuild, Detection]:
    output = tmp_path / "out" / "_ck.so"
    return CkBuild(("gfx942",), (128,), "minimal", tmp_path / "build", output, 2, (only,)), rocm.detect()


def test_it_compiles_the_instances_and_the_binding_once(rocm: FakeMachine, tmp_path: Path) -> None:
    plan, detection = build(rocm, tmp_path, "*_bf16_*")
    selections = compile_extension(plan, detection)
    assert len(selections) == 6
    kernels = [f"{selection.instance.name}.o" for selection in selections]
    portable = [f"{source.stem}.o" for source in portable_kernels()]
    host = ["api.o", "device_hip.o", "dispatch.o", "dispatch_table.o", "portable_api.o"]
    assert compiled(tmp_path) == sorted([*kernels, *portable, *host, "_ck.so"])
    assert plan.output.is_file()
    started = time.monotonic()
    compile_extension(plan, detection)
    assert time.monotonic() - started < 5
    assert compiled(tmp_path) == []


def test_what_both_vendors_share_is_hipified(rocm: FakeMachine, tmp_path: Path) -> None:
    compile_extension(*build(rocm, tmp_path, "split_*_fp16_*"))
    translated = (tmp_path / "build/generated/device_hip.cpp").read_text()
    assert "hipGetDeviceProperties" in translated
    assert "cuda" not in translated
    sources = list((tmp_path / "build/portable").glob("*.hip"))
    assert {source.stem for source in sources} == {source.stem for source in portable_kernels()}
    for source in sources:
        text = source.read_text()
        assert "hipStream_t" in text
        assert "cuda" not in text, source


def test_a_portable_kernel_is_compiled_once_for_all_architectures(rocm: FakeMachine, tmp_path: Path) -> None:
    plan, detection = build(rocm, tmp_path, "split_*_fp16_*")
    compile_extension(replace(plan, archs=("gfx942", "gfx1201")), detection)
    lines = [line for line in (tmp_path / "log").read_text().splitlines() if "build/portable/" in line]
    assert len(lines) == len(portable_kernels())
    assert all("--offload-arch=gfx942 --offload-arch=gfx1201" in line for line in lines)


def test_a_changed_header_compiles_again(rocm: FakeMachine, tmp_path: Path) -> None:
    plan, detection = build(rocm, tmp_path, "split_*_fp16_*")
    compile_extension(plan, detection)
    everything = compiled(tmp_path)
    (tmp_path / "header.h").write_text("new")
    compile_extension(plan, detection)
    assert compiled(tmp_path) == everything


def test_another_selection_compiles_what_is_new(rocm: FakeMachine, tmp_path: Path) -> None:
    compile_extension(*build(rocm, tmp_path, "split_*_fp16_*_dense_*"))
    compiled(tmp_path)
    compile_extension(*build(rocm, tmp_path, "split_*_fp16_*"))
    assert compiled(tmp_path) == ["_ck.so", "dispatch_table.o", "split_gfx9_fp16_d128_paged_masked.o"]


def test_the_commands_have_the_architecture_and_the_stable_abi(rocm: FakeMachine, tmp_path: Path) -> None:
    compile_extension(*build(rocm, tmp_path, "split_*_fp16_*_dense_*"))
    kernel, binding = "", ""
    for line in (tmp_path / "log").read_text().splitlines():
        kernel = line if "hipcc" in line and "split_" in line else kernel
        binding = line if "/api.cpp" in line else binding
    assert "--offload-arch=gfx942" in kernel
    assert f"-I{rocm.rocm_path}/include" in kernel
    assert "-DTORCH_TARGET_VERSION=0x020A000000000000" in binding
    assert "-DFLASH_ATTN_LIBRARY=flash_attn_ck" in binding


def test_nothing_to_build_is_an_error(rocm: FakeMachine, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="has no CK kernels named nothing for GPU_ARCHS=gfx942 and OPT_DIM=128"):
        compile_extension(*build(rocm, tmp_path, "nothing"))


@pytest.mark.packaging
@pytest.mark.parametrize("with_headers", [True, False])
def test_pip_takes_the_ck_route_on_a_rocm_machine(rocm: FakeMachine, tmp_path: Path, with_headers: bool) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("LICENSE", "MANIFEST.in", "README.md", "flash_attn_2_cuda.py", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, source / name)
    for name in ("build_tools", "csrc_ck", "csrc_common", "csrc_cuda", "flash_attn", "triton_amd"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "_ck.so"))
    if not with_headers:
        (rocm.rocm_path / "include/ck_tile/ops/fmha.hpp").unlink()
    env = {
        "PATH": os.pathsep.join((str(rocm.bin), str(Path(sys.executable).parent))),
        "PYTHONPATH": str(rocm.site),
        "ROCM_PATH": str(rocm.rocm_path),
        "HOME": str(tmp_path),
        "FLASH_ATTENTION_CK_PRESET": "minimal",
    }
    hook = "from setuptools import build_meta; build_meta.build_wheel('.')"
    done = subprocess.run(
        [sys.executable, "-c", hook], cwd=source, env=env, capture_output=True, text=True, check=False
    )
    if not with_headers:
        assert done.returncode != 0
        assert "composablekernel-dev or set CK_DIR" in done.stderr
        return
    assert done.returncode == 0, done.stdout + done.stderr
    assert "target:    rocm" in done.stdout
    (wheel,) = source.glob("*.whl")
    assert "-py3-none-linux_" in wheel.name
    assert "flash_attn/_ck.so" in zipfile.ZipFile(wheel).namelist()
