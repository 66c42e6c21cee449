import json
import re
from pathlib import Path

import pytest

from build_tools.instances import HEAD_DIMS, PRESETS, dispatch_table, write
from csrc_ck.families import FAMILIES, ForwardTile, family_of
from csrc_ck.generate import main, select
from csrc_ck.instances import LANGUAGE, ForwardInstance

ARCHS = [arch for family in FAMILIES for arch in family.archs]


def names(*archs: str, preset: str = "default", dims: tuple[int, ...] = HEAD_DIMS, only: str = "*") -> list[str]:
    assert preset in PRESETS
    return [selection.instance.name for selection in select(archs, dims, preset, (only,))]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_name_is_one_kernel(preset: str) -> None:
    chosen = names(*ARCHS, preset=preset)
    assert len(set(chosen)) == len(chosen)


def test_a_smaller_preset_is_part_of_a_larger_one() -> None:
    small, middle, large = (set(names("gfx942", "gfx1201", preset=preset)) for preset in PRESETS)
    assert small < middle < large


def test_minimal_serves_both_dtypes_and_layouts_of_each_phase() -> None:
    chosen = names("gfx942", preset="minimal", dims=(128,))
    for phase, layouts in {
        "forward": ("dense", "varlen"),
        "backward": ("dense", "varlen"),
        "split": ("dense", "paged"),
    }.items():
        for dtype in ("fp16", "bf16"):
            for layout in layouts:
                assert f"{phase}_gfx9_{dtype}_d128_{layout}_masked" in chosen
    assert len(chosen) == 12


@pytest.mark.parametrize("arch", ARCHS)
def test_default_serves_every_head_dim_and_the_common_ones_with_features(arch: str) -> None:
    chosen = [selection.instance for selection in select([arch], HEAD_DIMS, "default")]
    for dtype in ("fp16", "bf16"):
        for layout in ("dense", "varlen"):
            alike = [i for i in chosen if i.phase == "forward" and (i.dtype, i.layout) == (dtype, layout) and i.masked]
            largest = [i.head_dim for i in alike if i.takes_smaller_head_dims and i.feature is None]
            assert max(largest) == (128 if arch.startswith("gfx12") else 256)
            assert all(any(head_dim <= dim for dim in largest) for head_dim in range(8, max(largest) + 1, 8))
            for feature in ("softcap", "alibi", "dropout"):
                assert {i.head_dim for i in alike if i.feature == feature} == {64, 128}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("head_dim", [32, 96, 192])
def test_a_head_dim_that_is_asked_for_alone_is_built(head_dim: int, preset: str) -> None:
    for arch in ARCHS:
        if arch.startswith("gfx12") and head_dim > 128:
            assert not names(arch, preset=preset, dims=(head_dim,))
            continue
        chosen = [selection.instance for selection in select([arch], (head_dim,), preset)]  # type: ignore[arg-type]
        assert {instance.head_dim for instance in chosen} == {head_dim}
        assert {"forward"} <= {instance.phase for instance in chosen} <= {"forward", "backward"}


def test_small_head_dims_are_padded_where_the_least_common_one_is_there() -> None:
    assert not [name for name in names("gfx942", dims=(32, 64)) if "_d32_" in name]
    assert [name for name in names("gfx942", dims=(32, 64), preset="full") if "_d32_" in name]
    assert {re.findall(r"_d\d+_", name)[0] for name in names("gfx942", dims=(64, 96, 192))} == {
        "_d64_",
        "_d96_",
        "_d192_",
    }


def test_the_kernel_of_a_head_dim_comes_before_the_larger_one() -> None:
    chosen = names("gfx942", dims=(64, 96, 128, 192, 256), only="forward_*_bf16_d*_dense_masked")
    assert [re.findall(r"_d(\d+)_", name)[0] for name in chosen] == ["64", "96", "128", "192", "256"]


@pytest.mark.parametrize("arch", ["gfx942", "gfx1201"])
def test_a_value_dim_of_its_own_is_padded(arch: str) -> None:
    (selection,) = select([arch], (96,), "default", ("forward_*_bf16_d96_dense_masked*",))
    instance = selection.instance
    assert isinstance(instance, ForwardInstance)
    assert instance.takes_smaller_head_dims
    assert "ForwardFeatures{.masked = true, .padded_head_dim = true}" in instance.source
    assert re.search(r"ForwardTile<\d+, 64, 32, 128, 32, 96, 4,", instance.source)


@pytest.mark.parametrize(
    ("arch", "dtype"), [("gfx90a", None), ("gfx942", "fp8fnuz"), ("gfx950", "fp8"), ("gfx1201", "fp8")]
)
def test_fp8_is_what_the_architecture_multiplies(arch: str, dtype: str | None) -> None:
    chosen = [selection.instance for selection in select([arch], HEAD_DIMS, "default", ("*_fp8*",))]
    assert {instance.dtype for instance in chosen} == ({dtype} if dtype else set())
    if dtype:
        assert {(i.phase, i.head_dim, i.layout, i.masked, i.feature) for i in chosen} == {
            ("forward", head_dim, layout, True, None) for head_dim in (64, 128, 256) for layout in ("dense", "varlen")
        }
    assert not names(arch, preset="minimal", only="*_fp8*")


