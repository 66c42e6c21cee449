import re
from pathlib import Path

import pytest
from fake_machine import FakeMachine

import build_tools.host
from build_tools.errors import BuildError
from build_tools.plan import BuildPlan, decide, vendors_with_kernels
from build_tools.torch_build import Vendor

BOTH: frozenset[Vendor] = frozenset({"cuda", "rocm"})
NONE: frozenset[Vendor] = frozenset()


def plan(machine: FakeMachine, sources: frozenset[Vendor] = BOTH, /, **env: str) -> BuildPlan:
    return decide(machine.settings(**env), machine.detect(**env), sources)


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_tools.host, "usable_cores", lambda: 16)


def test_nothing_found_is_a_pure_package(machine: FakeMachine) -> None:
    chosen = plan(machine)
    assert chosen.target == "none"
    assert chosen.reason.startswith("found neither CUDA nor ROCm")
    assert (chosen.archs, chosen.jobs, chosen.warnings) == ((), None, ())


def test_a_tree_without_kernels_says_so(machine: FakeMachine) -> None:
    machine.rocm_complete()
    chosen = plan(machine, NONE)
    assert chosen.target == "none"
    assert chosen.reason == (
        "found ROCm 7.0.0 and hipcc and PyTorch 2.11.0+rocm7.0; this source tree has no CK kernels "
        "(csrc_ck/): building the pure-Python package, which computes on CPU tensors"
    )


def test_rocm(machine: FakeMachine) -> None:
    machine.rocm_complete()
    chosen = plan(machine)
    assert (chosen.target, chosen.archs, chosen.head_dims) == ("rocm", ("gfx942",), (32, 64, 128, 256))
    assert "ROCm 7.0.0" in chosen.reason


def test_cuda(machine: FakeMachine) -> None:
    machine.cuda_complete()
    chosen = plan(machine)
    assert (chosen.target, chosen.archs, chosen.head_dims) == ("cuda", ("80", "90", "100", "120"), (32, 64, 128, 256))


@pytest.mark.parametrize(("version", "hip"), [("2.11.0+rocm7.0", "7.0.51831"), ("2.11.0+cu130", None)])
def test_with_both_toolchains_pytorch_decides(machine: FakeMachine, version: str, hip: str | None) -> None:
    machine.host_tools()
    machine.rocm()
    machine.ck()
    machine.cuda()
    machine.cutlass()
    machine.torch(version, cuda=None if hip else "13.0", hip=hip)
    assert plan(machine).target == ("rocm" if hip else "cuda")


def test_with_both_toolchains_and_no_pytorch_both_are_explained(machine: FakeMachine) -> None:
    machine.rocm()
    machine.cuda()
    chosen = plan(machine)
    assert chosen.target == "none"
    assert "found ROCm 7.0.0" in chosen.reason
    assert "found nvcc 13.0.88" in chosen.reason
    assert "no PyTorch found: install torch >= 2.10 built for ROCm" in chosen.reason


def test_rocm_torch_without_hipcc_is_a_note(machine: FakeMachine) -> None:
    machine.torch("2.11.0+rocm7.0", hip="7.0.1")
    chosen = plan(machine)
    assert chosen.target == "none"
    assert "found PyTorch 2.11.0+rocm7.0" in chosen.reason
    assert "no hipcc on PATH or in /opt/rocm: install ROCm's HIP SDK" in chosen.reason


@pytest.mark.parametrize("old", ["11.8.89", "12.8.93"])
def test_cuda_torch_with_an_old_nvcc(machine: FakeMachine, old: str) -> None:
    machine.cuda_complete(nvcc=old)
    chosen = plan(machine)
    assert chosen.target == "none"
    assert f"is built with CUDA 13.0 but nvcc is {old}" in chosen.reason
    assert ("is too old" in chosen.reason) == old.startswith("11.")
    with pytest.raises(BuildError, match="install the CUDA toolkit 13"):
        plan(machine, BUILD_TARGET="cuda")


