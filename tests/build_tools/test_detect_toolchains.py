from pathlib import Path

import pytest
from fake_machine import NVCC_VERSION, FakeMachine, program, says

from build_tools.detect import Places, detect
from build_tools.host import available_memory_gib
from build_tools.settings import Settings
from build_tools.torch_build import find_torch


def test_nothing(machine: FakeMachine) -> None:
    found = machine.detect()
    assert (found.cuda, found.rocm, found.torch, found.ck_include, found.cutlass_include) == (None,) * 5
    assert (found.host.compiler, found.host.ninja) == (None, None)
    assert found.host.cores >= 1


def test_cuda_only(machine: FakeMachine) -> None:
    machine.cuda_complete()
    found = machine.detect()
    assert found.rocm is None
    assert found.cuda is not None
    assert (found.cuda.home, found.cuda.nvcc.version) == (machine.cuda_home, "13.0.88")
    assert found.torch is not None
    assert (found.torch.version, found.torch.cuda, found.torch.hip) == ("2.11.0+cu130", "13.0", None)
    assert found.torch.vendor == "cuda"
    assert found.cutlass_include == machine.site / "cutlass_library" / "source" / "include"
    assert found.host.compiler is not None
    assert found.host.compiler.version == "12.2.0"
    assert found.host.ninja is not None
    assert found.host.ninja.version == "1.11.1"


def test_rocm_only(machine: FakeMachine) -> None:
    machine.rocm_complete(archs=("gfx942", "gfx942", "gfx1100"))
    found = machine.detect()
    assert found.cuda is None
    assert found.rocm is not None
    assert (found.rocm.path, found.rocm.version) == (machine.rocm_path, "7.0.0")
    assert (found.rocm.compiler.path.name, found.rocm.compiler.version) == ("hipcc", "7.0.51831")
    assert found.rocm.gpu_archs == ("gfx942", "gfx1100")
    assert found.torch is not None
    assert found.torch.vendor == "rocm"
    assert found.ck_include == machine.rocm_path / "include"


def test_both(machine: FakeMachine) -> None:
    machine.cuda()
    machine.rocm()
    found = machine.detect()
    assert found.cuda is not None
    assert found.rocm is not None


def test_path_wins_over_the_usual_place(machine: FakeMachine) -> None:
    machine.cuda("13.0.88")
    machine.rocm("7.0.0")
    machine.search += [
        machine.cuda("12.8.93", machine.root / "cuda-12.8").parent,
        machine.rocm("6.4.1", path=machine.root / "rocm-6.4.1").parent,
    ]
    found = machine.detect()
    assert found.cuda is not None
    assert (found.cuda.home, found.cuda.nvcc.version) == (machine.root / "cuda-12.8", "12.8.93")
    assert found.rocm is not None
    assert (found.rocm.path, found.rocm.version) == (machine.root / "rocm-6.4.1", "6.4.1")


@pytest.mark.parametrize("name", ["CUDA_HOME", "CUDA_PATH"])
def test_cuda_home_wins_over_path(machine: FakeMachine, name: str) -> None:
    machine.search.append(machine.cuda("13.0.88").parent)
    machine.cuda("12.8.93", machine.root / "other")
    found = machine.detect(**{name: str(machine.root / "other")})
    assert found.cuda is not None
    assert found.cuda.nvcc.version == "12.8.93"
    assert machine.detect(**{name: str(machine.root / "empty")}).cuda is None


@pytest.mark.parametrize("name", ["ROCM_PATH", "ROCM_HOME"])
def test_rocm_path_wins_over_path(machine: FakeMachine, name: str) -> None:
    machine.search.append(machine.rocm("7.0.0").parent)
    machine.rocm("6.4.1", path=machine.root / "other")
    found = machine.detect(**{name: str(machine.root / "other")})
    assert found.rocm is not None
    assert found.rocm.version == "6.4.1"
    assert machine.detect(**{name: str(machine.root / "empty")}).rocm is None


def test_nvcc_behind_a_wrapper_tells_its_toolkit(machine: FakeMachine) -> None:
    home = machine.root / "cuda-13.0"
    home.mkdir()
    answer = says(NVCC_VERSION.format(short="13.0", version="13.0.88"))
    program(machine.bin / "nvcc", f'if [ "$1" = --dryrun ]; then echo "#$ TOP={home}/bin/.."; else {answer}; fi')
    (home / "bin").mkdir()
    found = machine.detect()
    assert found.cuda is not None
    assert found.cuda.home == home


def test_clang_serves_without_hipcc(machine: FakeMachine) -> None:
    program(machine.rocm_path / "llvm" / "bin" / "amdclang++", says("AMD clang version 19.0.0git"))
    found = machine.detect()
    assert found.rocm is not None
    assert found.rocm.compiler.path.name == "amdclang++"
    assert found.rocm.compiler.version == "19.0.0"
    assert found.rocm.version is None


def test_rocminfo_serves_when_the_enumerator_sees_no_card(machine: FakeMachine) -> None:
    machine.rocm(archs=())
    program(machine.rocm_path / "bin" / "rocminfo", says("Agent 2\n  Name:                    gfx1201\n  Name: x"))
    found = machine.detect()
    assert found.rocm is not None
    assert found.rocm.gpu_archs == ("gfx1201",)


def test_a_compiler_that_fails_is_found_with_its_problem(machine: FakeMachine) -> None:
    program(machine.cuda_home / "bin" / "nvcc", "echo 'libcudart missing'; exit 3")
    found = machine.detect()
    assert found.cuda is not None
    assert found.cuda.nvcc.version is None
    assert "exited 3: libcudart missing" in str(found.cuda.nvcc.problem)


def test_torch_is_read_and_not_imported(machine: FakeMachine) -> None:
    machine.torch("2.12.1+cpu")
    torch = find_torch([machine.root / "absent", machine.site])
    assert torch is not None
    assert (torch.version, torch.vendor, torch.path) == ("2.12.1+cpu", None, machine.site / "torch")


def test_ck_dir_and_cutlass_dir(machine: FakeMachine) -> None:
    ck = machine.ck(machine.root / "ck")
    (machine.root / "cutlass" / "include" / "cute").mkdir(parents=True)
    (machine.root / "cutlass" / "include" / "cute" / "tensor.hpp").touch()
    found = machine.detect(CK_DIR=str(machine.root / "ck"), CUTLASS_DIR=str(machine.root / "cutlass"))
    assert found.ck_include == ck
    assert found.cutlass_include == machine.root / "cutlass" / "include"
    assert machine.detect(CK_DIR=str(machine.root)).ck_include is None


def test_memory_is_at_most_the_containers(machine: FakeMachine) -> None:
    machine.memory(gib=20)
    cgroup = machine.root / "cgroup"
    assert available_memory_gib(machine.root / "meminfo", cgroup) == 20
    cgroup.mkdir()
    (cgroup / "memory.max").write_text("max\n")
    assert available_memory_gib(machine.root / "meminfo", cgroup) == 20
    (cgroup / "memory.max").write_text(f"{6 * 1024**3}\n")
    assert available_memory_gib(machine.root / "meminfo", cgroup) == 6
    assert available_memory_gib(machine.root / "absent", machine.root / "absent") is None


def test_this_machine_is_described_without_error(tmp_path: Path) -> None:
    found = detect(Settings.from_environment(), Places())
    assert found.host.python
