"""The environment, use_backend, reasons and the one error."""

import logging
import threading

import pytest
import torch

from flash_attn import UnsupportedError, dispatch, environment, flash_attn_func, use_backend
from flash_attn.attention_spec import AttentionSpec

SPEC = AttentionSpec(torch.bfloat16, 4, 2, 64, 64, 0.125)
CPU = torch.device("cpu")
Q = torch.randn(1, 4, 2, 8)


def test_auto_takes_cpu_on_cpu_tensors() -> None:
    assert dispatch.requested() == "auto"
    assert dispatch.select(SPEC, CPU, "auto").name == "cpu"


def test_environment_is_read_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    flash_attn_func(Q, Q, Q)
    monkeypatch.setenv("FLASH_ATTENTION_BACKEND", "triton")
    with pytest.raises(UnsupportedError):
        flash_attn_func(Q, Q, Q)
    monkeypatch.setenv("FLASH_ATTENTION_BACKEND", "Reference")
    assert dispatch.requested() == "reference"


@pytest.mark.parametrize(("value", "expected"), [("TRUE", "triton"), ("1", "triton"), ("FALSE", "auto"), ("", "auto")])
def test_upstream_switch(monkeypatch: pytest.MonkeyPatch, value: str, expected: str) -> None:
    monkeypatch.setenv("FLASH_ATTENTION_TRITON_AMD_ENABLE", value)
    assert dispatch.requested() == expected
    monkeypatch.setenv("FLASH_ATTENTION_BACKEND", "cpu")
    assert dispatch.requested() == "cpu"


@pytest.mark.parametrize("name", ["FLASH_ATTENTION_BACKEND", "FLASH_ATTENTION_TRITON_AMD_ENABLE"])
def test_unknown_values_are_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "rocm")
    with pytest.raises(ValueError, match=f"{name} is 'rocm'; accepted are"):
        flash_attn_func(Q, Q, Q)


def test_use_backend_nests_and_ends() -> None:
    with use_backend("reference"):
        with use_backend("auto"):
            assert dispatch.requested() == "auto"
        assert dispatch.requested() == "reference"
        seen: list[str] = []
        thread = threading.Thread(target=lambda: seen.append(dispatch.requested()))
        thread.start()
        thread.join()
        assert seen == ["auto"], "another thread is not affected"
    assert dispatch.requested() == "auto"
    with pytest.raises(ValueError, match="backend name is 'rocm'"), use_backend("rocm"):
        pass


def test_the_error_lists_request_and_every_backend() -> None:
    with use_backend("ck"), pytest.raises(UnsupportedError) as caught:
        flash_attn_func(Q, Q, Q, causal=True, softcap=3.0)
    message = str(caught.value)
    assert "backend 'ck' does not support this request on cpu" in message
    assert "window_right=0" in message
    assert "softcap=3.0" in message
    for name in environment.BACKEND_NAMES[1:]:
        assert f"  {name}: " in message


def test_selection_is_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SPEC._replace(softcap=123.0)
    chosen = dispatch.select(spec, CPU, "auto")
    monkeypatch.setattr(dispatch, "_choose", None)
    assert dispatch.select(spec, CPU, "auto") is chosen


def test_a_passed_over_backend_is_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    dispatch._log_passed_over.cache_clear()
    device = torch.device("cuda:0")
    with caplog.at_level(logging.INFO, logger="flash_attn"):
        for softcap in (7.0, 8.0):
            with pytest.raises(UnsupportedError):
                dispatch.select(SPEC._replace(softcap=softcap), device, "auto")
    assert [r.getMessage() for r in caplog.records].count(
        "backend cuda passed over: no CUDA device: this PyTorch is not built for CUDA"
    ) == 1


def test_candidates_by_vendor(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.version, "hip", None)
    assert dispatch.candidates(gpu) == ("cuda", "triton", "cpu")
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert dispatch.candidates(gpu) == ("ck", "triton", "cpu")
