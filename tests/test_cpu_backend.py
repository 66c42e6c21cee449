"""The cpu backend where its own machinery bites: tile borders, key splits, exponent range, hidden memory."""

import math
from typing import Any

import pytest
import torch

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends.base import AttentionInputs
from flash_attn.backends.cpu import CpuBackend
from flash_attn.backends.cpu_kernels import forward, fused, tiles
from flash_attn.backends.reference import ReferenceBackend
from flash_attn.testing import AttentionCase, Bound, DecodeCase, compare, compare_attention, compare_decode

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal square": {"seqlens_q": (47, 47), "causal": True},
    "grouped causal": {"nheads_k": 2, "causal": True},
    "more queries than keys": {"seqlens_q": (47, 47), "seqlens_k": (33, 33), "causal": True},
    "window": {"window_size": (9, 4)},
    "left window": {"window_size": (5, -1), "nheads_k": 1},
    "softcap": {"softcap": 3.0, "causal": True},
    "alibi by batch": {"alibi_dims": 2},
    "alibi by head": {"alibi_dims": 1, "nheads_k": 2, "causal": True},
    "dropout": {"dropout_p": 0.3, "causal": True},
    "sink": {"sink": True, "window_size": (4, 0)},
    "value head dim": {"head_dim_v": 24, "causal": True},
    "wide head": {"head_dim": 264, "head_dim_v": 264},
    "head dim 1": {"head_dim": 1, "head_dim_v": 1},
    "varlen": {"varlen": True, "seqlens_q": (0, 17, 33), "seqlens_k": (5, 40, 0), "causal": True},
    "seqused": {"varlen": True, "seqused": True, "nheads_k": 2},
    "leftpad": {"varlen": True, "page_size": 16, "leftpad": True, "seqused": True, "backward": False},
    "paged": {"varlen": True, "page_size": 16, "causal": True, "backward": False},
    "chunks": {"attention_chunk": 10, "alibi_dims": 1, "nheads_k": 2, "dropout_p": 0.2},
    "chunks before the first key": {"attention_chunk": 7, "seqlens_q": (47,), "seqlens_k": (33,), "sink": True},
    "seqused_q": {"varlen": True, "seqused_q": True, "causal": True, "sink": True},
    "no keys": {"seqlens_k": (0, 0), "sink": True},
    "no queries": {"seqlens_q": (0, 0)},
}
SMALL_TILES = {
    "TILE_ELEMENTS": 600,
    "MAX_ROWS": 16,
    "MASKED_ROWS": 8,
    "MIN_COLUMNS": 13,
    "DROPOUT_ELEMENTS": 100,
    "DENSE_ROWS": 1,
    "DENSE_BYTES": 2048,
}


