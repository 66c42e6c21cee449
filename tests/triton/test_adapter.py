"""The triton backend's answers and switches; what computes is tested in the interpreter and on the simulator."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import amdgpu_sim
import ptx_sim
from flash_attn import UnsupportedError, dispatch, environment, flash_attn_func
from flash_attn.attention_spec import FP8_DTYPES, AttentionSpec
from flash_attn.backends import gpu, simulation, triton_runtime
from flash_attn.backends.triton import TritonBackend
from flash_attn.diagnostics import check, info, support
from flash_attn.feature_cases import FEATURES

ROOT = Path(__file__).resolve().parents[2]
SPEC = AttentionSpec(torch.bfloat16, 4, 2, 64, 64, 0.125)
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
Q = torch.randn(1, 4, 2, 8)


def _python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"dtype": torch.float64},
            "dtype float64 is not one of float16, bfloat16, float32, float8_e4m3fn, float8_e4m3fnuz, float8_e5m2",
        ),
        ({"head_dim": 513}, "head dims beyond 512"),
        ({"head_dim_v": 600}, "head dims beyond 512"),
        ({"kv_layout": "paged", "page_size": 16, "needs_backward": True}, "no backward of paged keys and values"),
        ({"has_qv": True, "needs_backward": True}, "no backward and no probabilities with qv"),
        ({"has_qv": True, "return_attn_probs": True}, "no backward and no probabilities with qv"),
        ({"has_cache_batch_idx": True, "needs_backward": True}, "no backward through cache_batch_idx"),
    ],
)
def test_features_it_does_not_have(changes: dict[str, object], reason: str) -> None:
    assert TritonBackend().unsupported_reasons(SPEC._replace(**changes), GPU) == [reason]  # type: ignore[arg-type]
    assert TritonBackend().unsupported_reasons(SPEC, GPU) == []


def test_float64_is_refused_with_what_is_accepted() -> None:
    (reason,) = TritonBackend().unsupported_reasons(SPEC._replace(dtype=torch.float64), GPU)
    assert reason.startswith("dtype float64 is not one of float16, bfloat16, float32, float8_e4m3fn")


def test_cpu_tensors_need_a_switch() -> None:
    with dispatch.use_backend("triton"), pytest.raises(UnsupportedError, match="TRITON_INTERPRET=1"):
        flash_attn_func(Q, Q, Q)


def test_a_machine_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_runtime, "find_spec", lambda name: None)
    triton_runtime.installation_reasons.cache_clear()
    try:
        (reason,) = TritonBackend("gfx942").machine_reasons(CPU)
    finally:
        triton_runtime.installation_reasons.cache_clear()
    assert reason == "triton is not installed (pip install 'triton>=3.6,<3.10')"


@pytest.mark.parametrize(("version", "accepted"), [("3.5.1", False), ("3.6.0", True), ("3.10.0", False)])
def test_versions_of_triton(version: str, accepted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import triton

    monkeypatch.setattr(triton, "__version__", version)
    triton_runtime.installation_reasons.cache_clear()
    try:
        reasons = triton_runtime.installation_reasons()
    finally:
        triton_runtime.installation_reasons.cache_clear()
    assert reasons == (() if accepted else (f"triton {version} is installed; accepted is >=3.6,<3.10",))


@pytest.mark.parametrize(("arch", "reasons"), [("gfx942:sramecc+", []), ("sm_90", []), ("gfx906", ["gfx906"])])
def test_gpus_by_architecture(arch: str, reasons: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("flash_attn.backends.triton.architecture_name", lambda device: arch)
    found = TritonBackend().machine_reasons(GPU)
    assert [name for name in reasons if any(name in reason for reason in found)] == reasons
    assert len(found) == len(reasons)


@pytest.mark.parametrize(
    ("arch", "refused"),
    [
        ("gfx90a", []),
        ("gfx1100", []),
        ("sm_80", ["float8_e4m3fn", "float8_e4m3fnuz"]),
        ("sm_86", ["float8_e4m3fn", "float8_e4m3fnuz"]),
        ("sm_89", ["float8_e4m3fnuz"]),
        ("sm_90", ["float8_e4m3fnuz"]),
    ],
)
def test_fp8_that_triton_does_not_convert(arch: str, refused: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flash_attn.backends.triton.architecture_name", lambda device: arch)
    spec = AttentionSpec(torch.bfloat16, 2, 2, 64, 64, 0.125)
    found = []
    for dtype in FP8_DTYPES:
        cache = TritonBackend().build_reasons(spec._replace(kv_dtype=dtype), GPU)
        assert TritonBackend().build_reasons(spec._replace(dtype=dtype), GPU) == cache
        found += cache
    assert sorted(found) == [f"Triton does not convert {name} on {arch}" for name in refused]
    assert TritonBackend().build_reasons(spec, GPU) == []


def test_architecture_names(monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        major, minor = 9, 0
        gcnArchName = "gfx1100"  # noqa: N815

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties())
    monkeypatch.setattr(torch.version, "hip", None)
    assert gpu.architecture_name(GPU) == "sm_90"
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert gpu.architecture_name(GPU) == "gfx1100"


def test_every_simulated_target_is_accepted() -> None:
    assert set(environment.SIMULATED_TARGETS) - set(ptx_sim.TARGETS) == set(amdgpu_sim.TARGETS)


def test_an_unknown_target_is_refused(simulate: Callable[[str], None]) -> None:
    simulate("gfx000")
    with pytest.raises(ValueError, match=r"FLASH_ATTENTION_SIMULATE is 'gfx000'; accepted are gfx90a, gfx942, gfx950"):
        flash_attn_func(Q, Q, Q)


def test_simulation_never_falls_back(simulate: Callable[[str], None]) -> None:
    simulate("gfx942")
    assert dispatch.candidates(CPU) == ("triton",)
    with pytest.raises(UnsupportedError, match="dtype float64"):
        flash_attn_func(Q.double(), Q.double(), Q.double())


def test_simulation_is_for_cpu_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert TritonBackend("gfx942").machine_reasons(GPU) == ["FLASH_ATTENTION_SIMULATE is for CPU tensors, not for cuda"]


def test_simulation_needs_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "amdgpu_sim", None)
    (reason,) = TritonBackend("gfx942").machine_reasons(CPU)
    assert "run Python in the folder of a checkout" in reason


def test_simulation_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    simulation._say_once.cache_clear()
    with caplog.at_level(logging.WARNING, logger="flash_attn"):
        for _ in range(2):
            with triton_runtime.launching(CPU, "gfx1201"):
                pass
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["FLASH_ATTENTION_SIMULATE=gfx1201"]


def test_switches_exclude_each_other() -> None:
    code = (
        "import torch; from flash_attn.backends.triton import TritonBackend;"
        "print(TritonBackend('gfx942').machine_reasons(torch.device('cpu')))"
    )
    assert "both set" in _python(code, TRITON_INTERPRET="1").stdout


def test_a_late_switch_to_the_interpreter_is_noticed() -> None:
    code = (
        "import os, torch, triton; os.environ['TRITON_INTERPRET'] = '1'\n"
        "from flash_attn.backends.triton import TritonBackend\n"
        "print(TritonBackend().machine_reasons(torch.device('cpu')))"
    )
    assert "set it before Python starts" in _python(code).stdout


def test_importing_the_package_imports_no_triton() -> None:
    code = (
        "import sys, torch; before = 'triton' in sys.modules; import flash_attn, flash_attn.backends.triton;"
        "print(before, 'triton' in sys.modules)"
    )
    assert _python(code).stdout.split() == ["False", "False"]


def test_info_tells_how_it_runs(simulate: Callable[[str], None]) -> None:
    simulate("gfx1201")
    described = info.collect()["backends"]["triton"]
    assert described["available"] is True
    assert described["runs"] == "simulated as gfx1201"
    simulate("gfx000")
    assert "accepted are" in info.collect()["backends"]["triton"]["error"]


def test_the_matrix_is_the_same_on_every_machine(simulate: Callable[[str], None]) -> None:
    plain = support.support_matrix()
    simulate("gfx942")
    assert support.support_matrix() == plain


def test_check_of_a_simulated_gpu_is_short(
    simulate: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    simulate("gfx942")
    monkeypatch.setattr(check, "FEATURES", tuple(f for f in FEATURES if f.name == "forward only"))
    assert check.run_check() == check.PASSED
    out = capsys.readouterr().out
    assert "backend triton on cpu" in out
    assert "kernels are emulated" in out
    assert "1 passed, 0 failed, 0 unsupported" in out


def test_short_cases_keep_every_feature() -> None:
    for feature in FEATURES:
        assert feature.shortened().spec()._replace(nheads_q=0, nheads_k=0) == feature.spec()._replace(
            nheads_q=0, nheads_k=0
        )
