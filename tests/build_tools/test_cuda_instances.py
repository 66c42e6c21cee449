import itertools
import json
import re
from pathlib import Path

import pytest

from build_tools.instances import PRESETS, dispatch_table, write
from csrc_cuda.architectures import SHARED_KIB, canonical, devices_of, gencode
from csrc_cuda.families import FAMILIES, SM80, Family
from csrc_cuda.generate import ARCHS, main, select
from csrc_cuda.instances import LANGUAGE, CudaInstance

ROOT = Path(__file__).resolve().parents[2]
DIMS = (32, 64, 128, 256)


def names(*archs: str, preset: str = "default", dims: tuple[int, ...] = DIMS, only: str = "*") -> list[str]:
    assert preset in PRESETS
    return [selection.instance.name for selection in select(archs, dims, preset, (only,))]


@pytest.mark.parametrize(
    ("asked", "compiled", "devices"),
    [
        ("80", "sm_80", ("sm_80", "sm_86", "sm_87", "sm_89")),
        ("sm_86", "sm_86", ("sm_86", "sm_87", "sm_89")),
        ("90", "sm_90a", ("sm_90",)),
        ("90a", "sm_90a", ("sm_90",)),
        ("100", "sm_100", ("sm_100", "sm_103")),
        ("100f", "sm_100f", ("sm_100", "sm_103")),
        ("100a", "sm_100a", ("sm_100",)),
        ("120", "sm_120", ("sm_120", "sm_121")),
    ],
)
def test_devices_of_an_architecture(asked: str, compiled: str, devices: tuple[str, ...]) -> None:
    assert canonical(asked) == compiled
    assert devices_of(compiled) == devices


def test_no_architecture() -> None:
    with pytest.raises(ValueError, match="gfx942 is no NVIDIA architecture"):
        select(["gfx942"], DIMS, "minimal")


def test_machine_code_and_ptx() -> None:
    assert gencode("sm_90a", ptx=False) == "-gencode=arch=compute_90a,code=sm_90a"
    assert gencode("sm_80", ptx=True) == "-gencode=arch=compute_80,code=compute_80"


@pytest.mark.parametrize("preset", PRESETS)
def test_every_name_is_one_kernel(preset: str) -> None:
    chosen = names(*ARCHS, preset=preset)
    assert len(set(chosen)) == len(chosen)


def test_a_smaller_preset_is_part_of_a_larger_one() -> None:
    small, middle, large = (set(names("80", "90", preset=preset)) for preset in PRESETS)
    assert small < middle < large


def test_minimal_serves_both_dtypes_and_layouts_of_each_phase() -> None:
    chosen = names("80", preset="minimal")
    phases = {"forward": ("dense", "varlen"), "backward": ("dense", "varlen"), "split": ("dense", "paged")}
    for phase, layouts in phases.items():
        for dtype, dim, layout in itertools.product(("fp16", "bf16"), (64, 128), layouts):
            assert f"{phase}_sm80_{dtype}_d{dim}_{layout}_masked" in chosen
    assert len(chosen) == 24


@pytest.mark.parametrize("preset", PRESETS)
def test_hopper_has_every_kernel_that_ampere_has(preset: str) -> None:
    """Its own where csrc_cuda/sm90 has it, else that of csrc_cuda/sm80, and never both; and fp8 besides."""
    ampere, hopper = names("80", preset=preset), names("90", preset=preset)
    assert [re.sub("_sm90_", "_sm80_", name) for name in hopper if "_fp8_" not in name] == ampere
    assert any("_sm90_" in name for name in hopper)


@pytest.mark.parametrize("preset", PRESETS)
def test_fp8_is_a_forward_of_hopper_outside_of_the_minimal_preset(preset: str) -> None:
    fp8 = names(*ARCHS, preset=preset, only="*_fp8_*")
    assert all(name.startswith("forward_sm90_fp8_") for name in fp8)
    served = {f"forward_sm90_fp8_d{dim}_{layout}_masked" for dim in (64, 128, 256) for layout in ("dense", "varlen")}
    assert served <= set(fp8) if preset != "minimal" else not fp8


