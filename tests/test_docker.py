"""The images' Dockerfiles against what the package builds with, and the program that rehearses them."""

import re
from pathlib import Path

import pytest

from build_tools.obstacles import CK_WHEEL
from build_tools.settings import VARIABLES
from docker.rehearse import LEFT_OUT, STAND_INS, Instruction, parse, sent

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ("cpu", "cuda", "rocm")


def _instructions(image: str) -> list[Instruction]:
    return parse((ROOT / "docker" / f"{image}.Dockerfile").read_text(encoding="utf-8"))


def _arguments(image: str) -> dict[str, str]:
    return dict(one.text.partition("=")[::2] for one in _instructions(image) if one.name == "ARG")


def _runtime(image: str) -> dict[str, str]:
    """The instructions of the last stage, by name; the later one counts, as in an image."""
    instructions = _instructions(image)
    last = max(index for index, one in enumerate(instructions) if one.name == "FROM")
    return {one.name: one.text for one in instructions[last:]}


def test_every_image_can_be_rehearsed() -> None:
    assert {path.name.removesuffix(".Dockerfile") for path in (ROOT / "docker").glob("*.Dockerfile")} == set(IMAGES)
    assert set(STAND_INS) == set(LEFT_OUT) == set(IMAGES)


@pytest.mark.parametrize("image", IMAGES)
def test_bases_are_arguments_with_a_pinned_tag(image: str) -> None:
    arguments = _arguments(image)
    bases = [one.text.partition(" AS ")[0] for one in _instructions(image) if one.name == "FROM"]
    for base in bases:
        _, _, tag = arguments[base.removeprefix("${").removesuffix("}")].partition(":")
        assert re.search(r"\d{8}|\d+\.\d+\.\d+", tag), f"{base}: {tag!r} is no release of one day"


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_without_rights_and_checks_itself(image: str) -> None:
    runtime = _runtime(image)
    assert runtime["USER"].isdigit()
    assert runtime["USER"] in (ROOT / "docker/steps.sh").read_text(encoding="utf-8")
    assert runtime["HEALTHCHECK"].endswith('CMD ["python", "-m", "flash_attn", "check", "--quick"]')
    assert runtime["HEALTHCHECK"] == _runtime("cpu")["HEALTHCHECK"]


def test_images_share_one_pytorch() -> None:
    assert len({_arguments(image)["TORCH_VERSION"] for image in IMAGES}) == 1


def test_ck_headers_are_those_that_the_kernels_were_compiled_with() -> None:
    arguments = _arguments("rocm")
    assert arguments["CK_WHEEL"] == CK_WHEEL
    assert arguments["CK_DIR"].startswith("/opt/headers/aiter_meta/")


@pytest.mark.parametrize("image", IMAGES)
def test_arguments_are_the_dockerfiles_own_or_the_builds(image: str) -> None:
    own = {"BASE", "RUNTIME_BASE", "TORCH_VERSION", "TORCH_INDEX", "CK_WHEEL", "CUTLASS_WHEEL"}
    assert set(_arguments(image)) <= own | {variable.name for variable in VARIABLES}
    assert set(STAND_INS[image]) <= set(_arguments(image))


def test_a_build_is_sent_the_sources_and_nothing_else(tmp_path: Path) -> None:
    wanted = [
        "LICENSE",
        "csrc_ck/forward.h",
        "docker/steps.sh",
        "flash_attn/backends/cpu.py",
        "triton_amd/configs/x.json",
    ]
    unwanted = [
        ".git/config",
        "docker/rehearse.py",
        "flash_attn/_build_metadata.json",
        "flash_attn/_ck.so",
        "flash_attn/backends/__pycache__/cpu.pyc",
        "notes.md",
        "tests/test_docker.py",
    ]
    for name in (*wanted, *unwanted):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = sent(tmp_path, (ROOT / ".dockerignore").read_text(encoding="utf-8"))
    assert [path.as_posix() for path in found] == sorted(wanted)


def test_what_a_package_is_built_from_is_sent() -> None:
    names = {path.parts[0] for path in sent(ROOT, (ROOT / ".dockerignore").read_text(encoding="utf-8"))}
    grafted = {
        line.split()[1] for line in (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines() if "graft" in line
    }
    present = {name for name in grafted if (ROOT / name).is_dir()}
    assert present | {"LICENSE", "README.md", "pyproject.toml", "setup.py", "flash_attn", "triton_amd"} <= names


def test_the_last_pattern_decides() -> None:
    here = {path.as_posix() for path in sent(ROOT / "docker", "*\n!*.sh\nsteps.sh\n!steps.s?\n# rehearse.py\n")}
    assert here == {"steps.sh"}


def test_continued_lines_are_one_instruction() -> None:
    text = '# a comment\nFROM a AS b\n\nRUN one \\\n    # inside\n    && two\nCMD ["x"]\n'
    assert parse(text) == [
        Instruction(2, "FROM", "a AS b"),
        Instruction(4, "RUN", "one && two"),
        Instruction(7, "CMD", '["x"]'),
    ]
