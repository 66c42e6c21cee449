"""Shipped configurations, compiled without a GPU: what they must hold, and no worse than recorded.

The baseline belongs to one Triton: registers and spills drift from version to version.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import triton
from flash_attn.triton_amd import aot
from flash_attn.triton_amd.compile_cases import report_of_case

from flash_attn.architectures import ARCHITECTURES

BASELINE = Path(__file__).parent / "aot_baseline.json"
RECORDED: dict[str, Any] = json.loads(BASELINE.read_text(encoding="utf-8"))
same_triton = pytest.mark.skipif(triton.__version__ != RECORDED["triton"], reason="the baseline is another Triton's")

SMALL = [
    "gfx90a forward bf16 d128 causal",
    "gfx942 forward bf16 d64 full",
    "gfx942 forward bf16 d128 full",
    "gfx942 forward bf16 d128 causal",
    "gfx950 forward bf16 d128 causal",
    "gfx1100 forward bf16 d64 full",
    "gfx1100 forward bf16 d128 full",
    "gfx1100 forward bf16 d128 causal",
    "gfx1200 forward bf16 d128 causal",
    "gfx1201 forward bf16 d64 full",
    "gfx942 backward_dq bf16 d64 causal",
    "sm_90 forward bf16 d64 causal",
    "sm_90 forward fp8 d16 full",
]
NO_HOT_SCRATCH = ("gfx90a", "gfx942", "gfx950", "gfx1200", "gfx1201")


def everything() -> dict[str, aot.Shipped]:
    found = aot.shipped(aot.shipped_architectures(), aot.KERNELS, aot.BLOCK_DIMS, aot.CHECKED_DTYPES, (False, True))
    return {item.name: item for item in found}


CASES = everything()


def compiled(name: str) -> dict[str, Any]:
    item = CASES[name]
    result: dict[str, Any] = aot.as_json(item, report_of_case(item.case, item.config, ARCHITECTURES[item.arch]))
    return result


def check(name: str) -> None:
    result = compiled(name)
    assert not aot.violations(result)
    if name in RECORDED["cases"]:
        assert not aot.regressions(RECORDED["cases"], [result])


@same_triton
@pytest.mark.parametrize("name", SMALL)
def test_a_shipped_configuration_is_no_worse_than_recorded(name: str) -> None:
    assert name in RECORDED["cases"]
    check(name)


@same_triton
@pytest.mark.slow
@pytest.mark.aot_all
@pytest.mark.parametrize("name", sorted(set(CASES) - set(SMALL)))
def test_every_shipped_configuration_compiles_no_worse_than_recorded(name: str) -> None:
    check(name)


@same_triton
@pytest.mark.parametrize("banded", [False, True], ids=["full", "causal"])
def test_mi300x_keeps_its_vector_work_small_at_two_waves(banded: bool) -> None:
    result = compiled(f"gfx942 forward bf16 d128 {'causal' if banded else 'full'}")
    assert (result["spills"], result["hot_scratch"]) == (0, 0)
    assert result["waves_per_simd"] >= 2
    hot = result["loops"][0]
    assert hot["valu_per_matrix_unit"] <= 5.7
    assert set(hot["global_load_bits"]) == {128}


def test_every_shipped_configuration_was_compiled_and_recorded() -> None:
    recorded = {name: case["config"] for name, case in RECORDED["cases"].items()}
    assert recorded == {name: aot.fingerprint(item.config) for name, item in CASES.items()}


def test_the_record_holds_no_scratch_in_hot_loops() -> None:
    names = [
        f"{arch} {kernel} bf16 d{block_d} {kind}"
        for arch in NO_HOT_SCRATCH for kernel in aot.KERNELS for block_d in (64, 128) for kind in ("full", "causal")
    ]  # fmt: skip
    assert {name: RECORDED["cases"][name]["hot_scratch"] for name in names} == dict.fromkeys(names, 0)


def test_the_record_of_rdna3_has_fewer_spills_than_its_peer() -> None:
    for arch in ("gfx1100", "gfx1101"):
        for kind in ("full", "causal"):
            assert RECORDED["cases"][f"{arch} forward bf16 d64 {kind}"]["spills"] == 0
            assert RECORDED["cases"][f"{arch} forward bf16 d128 {kind}"]["spills"] == 0


def test_a_worse_result_and_an_unknown_one_are_found() -> None:
    recorded = {"a": {"registers": 100, "spills": 0, "hot_scratch": 0, "lds": 1024}}
    good = {"name": "a", "registers": 100, "spills": 0, "hot_scratch": 0, "lds": 1024}
    assert aot.regressions(recorded, [good]) == []
    assert aot.regressions(recorded, [good | {"registers": 90}]) == []
    assert aot.regressions(recorded, [good | {"registers": 101}]) == ["a: registers 101, recorded 100"]
    assert aot.regressions(recorded, [good | {"name": "b"}]) == ["b: not in the baseline"]


def test_what_no_configuration_may_do_is_found() -> None:
    fine = {"name": "a", "arch": "gfx942", "bits": 16, "lds": 65536, "waves_per_simd": 2.0, "matrix": 64}
    assert aot.violations(fine) == []
    assert aot.violations(fine | {"lds": 65537}) == ["a: 65537 bytes of LDS, of 65536"]
    assert aot.violations(fine | {"matrix": 0}) == ["a: no matrix instructions"]
    assert aot.violations(fine | {"waves_per_simd": 0.0}) == ["a: no work group fits"]


def test_the_command_prints_records_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    baseline = tmp_path / "baseline.json"
    case = ["--arch", "gfx1201", "--kernel", "forward", "--head-dim", "64", "--dtype", "bf16", "--full"]
    assert aot.main([*case, "--json", "--record", str(baseline)]) == 0
    printed = json.loads(capsys.readouterr().out)
    (result,) = printed["cases"]
    assert printed["triton"] == triton.__version__
    assert result["name"] == "gfx1201 forward bf16 d64 full"
    assert result["matrix"] > 0
    assert all(set(loop["matrix_shapes"]) == {"16x16x16"} for loop in result["loops"])

    assert aot.main([*case, "--check", str(baseline)]) == 0
    content = json.loads(baseline.read_text())
    content["cases"][result["name"]]["registers"] -= 1
    baseline.write_text(json.dumps(content))
    assert aot.main([*case, "--check", str(baseline)]) == 1
    assert f"registers {result['registers']}, recorded {result['registers'] - 1}" in capsys.readouterr().err

    baseline.write_text(json.dumps(content | {"triton": "0.1"}))
    with pytest.raises(SystemExit, match=r"recorded with Triton 0\.1"):
        aot.main([*case, "--check", str(baseline)])
