"""What nvcc makes of CUDA kernels: spills, matrix instructions, a library that loads anywhere. ``pytest -m cuda``."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from build_tools.cuda_report import count_instructions, find_cuobjdump, read_ptxas
from build_tools.detect import Detection
from build_tools.native_build import ROOT

pytestmark = pytest.mark.cuda

BuildLibrary = Callable[[tuple[str, ...], tuple[str, ...], bool], Path]
ARCHS = ("sm_80", "sm_90a")
KERNELS = (
    "forward_*_bf16_d64_dense_masked",
    "forward_*_fp8_d64_dense_masked",
    "backward_*_bf16_d64_dense_masked",
)
# Of the kernels for an architecture, the matrix instruction.
MATRIX = {"sm80": "HMMA", "sm90": "HGMMA"}
# Loads the library where PyTorch has no GPU, and prints what it answers.
WITHOUT_A_GPU = """
import json
import sys
import torch
torch.ops.load_library(sys.argv[1])
operators = torch.ops.flash_attn_cuda
features = [False] * 7  # varlen, pages, mask, softcap, ALiBi, dropout, deterministic
blocks = {
    f"{phase} {arch} {dtype} {dim}": operators.block_size(phase, arch, getattr(torch, dtype), dim, dim, *features) > 0
    for phase, arch, dtype, dim in json.loads(sys.argv[2])
}
try:
    operators.device_architecture(0)
    reason = ""
except RuntimeError as error:
    reason = str(error)
print(json.dumps([json.loads(operators.instances()), blocks, reason]))
"""


def test_no_kernel_spills_and_each_multiplies_matrices(build_library: BuildLibrary, detection: Detection) -> None:
    folder = build_library(ARCHS, KERNELS, False).parent
    cuobjdump = find_cuobjdump(detection)
    objects = sorted(folder.glob("*ward_sm*.o"))
    assert len(objects) == 5
    for path in objects:
        figures = read_ptxas(Path(f"{path}.remarks").read_text(), path.stem)
        counts = count_instructions(cuobjdump, path, path.stem)
        assert figures.keys() == counts.keys()
        for arch, kernel in figures.items():
            assert kernel["spill stores B"] == kernel["spill loads B"] == "0", (path.name, arch)
            assert counts[arch]["local memory"] == 0, (path.name, arch)
            assert counts[arch][MATRIX[path.stem.split("_")[1]]] > 0, (path.name, arch)


def test_the_library_loads_without_a_gpu_and_finds_its_kernels(build_library: BuildLibrary) -> None:
    library = build_library(ARCHS, KERNELS, False)
    served = [
        ("forward", "sm_86", "bfloat16", 40),
        ("forward", "sm_90", "bfloat16", 64),
        ("forward", "sm_90", "float8_e4m3fn", 64),
        ("backward", "sm_90", "bfloat16", 64),
    ]
    not_served = [
        ("forward", "sm_100", "bfloat16", 64),  # another architecture
        ("forward", "sm_80", "float16", 64),  # another dtype
        ("forward", "sm_80", "float8_e4m3fn", 64),
        ("forward", "sm_90", "float8_e4m3fnuz", 64),
        ("forward", "sm_80", "bfloat16", 128),  # a larger head dim
        ("split", "sm_80", "bfloat16", 64),  # another phase
    ]
    command = [sys.executable, "-c", WITHOUT_A_GPU, str(library), json.dumps([*served, *not_served])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    instances, blocks, reason = json.loads(done.stdout)
    assert {one["name"] for one in instances} == {
        "forward_sm90_bf16_d64_dense_masked",
        "forward_sm90_fp8_d64_dense_masked",
        "forward_sm80_bf16_d64_dense_masked",
        "backward_sm90_bf16_d64_dense_masked",
        "backward_sm80_bf16_d64_dense_masked",
    }
    assert list(blocks.values()) == [True] * len(served) + [False] * len(not_served), blocks
    assert reason.startswith("device 0: ") or not reason


def test_building_again_compiles_nothing(build_library: BuildLibrary, capsys: pytest.CaptureFixture[str]) -> None:
    build_library(ARCHS, KERNELS, False)
    capsys.readouterr()
    build_library(ARCHS, KERNELS, False)
    assert capsys.readouterr().out.startswith("nothing to compile in ")
