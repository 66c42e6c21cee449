import shutil
import sys
import time
from pathlib import Path

import pytest

from build_tools.errors import BuildError
from build_tools.ninja_file import Edge, Rule, ninja_text, run_ninja

COPY = Rule("copy", [sys.executable, "-c", "import shutil, sys; shutil.copy(*sys.argv[1:])", "$in", "$out"])


@pytest.fixture
def ninja() -> Path:
    found = shutil.which("ninja")
    assert found, "the tests need ninja on PATH"
    return Path(found)


def run(ninja: Path, folder: Path, rules: list[Rule], edges: list[Edge]) -> list[str]:
    folder.mkdir(exist_ok=True)
    (folder / "build.ninja").write_text(ninja_text(rules, edges))
    said: list[str] = []
    run_ninja(ninja, folder, edges, 1, said.append)
    return said


def test_progress_and_a_second_run_that_compiles_nothing(ninja: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a folder: with $signs"
    folder.mkdir()
    (folder / "source").write_text("text")
    edges = [
        Edge("copy", folder / "first", [folder / "source"], 3.0),
        Edge("copy", folder / "second", [folder / "first"], 1.0),
    ]
    said = run(ninja, folder, [COPY], edges)
    assert (folder / "second").read_text() == "text"
    assert said[0] == "compiling 2 of 2 files, 1 at a time: about 4 s"
    assert said[1].startswith("[1/2] first, ")
    assert said[1].endswith(" left")
    assert said[2].startswith("[2/2] second, ")
    started = time.monotonic()
    assert run(ninja, folder, [COPY], edges) == [f"nothing to compile in {folder}"]
    assert time.monotonic() - started < 5


def test_only_what_changed_is_made_again(ninja: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    edges = [Edge("copy", tmp_path / f"{name}.out", [tmp_path / name], 1.0) for name in ("a", "b")]
    run(ninja, tmp_path, [COPY], edges)
    (tmp_path / "b").write_text("changed")
    said = run(ninja, tmp_path, [COPY], edges)
    assert said[0].startswith("compiling 1 of 2 files")
    assert (tmp_path / "b.out").read_text() == "changed"


def test_a_header_in_the_depfile_is_an_input(ninja: Path, tmp_path: Path) -> None:
    for name in ("source", "header"):
        (tmp_path / name).write_text(name)
    script = "import sys; o, i, h = sys.argv[1:]; open(o, 'w').write(open(i).read() + open(h).read()); "
    script += "open(o + '.d', 'w').write(f'{o}: {i} {h}')"
    rule = Rule("join", [sys.executable, "-c", script, "$out", "$in", tmp_path / "header"], depfile=True)
    edges = [Edge("join", tmp_path / "out", [tmp_path / "source"], 1.0)]
    run(ninja, tmp_path, [rule], edges)
    (tmp_path / "header").write_text("new")
    run(ninja, tmp_path, [rule], edges)
    assert (tmp_path / "out").read_text() == "sourcenew"


def test_a_failing_command_shows_its_output(ninja: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "source").touch()
    rule = Rule("fail", [sys.executable, "-c", "print('the compiler says no'); raise SystemExit(1)"])
    with pytest.raises(BuildError, match="ninja failed"):
        run(ninja, tmp_path, [rule], [Edge("fail", tmp_path / "out", [tmp_path / "source"], 1.0)])
    assert "the compiler says no" in capsys.readouterr().out