def test_an_older_nvcc_drops_the_default_archs_it_does_not_know(machine: FakeMachine) -> None:
    machine.cuda_complete(nvcc="12.4.131", torch_cuda="12.4")
    assert plan(machine).archs == ("80", "90")
    assert plan(machine, FLASH_ATTN_CUDA_ARCHS="90a").archs == ("90a",)
    with pytest.raises(BuildError, match=r"nvcc 12\.4\.131 does not compile for sm_100a, sm_120"):
        plan(machine, BUILD_TARGET="cuda", FLASH_ATTN_CUDA_ARCHS="80;100a;120")


@pytest.mark.parametrize(
    ("target", "advice"),
    [("cuda", "install the CUDA toolkit >= 12.0 or set CUDA_HOME"), ("rocm", "install ROCm's HIP SDK")],
)
def test_a_named_target_without_its_toolchain_is_an_error(machine: FakeMachine, target: str, advice: str) -> None:
    with pytest.raises(BuildError, match=f"BUILD_TARGET={target} asks for native kernels") as error:
        plan(machine, BUILD_TARGET=target)
    for line in (advice, "no PyTorch found", "install g++", "pip install ninja"):
        assert line in str(error.value)


def test_force_build_without_any_toolchain_names_both(machine: FakeMachine) -> None:
    with pytest.raises(BuildError, match="FLASH_ATTENTION_FORCE_BUILD asks for native kernels") as error:
        plan(machine, FLASH_ATTENTION_FORCE_BUILD="1")
    assert "ROCm: no hipcc" in str(error.value)
    assert "CUDA: no nvcc" in str(error.value)


@pytest.mark.parametrize("env", [{"BUILD_TARGET": "rocm"}, {"FLASH_ATTENTION_FORCE_BUILD": "1"}])
def test_asking_for_kernels_that_the_tree_lacks_is_an_error(machine: FakeMachine, env: dict[str, str]) -> None:
    machine.rocm_complete()
    with pytest.raises(BuildError, match="this source tree has no CK kernels"):
        plan(machine, NONE, **env)


def test_a_named_target_that_pytorch_does_not_serve_is_an_error(machine: FakeMachine) -> None:
    machine.cuda_complete()
    machine.rocm()
    machine.ck()
    with pytest.raises(BuildError, match="is a CUDA build: install one built for ROCm"):
        plan(machine, BUILD_TARGET="rocm")


@pytest.mark.parametrize(
    ("folder", "message"),
    [("CUDA_HOME", "no nvcc in CUDA_HOME="), ("ROCM_PATH", "no hipcc in ROCM_PATH=")],
)
def test_a_folder_without_its_compiler_is_named(machine: FakeMachine, folder: str, message: str) -> None:
    machine.cuda_complete()
    machine.rocm()
    target = "cuda" if folder == "CUDA_HOME" else "rocm"
    with pytest.raises(BuildError, match=message):
        plan(machine, BUILD_TARGET=target, **{folder: str(machine.root / "empty")})


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        ("usr/bin/ninja", "pip install ninja"),
        ("usr/bin/g++", "install g++"),
        ("opt/rocm/bin/hipcc", "install ROCm's HIP SDK"),
    ],
)
def test_each_missing_piece_is_an_obstacle(machine: FakeMachine, breaks: str, message: str) -> None:
    machine.rocm_complete()
    (machine.root / breaks).unlink()
    assert message in plan(machine).reason
    with pytest.raises(BuildError, match=re.escape(message)):
        plan(machine, BUILD_TARGET="rocm")


@pytest.mark.parametrize("env", [{}, {"BUILD_TARGET": "rocm"}, {"FLASH_ATTENTION_FORCE_BUILD": "1"}])
def test_rocm_without_ck_headers_stops_and_tells_how_to_get_them(machine: FakeMachine, env: dict[str, str]) -> None:
    machine.rocm_complete()
    (machine.rocm_path / "include/ck_tile/ops/fmha.hpp").unlink()
    with pytest.raises(BuildError, match="composablekernel-dev or set CK_DIR to a checkout") as error:
        plan(machine, **env)
    assert "pip install --no-deps --pre amd-aiter==" in str(error.value)
    assert ("FLASH_ATTENTION_SKIP_CUDA_BUILD=1 builds without" in str(error.value)) == (not env)
    assert plan(machine, FLASH_ATTENTION_SKIP_CUDA_BUILD="1").target == "none"


