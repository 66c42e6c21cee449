"""The walls of the house: who may import whom, who reads the environment, how long a file may be."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "flash_attn"
MAX_LINES = 600
LOWEST = ("attention_spec", "architectures", "environment")
ABOVE_BACKENDS = ("autograd", "custom_ops", "dispatch", "environment", "flash_attn_interface", "validation")


def _imports(path: Path) -> set[str]:
    """Absolute names of everything that a file imports, also inside of functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _sources(folder: str) -> list[Path]:
    return [path for path in sorted((ROOT / folder).rglob("*.py")) if "__pycache__" not in path.parts]


@pytest.mark.parametrize("name", LOWEST)
def test_the_lowest_rooms_import_nothing_of_ours(name: str) -> None:
    assert not {imported for imported in _imports(PACKAGE / f"{name}.py") if imported.startswith("flash_attn")}


@pytest.mark.parametrize("path", _sources("flash_attn/backends"), ids=lambda path: path.stem)
def test_backends_know_nothing_above_them(path: Path) -> None:
    above = tuple(f"flash_attn.{name}" for name in ABOVE_BACKENDS)
    assert not {imported for imported in _imports(path) if imported.startswith(above)}


def test_one_file_knows_the_simulators() -> None:
    simulators = ("amdgpu_sim", "ptx_sim", "simulated_device")
    knowing = {
        path.name for path in _sources("flash_attn") if any(name.startswith(simulators) for name in _imports(path))
    }
    assert knowing == {"simulation.py"}


@pytest.mark.parametrize("path", _sources("triton_amd"), ids=lambda path: path.stem)
def test_the_triton_kernels_know_the_architectures_alone(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    outside = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level > 1}
    assert outside <= {"architectures"}
    assert not {name for name in _imports(path) if name.startswith(("flash_attn", "amdgpu_sim"))}


@pytest.mark.parametrize(("folder", "reader"), [("flash_attn", "environment.py"), ("build_tools", "settings.py")])
def test_one_file_reads_the_environment(folder: str, reader: str) -> None:
    reading = {
        path.name
        for path in _sources(folder)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
    }
    assert reading == {reader}


@pytest.mark.parametrize("path", [*_sources("amdgpu_sim"), *_sources("ptx_sim")], ids=lambda path: path.stem)
def test_the_simulators_know_nothing_of_flash_attn(path: Path) -> None:
    assert not {name for name in _imports(path) if name.split(".")[0] in ("flash_attn", "build_tools", "tests")}


@pytest.mark.parametrize("path", _sources("simulated_device"), ids=lambda path: path.stem)
def test_the_simulated_device_knows_no_simulator(path: Path) -> None:
    others = ("amdgpu_sim", "ptx_sim", "flash_attn", "build_tools", "tests")
    assert not {name for name in _imports(path) if name.split(".")[0] in others}


@pytest.mark.parametrize("path", _sources("build_tools"), ids=lambda path: path.stem)
def test_build_tools_need_neither_torch_nor_the_package(path: Path) -> None:
    assert not {name for name in _imports(path) if name.split(".")[0] in ("torch", "flash_attn", "numpy")}


def test_no_file_is_too_long() -> None:
    simulators = ("amdgpu_sim", "ptx_sim", "simulated_device")
    folders = (*simulators, "flash_attn", "triton_amd", "build_tools", "benchmarks", "tests")
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for name in folders for path in _sources(name)}
    assert not {path.name: lines for path, lines in lengths.items() if lines > MAX_LINES}
