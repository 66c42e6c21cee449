"""``python -m flash_attn``: info never raises, check tells right from wrong, bench runs."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from flash_attn import build_metadata, dispatch, environment
from flash_attn.__main__ import main
from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends.base import AttentionInputs, DecodeInputs, ForwardResult
from flash_attn.diagnostics import bench, check, info, support
from flash_attn.feature_cases import FEATURES
from flash_attn.testing import AttentionCase, Bound, DecodeCase

ROOT = Path(__file__).resolve().parents[1]
# Features that --quick runs in float32: bfloat16 does not resolve an error of one percent in the scale.
FEW = tuple(next(f for f in FEATURES if f.any_dtype and f.name == name) for name in ("causal", "decode: cache only"))


@pytest.fixture
def few_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "FEATURES", FEW)


def _fail(*args: Any, **kwargs: Any) -> Any:
    raise OSError("planted")


def _json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["info", "--json"]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def test_info_of_a_sound_installation(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASH_ATTENTION_CHECK", "1")
    report = _json(capsys)
    assert '"error"' not in json.dumps(report)
    assert report["versions"]["torch"] == torch.__version__
    assert report["backends"]["cpu"] == {"available": True, "reasons": []}
    assert set(report["backends"]) == set(environment.BACKEND_NAMES) - {"auto"}
    assert all(backend["available"] == (not backend["reasons"]) for backend in report["backends"].values())
    assert report["environment"] == {"FLASH_ATTENTION_CHECK": "1"}
    assert main(["info"]) == 0
    assert "cpu:\n    available: yes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("section", "target", "name"),
    [
        ("versions", importlib.metadata, "version"),
        ("machine", torch, "get_num_threads"),
        ("devices", torch.cuda, "is_available"),
        ("build", build_metadata, "read_build_metadata"),
        ("foreign_flash_attn", importlib.metadata, "packages_distributions"),
        ("environment", environment, "in_force"),
        ("backend_requested", dispatch, "requested"),
    ],
)
def test_info_shows_the_error_of_a_broken_section(
    section: str, target: Any, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, name, _fail)
    report = _json(capsys)
    assert report[section] == {"error": "OSError: planted"}
    assert report["backends"]["cpu" if section != "devices" else "reference"]["available"] is True
    assert main(["info"]) == 0


def test_info_shows_the_error_of_one_broken_backend(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch.backend("cpu"), "unsupported_reasons", _fail)
    report = _json(capsys)
    assert report["backends"]["cpu"] == {"error": "OSError: planted"}
    assert report["backends"]["reference"]["available"] is True


def test_info_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        name, total_memory, multi_processor_count, major, minor = "Planted", 2**34, 40, 11, 5
        gcnArchName = "gfx1152:xnack-"  # noqa: N815

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Properties())
    monkeypatch.setattr(torch.version, "hip", "7.2")
    (device,) = info.collect()["devices"]
    assert (device["architecture"], device["family"], device["memory_gib"]) == ("gfx1152:xnack-", "RDNA3.5", 16.0)


def test_info_names_a_foreign_flash_attn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flash_attn").mkdir()
    metadata = tmp_path / "flash_attn-9.9.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: flash-attn\nVersion: 9.9\n")
    (metadata / "top_level.txt").write_text("flash_attn\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    foreign = info.collect()["foreign_flash_attn"]
    assert "distribution flash-attn 9.9" in foreign
    assert f"folder {tmp_path / 'flash_attn'}" in foreign


def _command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """``python -m flash_attn`` in an interpreter of its own, on one thread since tests may run side by side."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "flash_attn", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)


def test_check_passes_every_feature_in_a_minute() -> None:
    started = time.perf_counter()
    finished = _command("check", "--quick", "--device", "cpu")
    assert time.perf_counter() - started < 60
    assert finished.returncode == check.PASSED, finished.stdout + finished.stderr
    assert finished.stdout.startswith("backend cpu on cpu")
    assert all(feature.name in finished.stdout for feature in FEATURES)
    assert f"{len(FEATURES)} passed, 0 failed, 0 unsupported" in finished.stdout


