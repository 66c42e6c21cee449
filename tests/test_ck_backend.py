"""The ck backend where no CK kernels are: its reasons, and what is computed without them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends import ck_dropout
from flash_attn.backends.ck import CKBackend, library
from flash_attn.backends.native_tensors import aligned
from flash_attn.testing import AttentionCase, make_attention

CASE = AttentionCase(head_dim=64, head_dim_v=64, dtype=torch.bfloat16, backward=False)
CPU = torch.device("cpu")


def reasons(case: AttentionCase, **changes: object) -> list[str]:
    spec: AttentionSpec = make_attention(case)[0]._replace(**changes)  # type: ignore[arg-type]
    return CKBackend().unsupported_reasons(spec, torch.device("cuda"))


def machine_reasons(path: Path) -> list[str]:
    backend = CKBackend()
    backend.library = replace(library(), path=path)
    return backend.machine_reasons(torch.device("cuda"))


@pytest.mark.parametrize(
    "case",
    [
        CASE,
        replace(CASE, causal=True, nheads_k=1),
        replace(CASE, varlen=True, window_size=(5, 3), seqused=True),
        replace(CASE, softcap=15.0),
        replace(CASE, backward=True, dropout_p=0.1),
        replace(CASE, backward=True, alibi_dims=2),
        replace(CASE, backward=True, deterministic=True),
        replace(CASE, head_dim=72, head_dim_v=72),
        replace(CASE, dtype=torch.float8_e4m3fnuz, descale=True, causal=True),
        replace(CASE, dtype=torch.float8_e4m3fn, softcap=15.0),
    ],
)
def test_what_ck_does(case: AttentionCase) -> None:
    assert reasons(case) == []


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (replace(CASE, dtype=torch.float32), "dtype float32"),
        (replace(CASE, head_dim=512, head_dim_v=512), "beyond 256"),
        (replace(CASE, head_dim=40, head_dim_v=36), "multiple of 8"),
        (replace(CASE, sink=True), "sink"),
        (replace(CASE, varlen=True, leftpad=True), "leftpad_k"),
        (replace(CASE, dropout_p=0.1, softcap=15.0), "no dropout with softcap"),
        (replace(CASE, dropout_p=0.1, alibi_dims=1), "no dropout with softcap, ALiBi"),
        (
            replace(CASE, backward=True, dropout_p=0.1, deterministic=True),
            "ALiBi or deterministic",
        ),
        (replace(CASE, softcap=15.0, alibi_dims=1), "softcap with ALiBi"),
        (replace(CASE, backward=True, softcap=15.0), "backward of softcap"),
        (replace(CASE, backward=True, deterministic=True, alibi_dims=1), "ALiBi and deterministic"),
        (replace(CASE, varlen=True, page_size=16), "varlen queries over pages"),
        (replace(CASE, dtype=torch.float8_e4m3fnuz, alibi_dims=1), "no ALiBi or dropout of fp8"),
        (replace(CASE, dtype=torch.float8_e4m3fn, dropout_p=0.1), "no ALiBi or dropout of fp8"),
        (replace(CASE, dtype=torch.float8_e5m2), "dtype float8_e5m2 is not one of"),
    ],
)
def test_what_ck_does_not(case: AttentionCase, reason: str) -> None:
    assert any(reason in against for against in reasons(case)), reasons(case)


def test_cpu_tensors_are_no_rocm_device() -> None:
    (reason,) = CKBackend().machine_reasons(CPU)
    assert reason.startswith("no ROCm device")


def test_pytorch_without_rocm_is_no_rocm_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", None)
    assert CKBackend().machine_reasons(torch.device("cuda")) == ["no ROCm device: this PyTorch is not built for ROCm"]


def test_a_package_without_kernels_says_where_the_reason_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert "python -m flash_attn info says why" in machine_reasons(tmp_path / "_ck.so")[0]


def test_a_library_that_does_not_load_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "_ck.so"
    broken.write_bytes(b"no library")
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert machine_reasons(broken)[0].startswith("CK kernels do not load (")


def test_only_rows_that_no_load_can_begin_at_are_copied() -> None:
    whole = torch.zeros(2, 6, 3, 24, dtype=torch.float16)
    for x in (whole, whole[:, ::2], whole[..., 8:16], whole.transpose(1, 2), whole[:, :1]):
        assert aligned(x) is x
    for x in (whole[..., 4:12], torch.zeros(2, 6, 3, 20, dtype=torch.float16)[..., :8]):
        assert aligned(x) is not x
        assert torch.equal(aligned(x), x)


def test_a_tile_of_the_dropout_mask_is_the_part_of_the_whole() -> None:
    state = torch.tensor([12345678901234567, 42])
    heads, rows = torch.arange(3).view(3, 1), torch.arange(70)
    whole = ck_dropout.keep_mask(state, 0.3, heads, rows, 0, 100)
    part = ck_dropout.keep_mask(state, 0.3, heads[1:2], rows[33:], 31, 40)
    assert torch.equal(part, whole[1:2, 33:, 31:71])


@pytest.mark.parametrize(("dropout_p", "kept"), [(0.25, 192 / 256), (0.2, 205 / 256), (0.001, 255 / 256)])
def test_dropout_drops_its_share_in_steps_of_a_byte(dropout_p: float, kept: float) -> None:
    state, heads, rows = torch.tensor([7, 1 << 40]), torch.arange(8).view(8, 1), torch.arange(256)
    share = ck_dropout.keep_mask(state, dropout_p, heads, rows, 0, 512).double().mean()
    assert abs(share - kept) < 5 * (kept * (1 - kept) / (8 * 256 * 512)) ** 0.5
