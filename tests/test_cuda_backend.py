"""The cuda backend where no CUDA kernels are: its reasons against specs and machines."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends.cuda import CUDABackend, library
from flash_attn.backends.native_split import choose_splits
from flash_attn.testing import AttentionCase, DecodeCase, make_attention, make_decode

CASE = AttentionCase(head_dim=64, head_dim_v=64, dtype=torch.bfloat16, backward=False)
DECODE = DecodeCase(head_dim=64, head_dim_v=64, dtype=torch.bfloat16)
CUDA = torch.device("cuda")


def reasons(case: AttentionCase | DecodeCase) -> list[str]:
    spec: AttentionSpec = (make_attention(case) if isinstance(case, AttentionCase) else make_decode(case))[0]
    return CUDABackend().unsupported_reasons(spec, CUDA)


@pytest.mark.parametrize(
    "case",
    [
        CASE,
        replace(CASE, dtype=torch.float16, causal=True, nheads_k=1),
        replace(CASE, varlen=True, window_size=(5, 3), seqused=True),
        replace(CASE, backward=True),
        replace(CASE, backward=True, varlen=True),
        replace(CASE, head_dim=72, head_dim_v=40),
        replace(CASE, dtype=torch.float8_e4m3fn, descale=True, softcap=15.0),
        replace(DECODE, page_size=1),
        replace(DECODE, page_size=16, seqlen_new=1),
        replace(DECODE, batch_idx=True),
        replace(DECODE, leftpad=True),
        replace(CASE, varlen=True, page_size=16),
        replace(DECODE, seqlens_q=(1,) * len(DECODE.cache_seqlens)),
        replace(DECODE, page_size=16, seqlens_q=(1,) * len(DECODE.cache_seqlens)),
    ],
)
def test_what_cuda_does(case: AttentionCase | DecodeCase) -> None:
    assert reasons(case) == []


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (replace(CASE, dtype=torch.float32), "dtype float32"),
        (replace(CASE, dtype=torch.float8_e4m3fnuz), "dtype float8_e4m3fnuz"),
        (replace(CASE, dtype=torch.float8_e4m3fn, dropout_p=0.1), "no dropout of fp8"),
        (replace(CASE, head_dim=512, head_dim_v=512), "beyond 256"),
        (replace(CASE, head_dim=40, head_dim_v=36), "multiple of 8"),
        (replace(CASE, sink=True), "sink"),
        (replace(CASE, varlen=True, leftpad=True), "leftpad_k of varlen keys"),
        (replace(CASE, softcap=15.0, alibi_dims=1), "softcap with ALiBi"),
        (replace(CASE, varlen=True, page_size=16, dropout_p=0.1), "dropout over pages"),
        (replace(CASE, varlen=True, page_size=16, backward=True), "backward through pages"),
    ],
)
def test_what_cuda_does_not(case: AttentionCase, reason: str) -> None:
    assert any(reason in against for against in reasons(case)), reasons(case)


def test_splits_fill_the_processors_with_tiles_that_pack_the_heads_of_a_group() -> None:
    case = replace(CASE, nheads_q=8, nheads_k=1, seqlens_q=(1,), seqlens_k=(4096,))
    spec, inputs = make_attention(case)
    simulated = library("sm_90")
    assert choose_splits(simulated, spec, inputs, 4096, 64) == 16
    assert choose_splits(replace(simulated, packed_heads=False), spec, inputs, 4096, 64) == 2
    assert choose_splits(simulated, spec, inputs._replace(max_seqlen_q=9), 4096, 64) == 8
    assert choose_splits(simulated, spec, inputs, 300, 64) == 2


def test_cpu_tensors_are_no_cuda_device() -> None:
    (reason,) = CUDABackend().machine_reasons(torch.device("cpu"))
    assert reason == "no CUDA device: CUDA runs on CUDA devices, and this is cpu"


def test_pytorch_without_cuda_is_no_cuda_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    assert CUDABackend().machine_reasons(CUDA) == ["no CUDA device: this PyTorch is not built for CUDA"]


def test_a_package_without_kernels_says_where_the_reason_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    backend = CUDABackend()
    backend.library = replace(library(), path=tmp_path / "_cuda.so")
    (reason,) = backend.machine_reasons(CUDA)
    assert reason == "this flash_attn was built without CUDA kernels; python -m flash_attn info says why"
