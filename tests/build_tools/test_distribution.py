import json
import subprocess
import sys
from pathlib import Path

import pytest
from fake_machine import FakeMachine

from build_tools import __main__ as command_line
from build_tools.distribution import distribution_version, package_version, setup_arguments
from build_tools.errors import BuildError
from build_tools.plan import BuildPlan, decide
from build_tools.report import describe_detection, describe_plan, metadata
from build_tools.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def package(root: Path, source: str) -> Path:
    (root / "flash_attn").mkdir()
    (root / "flash_attn" / "__init__.py").write_text(source)
    return root


def test_the_version_is_read_without_importing(tmp_path: Path) -> None:
    root = package(tmp_path, 'raise ImportError\n__version__ = "2.8.3+mb9"\n')
    assert package_version(root) == "2.8.3+mb9"


@pytest.mark.parametrize("source", ["", "__version__ = str(1)\n", "version = '1'\n"])
def test_a_version_that_is_no_literal_is_an_error(tmp_path: Path, source: str) -> None:
    with pytest.raises(BuildError, match="assigns no string literal to __version__"):
        package_version(package(tmp_path, source))


def test_the_local_version_is_appended(tmp_path: Path) -> None:
    root = package(tmp_path, '__version__ = "2.8.3+mb9"\n')
    assert distribution_version(root, None) == "2.8.3+mb9"
    assert distribution_version(root, "rocm70") == "2.8.3+mb9.rocm70"
    (root / "flash_attn" / "__init__.py").write_text('__version__ = "2.8.3"\n')
    assert distribution_version(root, "rocm70") == "2.8.3+rocm70"


def test_packages_come_from_the_tree(tmp_path: Path) -> None:
    package(tmp_path, '__version__ = "1"\n')
    for folder in (
        "flash_attn/layers",
        "triton_amd",
        "triton_amd/inner",
        "tests",
        "build_tools",
        "amdgpu_sim",
        "ptx_sim",
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
    arguments = setup_arguments(tmp_path, Settings())
    assert sorted(arguments["packages"]) == [
        "flash_attn",
        "flash_attn.layers",
        "flash_attn.triton_amd",
        "flash_attn.triton_amd.inner",
    ]
    assert arguments["package_dir"] == {"flash_attn.triton_amd": "triton_amd"}
    assert arguments["py_modules"] == ["flash_attn_2_cuda"]


def test_the_report_names_what_was_found_and_why(machine: FakeMachine) -> None:
    machine.rocm_complete()
    machine.memory(8)
    found = machine.detect(MAX_JOBS="64")
    text = describe_detection(found)
    for part in ("ROCm:", "7.0.0 in", "gfx942", "no nvcc", "2.11.0+rocm7.0", "8 GiB free"):
        assert part in text
    plan = decide(machine.settings(MAX_JOBS="64"), found, frozenset({"rocm"}))
    text = describe_plan(plan)
    for part in ("rocm", plan.reason, "gfx942", "32, 64, 128, 256", "64", "warning:   MAX_JOBS=64"):
        assert part in text


def test_metadata_is_json(machine: FakeMachine) -> None:
    machine.cuda_complete()
    settings = machine.settings(MAX_JOBS="3", CUDA_HOME=str(machine.cuda_home))
    found = machine.detect(MAX_JOBS="3")
    plan = decide(settings, found, frozenset({"cuda"}))
    kept = json.loads(json.dumps(metadata(settings, found, plan)))
    assert kept["settings"] == {"MAX_JOBS": 3, "CUDA_HOME": str(machine.cuda_home)}
    assert kept["plan"]["target"] == "cuda"
    assert kept["plan"]["archs"] == list(plan.archs)
    assert kept["found"]["cuda"]["nvcc"]["version"] == "13.0.88"
    assert kept["found"]["torch"]["cuda"] == "13.0"


def test_the_command_prints_detection_and_plan_as_json() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "build_tools", "--json"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    printed = json.loads(done.stdout)
    assert printed.keys() == {"settings", "found", "plan", "error"}
    assert (done.returncode == 0) == (printed["error"] is None)


def test_the_command_reports_a_malformed_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAX_JOBS", "lots")
    assert command_line.main([]) == 1
    assert "MAX_JOBS='lots' is not understood" in capsys.readouterr().err


def test_the_command_reports_what_cannot_be_built(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BUILD_TARGET", "rocm")
    monkeypatch.setenv("ROCM_PATH", str(machine.root / "empty"))
    assert command_line.main([]) == 1
    printed = capsys.readouterr()
    assert "ROCm:" in printed.out
    assert "no hipcc in ROCM_PATH=" in printed.err


def test_a_plan_without_a_target_has_neither_archs_nor_jobs() -> None:
    assert describe_plan(BuildPlan("none", "because")) == "  target:    none\n  why:       because"
