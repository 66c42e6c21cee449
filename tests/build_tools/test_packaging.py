"""Build the distribution as pip does, install it into a fresh virtual environment, and import it there."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.packaging

ROOT = Path(__file__).resolve().parents[2]
BUILD_INPUTS = (
    "LICENSE",
    "MANIFEST.in",
    "README.md",
    "build_tools",
    "csrc_ck",
    "csrc_common",
    "csrc_cuda",
    "flash_attn",
    "flash_attn_2_cuda.py",
    "pyproject.toml",
    "setup.py",
    "tests",
    "triton_amd",
)

# Prints what an installed package answers; run with -I from a folder outside the source tree.
ASK = """
import importlib.metadata, importlib.util, json
import flash_attn
from flash_attn.build_metadata import read_build_metadata
triton_amd = importlib.util.find_spec("flash_attn.triton_amd")
print(json.dumps({
    "package": flash_attn.__file__,
    "version": flash_attn.__version__,
    "distribution": importlib.metadata.version("flash-attn"),
    "triton_amd": triton_amd and triton_amd.origin,
    "build": read_build_metadata(),
}))
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a copy of what a build reads, with a tuning file, since building writes into the source tree."""
    copy = tmp_path / "source"
    copy.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "_build_metadata.json")
    for name in BUILD_INPUTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
        elif (ROOT / name).is_file():
            shutil.copy(ROOT / name, copy / name)
    (copy / "triton_amd" / "configs").mkdir(exist_ok=True)
    (copy / "triton_amd" / "configs" / "packaging_test.json").write_text("{}")
    return copy


def run(*command: str | Path, cwd: Path, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command with no build variables but those given."""
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        check=check,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": os.environ["PATH"], "HOME": str(cwd), **env},
    )


def build(source: Path, kind: str, **env: str) -> Path:
    """Call the build backend's hook for a pure wheel, editable or sdist, as pip does without isolation."""
    out = source.parent / kind
    out.mkdir()
    hook = f"from setuptools import build_meta; build_meta.build_{kind}({str(out)!r})"
    done = run(sys.executable, "-c", hook, cwd=source, check=False, FLASH_ATTENTION_SKIP_CUDA_BUILD="1", **env)
    assert done.returncode == 0, done.stdout
    (built,) = out.iterdir()
    return built


def install(wheel: Path, folder: Path) -> Path:
    """Install a wheel alone into a fresh environment that sees this one's other packages; return its Python.

    The links leave out any flash-attn of this environment.
    """
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    others = folder / "others"
    others.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(("flash_attn", "__editable__")) and entry.suffix != ".pth":
            (others / entry.name).symlink_to(entry)
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    (next(folder.glob("lib/python*")) / "site-packages" / "others.pth").write_text(str(others))
    return python


def ask(python: Path, cwd: Path) -> dict[str, Any]:
    done = run(python, "-I", "-c", ASK, cwd=cwd, check=False)
    assert done.returncode == 0, done.stdout
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_wheel(source: Path, tmp_path: Path) -> None:
    wheel = build(source, "wheel")
    assert wheel.name.endswith("-py3-none-any.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "flash_attn/__init__.py",
        "flash_attn/_build_metadata.json",
        "flash_attn/build_metadata.py",
        "flash_attn/py.typed",
        "flash_attn/triton_amd/__init__.py",
        "flash_attn/triton_amd/configs/packaging_test.json",
    } <= names
    assert {name.split("/")[0] for name in names} - {"flash_attn_2_cuda.py"} == {
        "flash_attn",
        wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info",
    }
    assert ("flash_attn_2_cuda.py" in names) == (ROOT / "flash_attn_2_cuda.py").is_file()
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "flash_attn").rglob("*.py")}
    assert modules <= names
    assert not (source / "flash_attn" / "_build_metadata.json").exists()

    answer = ask(install(wheel, tmp_path / "env"), tmp_path)
    assert answer["version"] == answer["distribution"]
    assert Path(answer["package"]).is_relative_to(tmp_path / "env")
    assert Path(answer["triton_amd"]).is_relative_to(tmp_path / "env")
    assert answer["build"]["version"] == answer["version"]
    assert answer["build"]["editable"] is False
    assert answer["build"]["plan"]["target"] == "none"


