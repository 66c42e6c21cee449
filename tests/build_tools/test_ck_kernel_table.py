"""The table of compiled CK kernels that is kept: it has every kernel of the default preset for gfx942."""

from pathlib import Path

from csrc_ck.generate import select

TABLE = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "ck_kernels.md"


def rows(arch: str) -> dict[str, dict[str, str]]:
    """Return the cells of every kernel for ``arch`` by the headers of their columns."""
    found: dict[str, dict[str, str]] = {}
    header: list[str] = []
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "kernel":
            header = cells
        elif len(cells) == len(header) and cells[1] == arch:
            found[cells[0]] = dict(zip(header, cells, strict=True))
    return found


def test_the_table_has_every_kernel_of_the_default_preset_and_no_forward_of_it_spills() -> None:
    instances = [selection.instance for selection in select(["gfx942"], (32, 64, 128, 256), "default")]
    table = rows("gfx942")
    assert table.keys() == {instance.name for instance in instances}
    for instance in instances:
        row = table[instance.name]
        assert int(row["matrix instructions"]) > 0
        if instance.phase != "backward":
            assert row["VGPR spills"] == row["scratch instructions"] == "0", instance.name
