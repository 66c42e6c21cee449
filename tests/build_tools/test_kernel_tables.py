"""The tables of compiled kernels that are kept: they have every kernel of a preset, and no forward of it spills."""

from pathlib import Path

import csrc_ck.generate
import csrc_cuda.generate
from build_tools.instances import HEAD_DIMS

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


def rows(table: str) -> dict[tuple[str, str], dict[str, str]]:
    """Return the cells of every kernel and architecture by the headers of their columns."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    header: list[str] = []
    for line in (RESULTS / table).read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "kernel":
            header = cells
        elif len(cells) == len(header) and not cells[0].startswith("---"):
            found[cells[0], cells[1]] = dict(zip(header, cells, strict=True))
    return found


def test_ck_has_the_default_preset_for_mi300x_and_one_of_the_head_dims_beside_it() -> None:
    beside = csrc_ck.generate.select(["gfx942"], (96, 192), "default", ("*_bf16_*_dense_*",))
    selections = [*csrc_ck.generate.select(["gfx942"], HEAD_DIMS, "default"), *beside]
    table = rows("ck_kernels.md")
    assert {name for name, arch in table if arch == "gfx942"} == {one.instance.name for one in selections}


def test_no_ck_kernel_spills_in_a_forward() -> None:
    for (name, arch), row in rows("ck_kernels.md").items():
        assert int(row["matrix instructions"]) > 0, name
        if not name.startswith("backward"):
            assert row["VGPR spills"] == row["scratch instructions"] == "0", (name, arch)


def test_cuda_has_the_minimal_preset_for_ampere_and_hopper() -> None:
    selections = csrc_cuda.generate.select(["sm_80", "sm_90a"], (64, 128), "minimal")
    table = rows("cuda_kernels.md")
    assert table.keys() == {(one.instance.name, arch) for one in selections for arch in one.archs}
    for (name, _), row in table.items():
        assert int(row["HMMA"]) + int(row["HGMMA"]) > 0, name
        if not name.startswith("backward"):
            assert row["spill stores B"] == row["spill loads B"] == row["local memory"] == "0", name