def test_editable(source: Path, tmp_path: Path) -> None:
    answer = ask(install(build(source, "editable"), tmp_path / "env"), tmp_path)
    assert answer["version"] == answer["distribution"]
    assert answer["package"] == str(source / "flash_attn" / "__init__.py")
    assert answer["triton_amd"] == str(source / "triton_amd" / "__init__.py")
    assert answer["build"]["editable"] is True


def test_a_wheel_from_the_sdist_equals_one_from_the_tree(source: Path, tmp_path: Path) -> None:
    (source / "csrc_ck").mkdir(exist_ok=True)
    (source / "csrc_ck" / "packaging_test.hip").touch()
    sdist = build(source, "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert (unpacked / "csrc_ck" / "packaging_test.hip").is_file()
    assert not (unpacked / "tests").exists()
    from_sdist = zipfile.ZipFile(build(unpacked, "wheel")).namelist()
    assert sorted(from_sdist) == sorted(zipfile.ZipFile(build(source, "wheel")).namelist())


def test_a_module_deleted_since_the_last_build_is_not_shipped(source: Path) -> None:
    (source / "flash_attn" / "short_lived.py").touch()
    first = build(source, "wheel")
    assert "flash_attn/short_lived.py" in zipfile.ZipFile(first).namelist()
    shutil.rmtree(first.parent)
    (source / "flash_attn" / "short_lived.py").unlink()
    assert "flash_attn/short_lived.py" not in zipfile.ZipFile(build(source, "wheel")).namelist()


def test_a_local_version_is_the_same_in_metadata_and_package(source: Path) -> None:
    wheel = build(source, "wheel", FLASH_ATTN_LOCAL_VERSION="site7")
    archive = zipfile.ZipFile(wheel)
    version = wheel.name.split("-")[1]
    assert version.endswith(".site7")
    assert f'__version__ = "{version}"' in archive.read("flash_attn/__init__.py").decode()
    assert json.loads(archive.read("flash_attn/_build_metadata.json"))["version"] == version


@pytest.mark.parametrize(
    ("kind", "variable", "value", "message"),
    [
        ("wheel", "MAX_JOBS", "lots", "error: MAX_JOBS='lots' is not understood"),
        (
            "wheel",
            "FLASH_ATTENTION_FORCE_BUILD",
            "1",
            "error: FLASH_ATTENTION_FORCE_BUILD asks for native kernels",
        ),
        ("editable", "BUILD_TARGET", "rocm", "error: BUILD_TARGET=rocm asks for native kernels"),
        ("editable", "FLASH_ATTN_LOCAL_VERSION", "site7", "cannot apply to an editable install"),
    ],
)
def test_a_failing_build_says_why(source: Path, kind: str, variable: str, value: str, message: str) -> None:
    hook = f"from setuptools import build_meta; build_meta.build_{kind}('.')"
    done = run(sys.executable, "-c", hook, cwd=source, check=False, **{variable: value, "ROCM_PATH": "/nonexistent"})
    assert done.returncode != 0
    assert message in done.stdout


def test_the_import_paths_of_flash_attn_3_are_a_distribution_of_their_own(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "companion" / "source"
    shutil.copytree(ROOT / "flash_attn_3_distribution", copy, ignore=shutil.ignore_patterns("build", "*.egg-info"))
    companion = build(copy, "wheel")
    names = set(zipfile.ZipFile(companion).namelist())
    modules = {name for name in names if ".dist-info/" not in name}
    assert modules == {"flash_attn_interface.py", "flash_attn_3/__init__.py", "flash_attn_3/flash_attn_interface.py"}
    main = build(source, "wheel")
    assert not modules & set(zipfile.ZipFile(main).namelist())
    python = install(main, tmp_path / "env")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", companion, cwd=tmp_path)
    code = (
        "import importlib.metadata; from flash_attn_3.flash_attn_interface import flash_attn_with_kvcache as f; "
        "from flash_attn_interface import flash_attn_combine; "
        "print(f.__module__, importlib.metadata.version('flash_attn_3'))"
    )
    printed = run(python, "-I", "-c", code, cwd=tmp_path).stdout
    assert printed.split() == ["flash_attn.flash_attn_3_interface", "3.0.0+mb0.1.0"]