def test_missing_ck_headers_are_one_reason_among_others(machine: FakeMachine) -> None:
    machine.rocm_complete()
    (machine.rocm_path / "include/ck_tile/ops/fmha.hpp").unlink()
    (machine.bin / "ninja").unlink()
    chosen = plan(machine)
    assert chosen.target == "none"
    assert "composablekernel-dev or set CK_DIR" in chosen.reason


def test_ck_headers_of_the_wheel_are_found(machine: FakeMachine) -> None:
    machine.rocm_complete()
    (machine.rocm_path / "include/ck_tile/ops/fmha.hpp").unlink()
    include = machine.ck(machine.site / "aiter_meta/3rdparty/composable_kernel")
    assert machine.detect().ck_include == include
    assert plan(machine).target == "rocm"


def test_ck_preset(machine: FakeMachine) -> None:
    machine.rocm_complete()
    assert plan(machine).preset == "default"
    assert plan(machine, FLASH_ATTENTION_CK_PRESET="Minimal").preset == "minimal"
    with pytest.raises(BuildError, match="FLASH_ATTENTION_CK_PRESET='some' is not understood: expected minimal"):
        plan(machine, FLASH_ATTENTION_CK_PRESET="some")


def test_cuda_preset(machine: FakeMachine) -> None:
    machine.cuda_complete()
    assert plan(machine).preset == "default"
    assert plan(machine, FLASH_ATTENTION_CUDA_PRESET="full").preset == "full"
    assert plan(machine, FLASH_ATTENTION_CK_PRESET="full").preset == "default"


def test_cuda_without_cutlass_tells_how_to_get_it(machine: FakeMachine) -> None:
    machine.cuda_complete()
    (machine.site / "cutlass_library/source/include/cute/tensor.hpp").unlink()
    with pytest.raises(BuildError, match=r"pip install --no-deps nvidia-cutlass==4\.2\.0\.0, or set CUTLASS_DIR"):
        plan(machine, BUILD_TARGET="cuda")


def test_versions_that_do_not_fit(machine: FakeMachine) -> None:
    machine.host_tools()
    machine.rocm("6.4.1")
    machine.ck()
    machine.torch("2.9.1+rocm7.0", hip="7.0.1")
    reason = plan(machine).reason
    assert "PyTorch 2.9.1+rocm7.0 is too old: install torch >= 2.10" in reason
    assert "built with HIP 7.0.1 but ROCm here is 6.4.1" in reason


def test_amd_architectures(machine: FakeMachine) -> None:
    machine.rocm_complete(archs=("gfx942", "gfx1100"))
    assert plan(machine).archs == ("gfx942",)
    assert plan(machine, GPU_ARCHS="gfx90a;gfx950").archs == ("gfx90a", "gfx950")
    assert plan(machine, OPT_DIM="128").head_dims == (128,)
    chosen = plan(machine, GPU_ARCHS="gfx90a;gfx1100")
    assert chosen.target == "none"
    assert "CK has no attention kernels for gfx1100, which Triton serves" in chosen.reason


def test_only_cards_that_ck_does_not_serve(machine: FakeMachine) -> None:
    machine.rocm_complete(archs=("gfx1100",))
    assert "gfx1100, which Triton serves" in plan(machine).reason


def test_no_card_builds_all_that_ck_serves(machine: FakeMachine) -> None:
    machine.rocm_complete(archs=())
    assert plan(machine).archs == ("gfx90a", "gfx942", "gfx950", "gfx1200", "gfx1201")