def test_one_object_has_the_code_of_all_architectures_of_its_family() -> None:
    (split,) = select(["80", "100", "sm_100"], (128,), "minimal", ("split_*_bf16_*_paged_*",))
    assert split.archs == ("sm_80", "sm_100")
    assert split.devices == ("sm_80", "sm_86", "sm_87", "sm_89", "sm_100", "sm_103")
    for phase in ("forward", "split"):
        own = select(["80", "90", "90a"], (128,), "minimal", (f"{phase}_*_bf16_*_dense_*",))
        assert {(one.instance.family.name, one.archs) for one in own} == {
            ("sm80", ("sm_80",)),
            ("sm90", ("sm_90a",)),
        }


def test_a_tile_that_is_too_large_for_a_device_does_not_run_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for small in ("sm_86", "sm_120", "sm_121"):
        monkeypatch.setitem(SHARED_KIB, small, 40)
    (chosen,) = select(["80", "120"], (128,), "minimal", ("split_*_bf16_*_dense_*",))
    assert chosen.archs == ("sm_80",)
    assert chosen.devices == ("sm_80", "sm_87", "sm_89")


def test_every_tile_of_sm80_fits_in_the_smallest_device() -> None:
    for phase in SM80.phases.values():
        assert all(tile.shared_kib <= 99 for tile in phase.tiles.values())


def test_a_row_has_the_features_and_devices_of_its_instance() -> None:
    (selection,) = select(["90"], (128,), "default", ("forward_*_fp16_d128_varlen_masked_softcap",))
    table = dispatch_table([selection], LANGUAGE.namespace)
    row = next(line for line in table.splitlines() if line.startswith('    {"forward'))
    # varlen, paged, masked, softcap, alibi, dropout, deterministic
    assert '"sm_90", {DataType::kFloat16, 128, 128, true, false, true, true, false, false, false}, false,' in row
    assert f"&cuda::launch_{selection.instance.name}}}" in row
    described = json.loads("".join(json.loads(line) for line in re.findall(r'^    (".*")$', table, re.MULTILINE)))
    assert [(one["name"], one["archs"]) for one in described] == [(selection.instance.name, ["sm_90"])]


def test_a_source_instantiates_its_tile() -> None:
    (selection,) = select(["80"], (128,), "minimal", ("backward_*_bf16_d128_varlen_masked",))
    instance = selection.instance
    assert isinstance(instance, CudaInstance)
    for part in (
        '#include "sm80/backward.h"',
        f"sm80::Backward<cutlass::bfloat16_t, sm80::BackwardTile<{', '.join(map(str, instance.tile.numbers))}>, 128,",
        "sm80::BackwardFeatures{.varlen = true, .masked = true}",
        f"static_assert({instance.name}::kSharedBytes <= {instance.tile.shared_kib} * 1024);",
        f"sm80::launch_backward<{instance.name}>(params, static_cast<cudaStream_t>(stream));",
    ):
        assert part in instance.source


def test_a_source_of_fp8_has_its_own_header_and_kernel() -> None:
    (selection,) = select(["90"], (128,), "default", ("forward_*_fp8_d128_varlen_masked",))
    for part in (
        '#include "sm90/fp8_forward.h"',
        "sm90::Fp8Forward<cutlass::float_e4m3_t, sm90::ForwardTile<128, 128, 2>, 128,",
        "sm90::ForwardFeatures{.varlen = true, .masked = true}",
        "sm90::launch_forward<forward_sm90_fp8_d128_varlen_masked>(params,",
    ):
        assert part in selection.instance.source
    assert "DataType::kFloat8E4M3, 128, 128, true," in dispatch_table([selection], LANGUAGE.namespace)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name + family.variant)
def test_every_phase_has_its_header(family: Family) -> None:
    for phase in family.phases:
        header = f"{family.variant}_{phase}.h".removeprefix("_")
        assert (ROOT / "csrc_cuda" / family.name / header).is_file()


def test_writing_removes_what_is_stale(tmp_path: Path) -> None:
    write(select(["80"], (64, 128), "minimal"), tmp_path, LANGUAGE)
    second = write(select(["80"], (128,), "minimal"), tmp_path, LANGUAGE)
    assert sorted(tmp_path.iterdir()) == sorted(second)


def test_the_command_prints_the_estimated_time(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--list", "--arch", "sm_90a", "--preset", "minimal", "--only", "*_d128_*"])
    *rows, total = capsys.readouterr().out.splitlines()
    assert len(rows) == 12
    assert abs(sum(float(row.split()[0]) for row in rows) - float(total.split()[0])) <= len(rows) / 2
