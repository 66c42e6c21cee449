"""The CUDA build with compilers that are shell scripts: what it runs, what it runs again, and what a wheel becomes."""

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from fake_machine import NVCC_VERSION, FakeMachine, compilations, compiled, compilers_that_note

from build_tools.cuda_build import CudaBuild
from build_tools.detect import Detection
from build_tools.errors import BuildError
from build_tools.native_build import ROOT, compile_extension, portable_kernels
from build_tools.native_command import EXTENSIONS, main


@pytest.fixture
def cuda(machine: FakeMachine, tmp_path: Path) -> FakeMachine:
    """A machine whose compilers run, with the real ninja."""
    machine.cuda_complete()
    nvcc = NVCC_VERSION.format(short="13.0", version="13.0.88")
    compilers_that_note(machine, {machine.cuda_home / "bin/nvcc": nvcc, machine.bin / "g++": "g++ 12.2.0"}, tmp_path)
    return machine


def build(cuda: FakeMachine, tmp_path: Path, only: str = "*") -> tuple[CudaBuild, Detection]:
    output = tmp_path / "out" / "_cuda.so"
    return CudaBuild(("80", "120"), (128,), "minimal", tmp_path / "build", output, 2, (only,)), cuda.detect()


def test_it_compiles_the_instances_and_the_binding_once(cuda: FakeMachine, tmp_path: Path) -> None:
    plan, detection = build(cuda, tmp_path, "split_*")
    selections = compile_extension(plan, detection)
    kernels = [f"{selection.instance.name}.o" for selection in selections]
    assert len(kernels) == 4
    portable = [f"{source.stem}.o" for source in portable_kernels()]
    host = ["api.o", "device.o", "dispatch.o", "dispatch_table.o", "portable_api.o"]
    assert compiled(tmp_path) == sorted([*kernels, *portable, *host, "_cuda.so"])
    assert plan.output.is_file()
    compile_extension(plan, detection)
    assert compiled(tmp_path) == []


def test_a_changed_header_compiles_again(cuda: FakeMachine, tmp_path: Path) -> None:
    plan, detection = build(cuda, tmp_path, "split_*_fp16_*")
    compile_extension(plan, detection)
    everything = compiled(tmp_path)
    (tmp_path / "header.h").write_text("new")
    compile_extension(plan, detection)
    assert compiled(tmp_path) == everything


def test_the_commands(cuda: FakeMachine, tmp_path: Path) -> None:
    compile_extension(*build(cuda, tmp_path, "split_*_fp16_*_dense_*"))
    (kernel,) = (line for line in compilations(tmp_path) if "/bin/nvcc" in line and "split_" in line)
    (binding,) = (line for line in compilations(tmp_path) if "/api.cpp" in line)
    (link,) = (line for line in compilations(tmp_path) if "_cuda.so" in line)
    for part in (
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_120,code=sm_120",
        f"-isystem {cuda.site}/cutlass_library/source/include",
        "-Xptxas=-v",
    ):
        assert part in kernel
    assert "-DTORCH_TARGET_VERSION=0x020A000000000000" in binding
    assert "-DFLASH_ATTN_LIBRARY=flash_attn_cuda" in binding
    assert "USE_ROCM" not in binding
    assert "-lcudart_static" in link


def test_a_simulated_build_has_ptx_and_a_shared_runtime(cuda: FakeMachine, tmp_path: Path) -> None:
    plan, detection = build(cuda, tmp_path, "split_*_fp16_*_dense_*")
    compile_extension(replace(plan, simulated=True), detection)
    kernels = [line for line in compilations(tmp_path) if "/bin/nvcc" in line]
    (link,) = (line for line in compilations(tmp_path) if "_cuda.so" in line)
    assert len(kernels) == 1 + len(portable_kernels())
    for kernel in kernels:
        assert "-gencode=arch=compute_80,code=compute_80" in kernel
        assert "-gencode=arch=compute_120,code=compute_120" in kernel
    assert "-lcudart " in f"{link} "
    assert "static" not in link


def test_nvcc_compiles_several_architectures_at_a_time(cuda: FakeMachine, tmp_path: Path) -> None:
    plan, detection = build(cuda, tmp_path, "split_*_fp16_*_dense_*")
    compile_extension(replace(plan, threads=2), detection)
    assert any("--threads=2" in line for line in compilations(tmp_path))


def test_nothing_to_build_is_an_error(cuda: FakeMachine, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="has no CUDA kernels named nothing for FLASH_ATTN_CUDA_ARCHS=80;120"):
        compile_extension(*build(cuda, tmp_path, "nothing"))


def test_the_command_names_what_it_does_not_take(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(EXTENSIONS["cuda"], ["--arch", "gfx942"]) == 1
    assert "FLASH_ATTN_CUDA_ARCHS='gfx942' is not understood: expected NVIDIA architectures" in capsys.readouterr().err


@pytest.mark.packaging
def test_pip_takes_the_cuda_route_on_a_cuda_machine(cuda: FakeMachine, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("LICENSE", "MANIFEST.in", "README.md", "flash_attn_2_cuda.py", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, source / name)
    for name in ("build_tools", "csrc_ck", "csrc_common", "csrc_cuda", "flash_attn", "triton_amd"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "_*.so"))
    env = {
        "PATH": os.pathsep.join((str(cuda.bin), str(Path(sys.executable).parent))),
        "PYTHONPATH": str(cuda.site),
        "CUDA_HOME": str(cuda.cuda_home),
        "HOME": str(tmp_path),
        "FLASH_ATTENTION_CUDA_PRESET": "minimal",
        "FLASH_ATTN_CUDA_ARCHS": "90",
        "OPT_DIM": "128",
    }
    hook = "from setuptools import build_meta; build_meta.build_wheel('.')"
    done = subprocess.run(
        [sys.executable, "-c", hook], cwd=source, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "target:    cuda" in done.stdout
    assert "kernels:   12 of preset minimal" in done.stdout
    (wheel,) = source.glob("*.whl")
    assert "-py3-none-linux_" in wheel.name
    assert "flash_attn/_cuda.so" in zipfile.ZipFile(wheel).namelist()