def test_skip(machine: FakeMachine) -> None:
    machine.cuda_complete()
    chosen = plan(machine, FLASH_ATTENTION_SKIP_CUDA_BUILD="TRUE")
    assert chosen.target == "none"
    assert chosen.reason.startswith("FLASH_ATTENTION_SKIP_CUDA_BUILD asks for no native kernels")


def test_triton_on_amd_skips_ck_alone(machine: FakeMachine) -> None:
    machine.rocm_complete()
    env = {"FLASH_ATTENTION_TRITON_AMD_ENABLE": "TRUE"}
    assert plan(machine, **env).reason.startswith("FLASH_ATTENTION_TRITON_AMD_ENABLE asks for no native kernels")
    assert plan(machine, BUILD_TARGET="rocm", **env).target == "none"


def test_triton_on_amd_does_not_touch_cuda(machine: FakeMachine) -> None:
    machine.cuda_complete()
    assert plan(machine, FLASH_ATTENTION_TRITON_AMD_ENABLE="TRUE").target == "cuda"


@pytest.mark.parametrize(
    "env",
    [
        {"FLASH_ATTENTION_SKIP_CUDA_BUILD": "1", "BUILD_TARGET": "rocm"},
        {"FLASH_ATTENTION_SKIP_CUDA_BUILD": "1", "FLASH_ATTENTION_FORCE_BUILD": "1"},
        {"FLASH_ATTENTION_TRITON_AMD_ENABLE": "1", "FLASH_ATTENTION_FORCE_BUILD": "1"},
    ],
)
def test_switches_that_exclude_each_other(machine: FakeMachine, env: dict[str, str]) -> None:
    machine.rocm_complete()
    with pytest.raises(BuildError, match="exclude each other") as error:
        plan(machine, **env)
    assert all(name in str(error.value) for name in env)


@pytest.mark.parametrize(
    ("gib", "env", "jobs"),
    [
        (32, {}, 9),  # 32 / 3.5
        (200, {}, 16),  # all cores
        (3, {}, 1),
        (32, {"NVCC_THREADS": "2"}, 4),
        (32, {"NVCC_THREADS": "8", "FLASH_ATTN_CUDA_ARCHS": "90a"}, 9),  # one architecture takes one thread
        (32, {"MAX_JOBS": "3"}, 3),
    ],
)
def test_cuda_jobs_are_bounded_by_memory(machine: FakeMachine, gib: int, env: dict[str, str], jobs: int) -> None:
    machine.cuda_complete()
    machine.memory(gib)
    chosen = plan(machine, **env)
    assert (chosen.jobs, chosen.warnings) == (jobs, ())


def test_rocm_jobs_are_bounded_by_memory(machine: FakeMachine) -> None:
    machine.rocm_complete()
    machine.memory(8)
    assert plan(machine).jobs == 5  # 8 / 1.5


def test_unknown_memory_takes_one_job(machine: FakeMachine) -> None:
    machine.rocm_complete()
    (machine.root / "meminfo").unlink()
    assert plan(machine).jobs == 1


def test_too_many_max_jobs_are_obeyed_with_a_warning(machine: FakeMachine) -> None:
    machine.cuda_complete()
    machine.memory(8)
    chosen = plan(machine, MAX_JOBS="8")
    assert chosen.jobs == 8
    assert chosen.warnings == ("MAX_JOBS=8 may run out of memory: a job takes up to 3.5 GiB, free memory is 8 GiB",)


def test_settings_without_effect_are_warned_about(machine: FakeMachine) -> None:
    chosen = plan(machine, GPU_ARCHS="gfx942", FLASH_ATTENTION_SKIP_CUDA_BUILD="1")
    assert chosen.warnings == ("GPU_ARCHS has no effect: no native kernels are built",)


def test_kernels_are_in_the_tree_when_their_generator_is(tmp_path: Path) -> None:
    (tmp_path / "csrc_ck").mkdir()
    assert vendors_with_kernels(tmp_path) == frozenset()
    (tmp_path / "csrc_ck" / "generate.py").touch()
    assert vendors_with_kernels(tmp_path) == {"rocm"}