def test_an_architecture_without_fp8_is_left_out_of_its_kernels() -> None:
    (selection,) = select(["gfx90a", "gfx942:xnack-"], (128,), "default", ("*_fp8fnuz_*_dense_*",))
    assert selection.archs == ("gfx942:xnack-",)
    assert selection.devices == ("gfx942",)
    assert "Forward<Float8, ForwardTile<128, 128, 32, 128, 32, 128, 4, 32, 32, 32>" in selection.instance.source


def test_head_dims_and_patterns_choose() -> None:
    assert all("_d64_" in name for name in names("gfx942", dims=(64,)))
    assert set(names("gfx942", only="split_*_bf16_*")) == {n for n in names("gfx942") if re.match("split_.*_bf16_", n)}
    assert names("gfx942", only="nothing") == []


def test_an_architecture_is_compiled_with_its_family_alone() -> None:
    by_archs = {selection.archs for selection in select(["gfx942", "gfx90a", "gfx1201"], (128,), "minimal")}
    assert by_archs == {("gfx942", "gfx90a"), ("gfx1201",)}
    assert names("gfx1100") == []


def test_features_of_the_target_choose_the_family() -> None:
    family = family_of("gfx942:sramecc+:xnack-")
    assert family is not None
    assert family.name == "gfx9"
    assert family_of("gfx1100") is None


def test_wmma_has_no_backward() -> None:
    assert not [name for name in names("gfx1200", "gfx1201", preset="full") if name.startswith("backward")]


def test_an_asynchronous_tile_loads_whole_keys() -> None:
    with pytest.raises(ValueError, match="QRKSVSAsync loads K by the unroll of P"):
        ForwardTile("QRKSVSAsync", 128, 64, 32, 16, 4, (32, 32, 16))


def test_an_exact_kernel_comes_before_the_padded_one() -> None:
    chosen = [name for name in names("gfx1201", only="forward_*_bf16_d128_dense_masked*") if "softcap" not in name]
    assert chosen[0] == "forward_gfx12_bf16_d128_dense_masked"
    assert "forward_gfx12_bf16_d128_dense_masked_padded" in chosen[1:]


def test_the_table_lists_what_the_library_tells() -> None:
    selections = select(["gfx942:xnack-", "gfx1201"], (64, 128), "default")
    table = dispatch_table(selections, "ck")
    described = json.loads("".join(json.loads(line) for line in re.findall(r'^    (".*")$', table, re.MULTILINE)))
    assert [row["name"] for row in described] == [selection.instance.name for selection in selections]
    assert {arch for row in described for arch in row["archs"]} == {"gfx942", "gfx1201"}
    for row in described:
        assert f'{{"{row["name"]}", "{" ".join(row["archs"])}", {{DataType::' in table
        assert f"&ck::launch_{row['name']}}}" in table
    assert table.count("    {}};") == 3


def test_a_row_has_the_features_of_its_instance() -> None:
    (selection,) = select(["gfx942"], (128,), "default", ("forward_*_fp16_d128_varlen_masked_softcap",))
    row = next(line for line in dispatch_table([selection], "ck").splitlines() if line.startswith('    {"forward'))
    # varlen, paged, masked, softcap, alibi, dropout, deterministic
    assert "{DataType::kFloat16, 128, 128, true, false, true, true, false, false, false}, false, 64," in row


def test_a_source_instantiates_its_tile() -> None:
    (selection,) = select(["gfx90a"], (128,), "minimal", ("forward_*_bf16_d128_dense_masked",))
    instance = selection.instance
    assert isinstance(instance, ForwardInstance)
    for part in (
        "Forward<BFloat16, ForwardTile<128, 64, 32, 128, 32, 128, 4, 32, 32, 16>",
        "ck_tile::BlockFmhaPipelineQRKSVSAsync, false",
        "ForwardFeatures{.masked = true, .padded_head_dim = true}",
        "launch_forward<forward_gfx9_bf16_d128_dense_masked>",
    ):
        assert part in instance.source


def test_writing_again_touches_nothing_and_removes_what_is_stale(tmp_path: Path) -> None:
    first = write(select(["gfx942"], (64, 128), "minimal"), tmp_path, LANGUAGE)
    times = {path: path.stat().st_mtime_ns for path in first}
    assert write(select(["gfx942"], (64, 128), "minimal"), tmp_path, LANGUAGE) == first
    assert {path: path.stat().st_mtime_ns for path in first} == times
    second = write(select(["gfx942"], (128,), "minimal"), tmp_path, LANGUAGE)
    assert sorted(tmp_path.iterdir()) == sorted(second)


def test_the_command_prints_the_estimated_time(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--list", "--arch", "gfx942", "--preset", "minimal", "--only", "*_d128_*"])
    *rows, total = capsys.readouterr().out.splitlines()
    assert len(rows) == 12
    assert sum(float(row.split()[0]) for row in rows) == float(total.split()[0])
