"""The table of architectures: facts that other code rests on, and lookup of listed and unlisted names."""

import ast
from pathlib import Path

import pytest

from flash_attn import architectures
from flash_attn.architectures import ARCHITECTURES, KIB, find

AMD = [
    "gfx90a",
    "gfx942",
    "gfx950",
    "gfx1100",
    "gfx1101",
    "gfx1102",
    "gfx1103",
    "gfx1150",
    "gfx1151",
    "gfx1200",
    "gfx1201",
]
NVIDIA = ["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"]
LISTED = AMD + NVIDIA


def test_every_listed_architecture_is_there() -> None:
    assert list(ARCHITECTURES) == LISTED


@pytest.mark.parametrize("name", LISTED)
def test_find_returns_the_row_itself(name: str) -> None:
    assert find(name) is ARCHITECTURES[name]
    assert ARCHITECTURES[name].name == name


@pytest.mark.parametrize(
    ("name", "listed"),
    [("gfx942:sramecc+:xnack-", "gfx942"), (" GFX1100 ", "gfx1100"), ("sm_90a", "sm_90"), ("sm_100f", "sm_100")],
)
def test_find_reads_the_forms_that_torch_and_compilers_use(name: str, listed: str) -> None:
    assert find(name) is ARCHITECTURES[listed]


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("gfx940", "CDNA3"),
        ("gfx1152", "RDNA3.5"),
        ("gfx1153", "RDNA3.5"),
        ("gfx1104", "RDNA3"),
        ("gfx1202", "RDNA4"),
        ("sm_87", "Ampere"),
        ("sm_103", "Blackwell"),
        ("sm_121a", "Blackwell (RTX)"),
    ],
)
def test_an_unlisted_member_has_its_family_and_promises_no_more_than_it(name: str, family: str) -> None:
    found = find(name)
    assert found is not None
    assert found.family == family
    assert found.peaks is None
    assert found.name == name.rstrip("a")
    relatives = [row for row in ARCHITECTURES.values() if row.family == family]
    assert found.registers_per_lane == min(row.registers_per_lane for row in relatives)
    assert found.shared_memory_per_block == min(row.shared_memory_per_block for row in relatives)


@pytest.mark.parametrize("name", ["gfx906", "gfx908", "gfx90c", "gfx1030", "gfx1250", "sm_75", "sm_110", "", "gfx9"])
def test_an_unknown_family_is_not_guessed(name: str) -> None:
    assert find(name) is None


def test_structure_follows_the_vendor() -> None:
    for row in ARCHITECTURES.values():
        cdna = row.family.startswith("CDNA")
        assert row.vendor == ("amd" if row.name.startswith("gfx") else "nvidia")
        assert row.wave_size == (64 if cdna else 32)
        assert row.shared_memory_per_block <= row.shared_memory_per_unit
        assert row.max_registers_per_lane <= row.registers_per_lane
        assert row.matrix_shapes
        if row.peaks is not None:
            assert (row.peaks.fp8_tflops is not None) <= (row.fp8 is not None)


def test_known_sizes() -> None:
    """Figures that ROCm's GPU specifications and the CUDA guide print in another form."""
    files = {"gfx942": 512, "gfx950": 512, "gfx1100": 768, "gfx1102": 512, "gfx1201": 768, "sm_80": 256, "sm_90": 256}
    assert {name: ARCHITECTURES[name].register_file_bytes // KIB for name in files} == files
    blocks = {"gfx942": 64, "gfx950": 160, "gfx1151": 64, "sm_80": 163, "sm_89": 99, "sm_90": 227, "sm_120": 99}
    assert {name: ARCHITECTURES[name].shared_memory_per_block // KIB for name in blocks} == blocks
    assert {name: ARCHITECTURES[name].fp8 for name in ("gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1201")} == {
        "gfx90a": None,
        "gfx942": "fnuz",
        "gfx950": "ocp",
        "gfx1100": None,
        "gfx1201": "ocp",
    }


def test_it_imports_nothing_of_ours() -> None:
    tree = ast.parse(Path(architectures.__file__).read_text(encoding="utf-8"))
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert set(modules) <= {"__future__", "dataclasses", "typing"}