@pytest.mark.usefixtures("few_features")
def test_check_covers_three_dtypes_unless_quick(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--backend", "reference"]) == check.PASSED
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("decode")]
    assert {line[3] for line in lines} == {"float32", "float16", "bfloat16"}


def _scaled(forward: Callable[..., ForwardResult]) -> Callable[..., ForwardResult]:
    def wrong(spec: AttentionSpec, inputs: AttentionInputs | DecodeInputs) -> ForwardResult:
        return forward(spec._replace(softmax_scale=spec.softmax_scale * 1.01), inputs)

    return wrong


@pytest.mark.usefixtures("few_features")
@pytest.mark.parametrize(("method", "feature"), [("forward", 0), ("decode", 1)])
def test_check_fails_when_the_scale_is_off_by_one_percent(
    method: str, feature: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = dispatch.backend("cpu")
    monkeypatch.setattr(backend, method, _scaled(getattr(backend, method)))
    assert main(["check", "--quick", "--device", "cpu"]) == check.FAILED
    lines = [line for line in capsys.readouterr().out.splitlines() if "FAILED" in line]
    assert [line.startswith(FEW[feature].name) for line in lines] == [True]


@pytest.mark.usefixtures("few_features")
@pytest.mark.parametrize("part", ["dq", "dk", "dv"])
def test_check_fails_when_a_gradient_is_off_by_one_percent(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = dispatch.backend("cpu")
    right = backend.backward

    def wrong(*args: Any) -> Any:
        grads = right(*args)
        return grads._replace(**{part: getattr(grads, part) * 1.01})

    assert check.run_check("cpu", quick=True) == check.PASSED
    monkeypatch.setattr(backend, "backward", wrong)
    assert check.run_check("cpu", quick=True) == check.FAILED


@pytest.mark.usefixtures("few_features")
def test_check_shows_an_exception_as_a_failure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch.backend("cpu"), "decode", _fail)
    assert main(["check", "--backend", "cpu", "--quick"]) == check.FAILED
    out = capsys.readouterr().out
    assert "error: OSError: planted" in out
    assert "1 passed, 1 failed, 0 unsupported" in out


@pytest.mark.usefixtures("few_features")
def test_check_shows_what_is_unsupported_without_failing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def reasons(spec: AttentionSpec, device: torch.device) -> list[str]:
        return ["no decoding here"] if spec.phase == "decode" else []

    monkeypatch.setattr(dispatch.backend("cpu"), "unsupported_reasons", reasons)
    assert main(["check", "--backend", "cpu", "--quick"]) == check.PASSED
    out = capsys.readouterr().out
    assert "unsupported: no decoding here" in out
    assert "1 passed, 0 failed, 1 unsupported" in out


@pytest.mark.usefixtures("few_features")
def test_check_takes_the_backend_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with dispatch.use_backend("reference"):
        assert main(["check", "--quick"]) == check.PASSED
        assert main(["check", "--quick", "--backend", "cpu"]) == check.PASSED
    checked = [line.split(" on ")[0] for line in capsys.readouterr().out.splitlines() if " on cpu" in line]
    assert checked == ["backend reference", "backend cpu"]


@pytest.mark.usefixtures("few_features")
def test_check_of_an_unavailable_backend_lists_the_reasons(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch.backend("cpu"), "unsupported_reasons", lambda spec, device: ["planted reason"])
    assert main(["check", "--backend", "cpu"]) == check.UNAVAILABLE
    assert "backend 'cpu' is not available:\n  cpu on cpu: planted reason" in capsys.readouterr().out
    assert main(["check", "--device", "cpu"]) == check.UNAVAILABLE
    assert "no backend is available" in capsys.readouterr().out


def test_check_without_a_gpu(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["check", "--device", "cuda"]) == check.UNAVAILABLE
    assert "PyTorch sees no GPU" in capsys.readouterr().out


def test_the_exit_code_reaches_the_shell() -> None:
    assert _command("check", "--backend", "cuda", "--device", "cpu").returncode == check.UNAVAILABLE


def test_bench_writes_a_table_and_json_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    path = tmp_path / "bench.jsonl"
    assert main(["bench", "--quick", "--json", str(path)]) == 0
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert {record["phase"] for record in records} == {"forward", "backward", "decode"}
    assert all(record["ratio"] == record["sdpa_seconds"] / record["ours_seconds"] > 0 for record in records)
    captured = capsys.readouterr()
    assert captured.out.startswith("backend cpu on the CPU")
    assert f"[{len(records)}/{len(records)}]" in captured.err


@pytest.mark.usefixtures("few_features")
def test_progress_is_for_terminals_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--quick", "--backend", "cpu"]) == check.PASSED
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", ["check", "bench"])
@pytest.mark.parametrize(
    "variable", [v.name for v in environment.VARIABLES if v is not environment.TRITON_AMD_FORWARD_CONFIG]
)
def test_a_bad_environment_is_refused_in_one_line(
    command: str, variable: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "bad value")
    with pytest.raises(SystemExit, match="2"):
        main([command])
    assert f"error: {variable} is 'bad value'; accepted are" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_bench_refuses_a_file_without_folder_before_it_times(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", option, "missing/file"]) == 2
    assert f"{option}: got missing/file; accepted" in capsys.readouterr().err


def test_bench_obeys_the_environment(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("FLASH_ATTENTION_BACKEND", "cuda")
    assert main(["bench", "--quick"]) == 2
    assert "'cuda' does not support this request" in capsys.readouterr().err


def test_bench_times_the_same_mathematics() -> None:
    """Ours and PyTorch's must compute the same thing, or the ratio means nothing."""
    for problem in bench._grid(torch.device("cpu"), quick=True):
        ours, theirs = (call() for call in bench._calls(problem, torch.device("cpu")))
        if isinstance(ours, torch.Tensor) and isinstance(theirs, torch.Tensor):
            ours, theirs = (ours,), (theirs.transpose(1, 2),)
        for a, b in zip(ours, theirs, strict=True):  # type: ignore[call-overload]
            # Either side may be off by the roundings of the bound.
            torch.testing.assert_close(a, b, atol=2 * Bound(a.dtype, 0).allowed(b, b), rtol=0)


def test_bench_plot_without_matplotlib_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    assert main(["bench", "--plot", "ratios.png"]) == 2
    assert "pip install 'flash-attn[plot]'" in capsys.readouterr().err


def test_bench_plot_draws_a_png(tmp_path: Path) -> None:
    timing = bench.Timing(1.0, 2.0)
    problem = next(bench._grid(torch.device("cpu"), quick=True))
    bench._plot([bench.Measurement(problem, timing, timing)], "title", tmp_path / "ratios.png")
    assert (tmp_path / "ratios.png").read_bytes().startswith(b"\x89PNG")


def test_support_prints_the_matrix(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["support"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| feature | ck | cuda | triton | cpu | reference |"
    assert len([line for line in lines if line.startswith("|")]) == len(FEATURES) + 2
    assert lines[2].endswith("| yes | yes |")


def test_support_follows_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    def reasons(spec: AttentionSpec, device: torch.device) -> list[str]:
        assert device.type == "cpu"
        return ["planted reason"] if spec.softcap else []

    monkeypatch.setattr(dispatch.backend("cpu"), "unsupported_reasons", reasons)
    lines = support.support_matrix().splitlines()
    assert next(line for line in lines if line.startswith("| softcap |")).endswith("| no | yes |")
    assert "- cpu: planted reason" in lines


def test_features_have_names_of_their_own() -> None:
    names = [feature.name for feature in FEATURES]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("kind", [AttentionCase, DecodeCase])
def test_features_cover_every_option_of_a_case(kind: type[AttentionCase | DecodeCase]) -> None:
    cases = [feature.case for feature in FEATURES if isinstance(feature.case, kind)]
    fixed = {name for name in kind.__dataclass_fields__ if len({getattr(case, name) for case in cases}) == 1}
    always = {"seed"} if kind is AttentionCase else {"seed", "dtype", "capacity", "cache_seqlens", "nheads_k"}
    assert fixed <= always
