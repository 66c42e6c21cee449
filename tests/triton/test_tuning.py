"""Configurations as data: every class has a row, a wrong row or override says what is wrong, the fastest is kept."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from flash_attn.triton_amd.autotune import Autotuner
from flash_attn.triton_amd.candidates import candidates, reason_against
from flash_attn.triton_amd.config_rows import CONFIGS, Row, read_rows, rows_of, shipped_architectures, write_rows
from flash_attn.triton_amd.kernel_config import (
    BLOCK_DIMS,
    KERNELS,
    BackwardTile,
    ForwardConfig,
    KernelConfig,
    ProblemClass,
)
from flash_attn.triton_amd.launch import Launch
from flash_attn.triton_amd.problem import Problem
from flash_attn.triton_amd.tuning import backward_config, forward_config, parse_override, relative_with_rows
from triton.runtime.errors import OutOfResources

from flash_attn.architectures import ARCHITECTURES

ARCHS = (
    "gfx1100", "gfx1101", "gfx1151", "gfx1200", "gfx1201", "gfx90a", "gfx942", "gfx950",
    "sm_100", "sm_80", "sm_89", "sm_90",
)  # fmt: skip
ROW = {
    "kernel": "forward",
    "bits": 16,
    "block_d": 64,
    "config": {"block_m": 128, "block_n": 64, "num_warps": 4, "num_stages": 1},
    "provenance": {"tool": "a test", "triton": "3.9.0", "figures": {}},
}


def problem(head_dim: int = 64, dtype: torch.dtype = torch.bfloat16, head_dim_v: int | None = None) -> Problem:
    q, k = (torch.empty(1, 256, 2, head_dim, dtype=dtype, device="meta") for _ in range(2))
    v = torch.empty(1, 256, 2, head_dim_v or head_dim, dtype=dtype, device="meta")
    return Problem(q, k, v, 256, 256, head_dim**-0.5, window_right=0)


def file_with(folder: Path, *rows: Any, name: str = "gfx942", **content: Any) -> Path:
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"architecture": name, "rows": list(rows)} | content))
    return path


def test_the_architectures_that_are_promised_have_rows() -> None:
    assert shipped_architectures() == ARCHS


@pytest.mark.parametrize("arch", ARCHS)
def test_every_class_has_a_row_with_provenance(arch: str) -> None:
    rows = rows_of(arch)
    served = {group for row in rows for group in row.classes}
    expected = {
        ProblemClass(kernel, bits, block_d, banded)
        for kernel in KERNELS for bits in (16, 32) for block_d in BLOCK_DIMS for banded in (False, True)
    }  # fmt: skip
    assert served >= expected
    assert all(row.provenance["tool"] and row.provenance["triton"] and row.provenance["figures"] for row in rows)


@pytest.mark.parametrize("arch", ARCHS)
def test_shipped_files_are_as_the_writer_would_write_them(arch: str, tmp_path: Path) -> None:
    written = tmp_path / f"{arch}.json"
    write_rows(written, rows_of(arch))
    assert written.read_text() == (CONFIGS / f"{arch}.json").read_text()


@pytest.mark.parametrize("head_dim", [1, 16, 40, 64, 80, 128, 192, 256, 512])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float8_e4m3fn])
def test_a_configuration_is_found_for_every_head_dim_and_dtype(head_dim: int, dtype: torch.dtype) -> None:
    for arch in (*ARCHS, "gfx1102", "sm_120", "gfx9999", "something"):
        assert isinstance(forward_config(problem(head_dim, dtype), arch), ForwardConfig)
        assert isinstance(backward_config(problem(head_dim, dtype), arch).dkdv, BackwardTile)


def test_the_larger_head_dim_decides() -> None:
    wide = forward_config(problem(512), "gfx942")
    assert forward_config(problem(64, head_dim_v=512), "gfx942") == wide != forward_config(problem(64), "gfx942")


@pytest.mark.parametrize(("head_dim", "head_dim_v", "like"), [(64, 64, 128), (64, 512, 512), (512, 512, 512)])
def test_queries_for_the_values_make_a_score_deeper(head_dim: int, head_dim_v: int, like: int) -> None:
    plain = problem(head_dim, head_dim_v=head_dim_v)
    latent = dataclasses.replace(plain, qv=plain.v)
    assert forward_config(latent, "gfx942") == forward_config(problem(like), "gfx942")


def test_head_dims_beyond_512_are_refused() -> None:
    with pytest.raises(ValueError, match="head dims up to 512"):
        forward_config(problem(520), "gfx942")


@pytest.mark.parametrize(
    ("arch", "relative"),
    [
        ("gfx942", "gfx942"),
        ("gfx942:sramecc+:xnack-", "gfx942"),
        ("gfx1102", "gfx1100"),
        ("gfx1150", "gfx1151"),
        ("gfx1152", "gfx1151"),
        ("sm_90a", "sm_90"),
        ("sm_86", "sm_89"),
        ("sm_120", "sm_89"),
        ("gfx1030", "gfx1200"),
        ("sm_75", "sm_89"),
    ],
)
def test_relatives_lend_their_rows(arch: str, relative: str) -> None:
    assert relative_with_rows(arch) == relative


def test_the_architecture_fills_in_what_it_decides() -> None:
    on = {arch: forward_config(problem(), arch) for arch in ("gfx942", "gfx950", "gfx1201", "sm_90", "gfx90a")}
    assert {arch: config.fp8 for arch, config in on.items()} == {
        "gfx942": "fnuz", "gfx950": "ocp", "gfx1201": "ocp", "sm_90": "ocp", "gfx90a": None
    }  # fmt: skip
    assert [arch for arch, config in on.items() if config.round_by_add] == ["gfx942", "gfx1201", "gfx90a"]


def test_an_override_takes_upstreams_keys_and_ours() -> None:
    text = '{"BLOCK_M": 32, "BLOCK_N": 16, "waves_per_eu": 1, "PRE_LOAD_V": false, "num_stages": 1, "num_warps": 8}'
    config = forward_config(problem(), "gfx942", text)
    assert (config.block_m, config.block_n, config.waves_per_eu, config.num_warps) == (32, 16, 1, 8)
    assert parse_override('{"kpack": 2}').kpack == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "no object"),
        ('{"BLOCK_K": 1}', "unknown key 'BLOCK_K'; accepted are block_m, block_n"),
        ('{"BLOCK_M": 48}', "block_m is 48; accepted: a power of two"),
        ('{"BLOCK_N": 8}', "block_n is 8"),
        ('{"BLOCK_N": 32, "block_n": 32}', "BLOCK_N and block_n are the same key"),
        ('{"num_warps": true}', "num_warps is True"),
        ('{"num_warps": "4"}', "num_warps is '4'"),
        ('{"PRE_LOAD_V": 1}', "PRE_LOAD_V must be true or false"),
        ('{"fp8": "ocp"}', "unknown key 'fp8'"),
    ],
)
def test_a_wrong_override_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="FLASH_ATTENTION_FWD_TRITON_AMD_CONFIG_JSON: ") as error:
        parse_override(text)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": "sideways"}, "row 0: kernel is 'sideways'; accepted are forward"),
        ({"bits": 12}, "row 0: bits is 12"),
        ({"block_d": 100}, "row 0: block_d is 100"),
        ({"banded": 1}, "row 0: banded is 1"),
        ({"speed": "fast"}, "row 0: unknown key 'speed'"),
        ({"provenance": {"tool": "x"}}, "row 0: provenance must be an object"),
        ({"config": {"block_m": 100}}, "row 0, config: block_m is 100"),
        ({"config": {"num_wraps": 4}}, "row 0, config: unknown key 'num_wraps'"),
        ({"config": [4]}, "row 0, config: .* is no object"),
    ],
)
def test_a_wrong_row_names_the_file_the_row_and_the_key(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"gfx942.json, {message}"):
        read_rows(file_with(tmp_path, ROW | change))


def test_a_wrong_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "gfx942.json").write_text("{")
    with pytest.raises(ValueError, match=r"gfx942\.json: not JSON"):
        read_rows(tmp_path / "gfx942.json")
    with pytest.raises(ValueError, match="architecture must be 'gfx942'"):
        read_rows(file_with(tmp_path, ROW, architecture="gfx950"))
    with pytest.raises(ValueError, match="row 1: serves the same class as row 0"):
        read_rows(file_with(tmp_path, ROW, ROW | {"banded": True}))
    incomplete = {key: value for key, value in ROW.items() if key != "config"}
    with pytest.raises(ValueError, match="row 0: key 'config' is missing"):
        read_rows(file_with(tmp_path, incomplete))


def test_a_written_row_replaces_its_classes_alone(tmp_path: Path) -> None:
    path = file_with(tmp_path, ROW)
    new = ForwardConfig(block_m=32, block_n=32, waves_per_eu=3)
    write_rows(path, [Row("forward", 16, 64, True, new, ROW["provenance"])])
    found = {group.banded: row.config for row in read_rows(path) for group in row.classes}
    assert found == {False: ForwardConfig(block_m=128, block_n=64), True: new}


def test_options_leave_out_what_the_installed_triton_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ForwardConfig(kpack=2, llvm_fn_attrs="a=b", num_xcds=8)
    base = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True, "kpack": 2}
    monkeypatch.setattr("flash_attn.triton_amd.kernel_config._known_options", lambda: {"kpack"})
    assert config.options() == base
    monkeypatch.setattr("flash_attn.triton_amd.kernel_config._known_options", lambda: {"kpack", "llvm_fn_attrs"})
    assert config.options() == base | {"llvm_fn_attrs": "a=b"}


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_candidates_fit_into_the_shared_memory(arch: str, kernel: str) -> None:
    for bits in (16, 32):
        for block_d in BLOCK_DIMS:
            found = candidates(ProblemClass(kernel, bits, block_d, True), ARCHITECTURES[arch])
            assert found
            assert len(set(found)) == len(found)


def test_candidates_are_left_out_for_a_reason() -> None:
    group = ProblemClass("forward", 16, 128, True)
    gfx942 = ARCHITECTURES["gfx942"]
    good = ForwardConfig(block_m=128, block_n=64, waves_per_eu=2)
    assert reason_against(good, group, gfx942) is None
    reasons = {
        "shared memory": dataclasses.replace(good, block_n=512),
        "registers, of 256": dataclasses.replace(good, block_m=256),
        "a wave works on 16 at least": dataclasses.replace(good, block_m=32),
    }
    for words, config in reasons.items():
        assert words in str(reason_against(config, group, gfx942))
    fp32 = ProblemClass("forward", 32, 128, True)
    assert "unrolled" in str(reason_against(good, fp32, ARCHITECTURES["gfx1201"]))


def planted_timer(best: tuple[int, int]) -> Any:
    """A timer that likes one tile, and cannot run 64-row tiles."""

    def timer(launch: Launch) -> float:
        tile = launch.arguments["BLOCK_M"], launch.arguments["BLOCK_N"]
        if tile[0] == 64:
            raise OutOfResources(100000, 65536, "shared memory")
        variant = 0.5 if "llvm_fn_attrs" in launch.options else 1.0
        return variant * (1.0 if tile == best else 2.0)

    return timer


def test_the_autotuner_keeps_the_fastest_and_times_a_class_once(tmp_path: Path) -> None:
    lines: list[str] = []
    tuner = Autotuner(ARCHITECTURES["gfx942"], planted_timer((32, 16)), lines.append)
    config = tuner.forward_config(problem())
    assert (config.block_m, config.block_n, config.fp8) == (32, 16, "fnuz")
    assert config.llvm_fn_attrs
    count = len(lines)
    assert lines[-1].endswith("ms\n")
    assert "best" in lines[0]
    assert tuner.forward_config(problem()) == config
    assert len(lines) == count

    tuner.write(tmp_path)
    (row,) = read_rows(tmp_path / "gfx942.json")
    assert row.classes == (ProblemClass("forward", 16, 64, True),)
    assert isinstance(row.config, KernelConfig)
    assert (row.config.block_m, row.config.llvm_fn_attrs) == (32, config.llvm_fn_attrs)
    assert row.provenance["figures"] == {"milliseconds": 0.5, "shipped_milliseconds": 2.0}


def test_the_autotuner_says_when_nothing_runs() -> None:
    def timer(launch: Launch) -> float:
        raise OutOfResources(100000, 65536, "shared memory")

    tuner = Autotuner(ARCHITECTURES["gfx942"], timer, lambda line: None)
    with pytest.raises(RuntimeError, match=r"configurations for .* runs on gfx942"):
        tuner.forward_config(problem())


def test_the_autotuner_times_both_kernels_of_the_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Launch, "run", lambda self: None)
    kernels: set[str] = set()

    def timer(launch: Launch) -> float:
        kernels.add(launch.kernel.fn.__name__)
        return float(launch.arguments["BLOCK_M"])

    tuner = Autotuner(ARCHITECTURES["gfx942"], timer, lambda line: None)
    asked = problem()
    out = torch.empty_like(asked.q)
    lse = torch.empty(1, 2, 256, device="meta")
    config = tuner.backward_config(asked, out, lse, out, None)
    assert kernels == {"attn_bwd_dkdv_kernel", "attn_bwd_dq_kernel"}
    assert (config.dkdv.block_m, config.dq.block_m) == (16, 16)
    assert {group.kernel for group in tuner.winners} == {"backward_dkdv", "backward_dq"}