def _split_into_small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL_TILES.items():
        monkeypatch.setattr(tiles, name, value)
    monkeypatch.setattr(fused, "CAUSAL_ROWS", (8, 16))
    monkeypatch.setattr(fused, "UPCAST_BYTES", 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("small_tiles", [False, True], ids=["one tile", "many tiles"])
@pytest.mark.parametrize("name", CASES)
def test_equals_the_definition(
    name: str, small_tiles: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if small_tiles:
        _split_into_small_tiles(monkeypatch)
    for comparison in compare_attention(AttentionCase(dtype=dtype, **CASES[name])):
        assert comparison.passed, (name, comparison)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["grouped causal", "window", "alibi by head", "dropout", "sink", "softcap"])
def test_running_maximum_equals_the_definition(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    _split_into_small_tiles(monkeypatch)
    monkeypatch.setattr(forward, "SAFE_SUM", (1.0, 0.0))
    for comparison in compare_attention(AttentionCase(dtype=dtype, **CASES[name])):
        assert comparison.passed, (name, comparison)


@pytest.mark.parametrize("small_tiles", [False, True], ids=["one tile", "many tiles"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_decode_equals_the_definition(dtype: torch.dtype, small_tiles: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if small_tiles:
        _split_into_small_tiles(monkeypatch)
    for case in (DecodeCase(dtype=dtype), DecodeCase(dtype=dtype, seqlen_new=1), DecodeCase(dtype=dtype, seqlen_q=3)):
        for comparison in compare_decode(case):
            assert comparison.passed, (case, comparison)


def _plain_call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[AttentionSpec, AttentionInputs]:
    nheads, head_dim = q.shape[2], q.shape[3]
    spec = AttentionSpec(q.dtype, nheads, k.shape[2], head_dim, head_dim, 1.0, window_right=0, needs_backward=True)
    return spec, AttentionInputs(q, k, v, q.shape[1], k.shape[1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("magnitude", [30.0, 3000.0])
def test_logits_beyond_the_exponent_range(dtype: torch.dtype, magnitude: float) -> None:
    """The first logit of every row is ``magnitude``, the others are ``-magnitude``."""
    q = torch.ones(1, 6, 2, 1, dtype=dtype)
    k = torch.full((1, 6, 2, 1), -magnitude, dtype=dtype)
    k[:, 0] = magnitude
    v = torch.arange(1, 7, dtype=dtype).view(1, 6, 1, 1).expand(1, 6, 2, 1)
    spec, inputs = _plain_call(q, k, v)
    result = CpuBackend().forward(spec, inputs)
    assert torch.equal(result.out, torch.ones_like(q))
    expected = torch.full((1, 2, 6), float(k[0, 0, 0, 0]))
    rounding_of_scores = max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
    torch.testing.assert_close(result.softmax_lse, expected, rtol=rounding_of_scores, atol=0)
    gradients = CpuBackend().backward(spec, inputs, result, torch.ones_like(q), None)
    assert all(x.isfinite().all() for x in gradients)
    torch.testing.assert_close(gradients.dv[:, 0], torch.full_like(q[:, 0], 6.0))


@pytest.mark.parametrize("small_tiles", [False, True], ids=["one tile", "many tiles"])
@pytest.mark.parametrize("scale", [100.0, 1e8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_large_logits_cost_no_more_than_in_pytorch(
    dtype: torch.dtype, scale: float, small_tiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores rounded to bf16 would pick other keys; a log-sum-exp rounded to fp32 would give weights beyond 1."""
    generator = torch.Generator().manual_seed(0)
    q, k, v, dout = (torch.randn(1, 200, 2, 16, generator=generator).to(dtype) for _ in range(4))
    spec, inputs = _plain_call(q, k, v)
    spec = spec._replace(softmax_scale=scale)
    plain, exact = (ReferenceBackend(x) for x in (torch.float32, torch.float64))
    if small_tiles:
        for limit, value in (("TILE_ELEMENTS", 64 * 64), ("MAX_ROWS", 64), ("MIN_COLUMNS", 64)):
            monkeypatch.setattr(tiles, limit, value)
    runs = []
    for backend in (CpuBackend(), plain, exact):
        result = backend.forward(spec, inputs)
        runs.append((result.out, *backend.backward(spec, inputs, result, dout, None)[:3]))
    ours, rounded, right = runs
    assert all(x.isfinite().all() for x in ours)
    beyond = 0.0
    if small_tiles:  # probabilities of several blocks are exp(s - lse), the lse rounded in fp32 twice
        off = math.expm1(min(1.0, torch.finfo(torch.float32).eps * float(result.softmax_lse.abs().max())))
        beyond = off * float(exact.backward(spec, inputs, result, dout.abs(), None).dv.max())
    for name, index, bound in (("out", 0, Bound(dtype, 0)), ("dv", 3, Bound(dtype, 0, beyond))):
        comparison = compare(name, ours[index], right[index], rounded[index], bound)
        assert comparison.passed, comparison


def test_hidden_keys_may_hold_anything() -> None:
    q, k, v = (torch.randn(1, 5, 2, 8, dtype=torch.bfloat16) for _ in range(3))
    spec, inputs = _plain_call(q, k, v)
    spec = spec._replace(has_seqused_k=True)
    used = torch.tensor([3], dtype=torch.int32)
    clean = CpuBackend().forward(spec, inputs._replace(seqused_k=used))
    k[:, 3:], v[:, 3:] = math.nan, math.nan
    assert torch.equal(CpuBackend().forward(spec, inputs._replace(seqused_k=used)).out, clean.out)


@pytest.mark.parametrize("layout", ["cache_batch_idx", "paged"])
def test_key_gradients_return_to_the_rows_they_were_read_from(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _split_into_small_tiles(monkeypatch)
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(3, 9, 4, 8, dtype=torch.float64, generator=generator)
    k, v = (torch.randn(5, 8, 2, 8, dtype=torch.float64, generator=generator) for _ in range(2))
    spec, inputs = _plain_call(q, k, v)
    if layout == "paged":
        table = torch.tensor([[4, 0], [1, 0], [2, 2]], dtype=torch.int32)
        used = torch.tensor([13, 9, 7], dtype=torch.int32)
        spec = spec._replace(kv_layout="paged", page_size=8, has_seqused_k=True)
        inputs = inputs._replace(block_table=table, seqused_k=used, max_seqlen_k=16)
    else:
        spec = spec._replace(has_cache_batch_idx=True)
        inputs = inputs._replace(cache_batch_idx=torch.tensor([4, 1, 4], dtype=torch.int32))
    dout, dlse = torch.randn_like(q), torch.randn(3, 4, 9)
    backends = (CpuBackend(), ReferenceBackend())
    ours, exact = (b.backward(spec, inputs, b.forward(spec, inputs), dout, dlse) for b in backends)
    for mine, right in zip(ours[:3], exact[:3], strict=True):
        torch.testing.assert_close(mine, right)


@pytest.mark.parametrize("strided", ["transposed", "padded"])
def test_strides_are_honoured(strided: str) -> None:
    q, k, v = (torch.randn(2, 3, 40, 16, dtype=torch.bfloat16) for _ in range(3))
    if strided == "transposed":
        views = [x.transpose(1, 2) for x in (q, k, v)]
    else:
        views = [torch.nn.functional.pad(x.transpose(1, 2), (0, 7))[..., :16] for x in (q, k, v)]
    dense = [x.contiguous() for x in views]
    backend = CpuBackend()
    ours, same = (backend.forward(*_plain_call(*tensors)).out for tensors in (views, dense))
    assert torch.equal(ours, same)


def test_reasons() -> None:
    spec = AttentionSpec(torch.float32, 1, 1, 8, 8, 1.0)
    assert CpuBackend().unsupported_reasons(spec, torch.device("cpu")) == []
    assert "cuda" in CpuBackend().unsupported_reasons(spec, torch.device("cuda"))[0]
    int8 = spec._replace(dtype=torch.int8)
    assert "int8" in CpuBackend().unsupported_reasons(int8, torch.device("cpu"))[0]
