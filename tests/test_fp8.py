"""Fp8 inputs: exact upcast on the CPU, the bound of the error, scales, appending, quantisers and the Hadamard map."""

# Results are indexed in ways that mypy cannot follow.
# mypy: disable-error-code="arg-type,call-arg,misc,union-attr,operator"

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import fp8_error
from flash_attn import flash_attn_3_interface as v3
from flash_attn import flash_attn_func, flash_attn_varlen_func, flash_attn_with_kvcache, use_backend
from flash_attn.attention_spec import FP8_DTYPES, AttentionSpec
from flash_attn.backends.extensions import extension_reasons
from flash_attn.dispatch import backend
from flash_attn.quantization import (
    dequantize_blockwise,
    hadamard_transform,
    incoherent_processing,
    quantize_blockwise,
    quantize_per_head,
    quantize_per_tensor,
)
from flash_attn.testing import AttentionCase, cumulative, fp8_rounding, make_attention
from flash_attn.validation import decode_request

F8 = torch.float8_e4m3fn
HALF_SPACING = {  # of a normal number, and between subnormal ones
    torch.float8_e4m3fn: (2**-4, 2**-10),
    torch.float8_e4m3fnuz: (2**-4, 2**-11),
    torch.float8_e5m2: (2**-3, 2**-17),
}
BF16_ROUNDING, FP32_ROUNDING = 2**-8, 2**-24


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _qkv(seqlen: int = 40, nheads_k: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    return (
        _normal(2, seqlen, 4, 32),
        _normal(2, seqlen + 9, nheads_k, 32, seed=1),
        _normal(2, seqlen + 9, nheads_k, 32, seed=2),
    )


def _fp32_error(q: Tensor, k: Tensor, v: Tensor) -> float:
    """How far attention in fp32 may be from its definition before the output is rounded.

    A score is a sum of head_dim products, scaled; an error in it moves a probability by twice as much of itself, and
    sums over the keys, the exponential and the division add their own roundings. All of it weighs values up to max |v|.
    """
    group = q.shape[2] // k.shape[2]
    magnitude = torch.einsum("bihd,bjhd->bhij", q.abs(), k.abs().repeat_interleave(group, 2)).max().item()
    in_scores = (q.shape[-1] + 2) * magnitude / math.sqrt(q.shape[-1])
    return (2 * in_scores + k.shape[1] + 8) * FP32_ROUNDING * float(v.abs().max())


def _attention(backend: str, *tensors: Tensor, **options: Any) -> Tensor:
    with use_backend(backend):
        out = v3.flash_attn_func(*tensors, **options)
    assert isinstance(out, Tensor)
    return out


@pytest.mark.parametrize("quantize", [quantize_per_tensor, quantize_per_head])
@pytest.mark.parametrize("dtype", FP8_DTYPES, ids=str)
def test_the_error_is_that_of_quantising(quantize: Any, dtype: torch.dtype) -> None:
    q, k, v = _qkv()
    given = [quantize(x, 2, dtype) for x in (q, k, v)]
    tensors = [x for x, _ in given]
    descales = dict(zip(("q_descale", "k_descale", "v_descale"), (scale for _, scale in given), strict=True))
    out = _attention("cpu", *tensors, **descales, causal=True)
    assert out.dtype == torch.bfloat16
    meant = [x.double() * scale.double().repeat_interleave(x.shape[2] // 2, 1)[:, None, :, None] for x, scale in given]
    exact = _attention("reference", *meant, causal=True)
    error = (out.double() - exact).abs()
    assert (error <= BF16_ROUNDING * exact.abs() + _fp32_error(*meant)).all()

    unquantised = _attention("reference", q, k, v, causal=True)
    spec, inputs = make_attention(AttentionCase(seqlens_q=(40, 40), seqlens_k=(49, 49), nheads_k=2, causal=True))
    spec = spec._replace(dtype=torch.float64)
    rounding_of_p = fp8_rounding(spec, inputs._replace(q=meant[0], k=meant[1], v=meant[2]))
    assert ((out.double() - unquantised).abs() <= (exact - unquantised).abs() + rounding_of_p).all()


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_the_second_interface_takes_fp8(backend: str) -> None:
    q, k, v = (x.to(F8) for x in _qkv())
    with use_backend(backend):
        out, lse, _ = flash_attn_func(q, k, v, causal=True, return_attn_probs=True)
        upcast = flash_attn_func(*(x.float() for x in (q, k, v)), causal=True)
        packed = [x.flatten(0, 1) for x in (q, k, v)]
        ends = cumulative((40, 40)), cumulative((49, 49))
        varlen = flash_attn_varlen_func(*packed, *ends, 40, 49, causal=True)
        lengths = torch.tensor([49, 20], dtype=torch.int32)
        cached = flash_attn_with_kvcache(q[:, :1], k, v, cache_seqlens=lengths)
        over_fp8 = flash_attn_with_kvcache(q[:, :1].to(torch.bfloat16), k, v, cache_seqlens=lengths)
    assert out.dtype == varlen.dtype == cached.dtype == over_fp8.dtype == torch.bfloat16
    assert lse.dtype == torch.float32
    for got in (out, varlen.unflatten(0, (2, 40))):
        error = (got.double() - upcast.double()).abs()
        assert (
            error <= BF16_ROUNDING * upcast.double().abs() + 2 * _fp32_error(*(x.double() for x in (q, k, v)))
        ).all()
    assert torch.equal(cached, over_fp8)


def test_one_scale_is_an_expanded_view() -> None:
    q, k, v = (x.to(F8) for x in _qkv())
    one = torch.tensor(0.25).expand(2, 2)
    each = torch.full((2, 2), 0.25)
    views, tensors = ({f"{x}_descale": scale for x in "qkv"} for scale in (one, each))
    assert torch.equal(_attention("cpu", q, k, v, **views), _attention("cpu", q, k, v, **tensors))


def test_gradients_are_refused() -> None:
    q, k, v = _qkv()
    leaf = q.to(torch.bfloat16).requires_grad_()
    with pytest.raises(TypeError, match=r"^q: got dtype torch.float8_e4m3fn where gradients are needed"):
        flash_attn_func(leaf.to(F8), k.to(F8), v.to(F8))
    with pytest.raises(TypeError, match=r"^k: got dtype torch.float8_e4m3fn where gradients are needed"):
        flash_attn_func(leaf, k.to(F8), v.to(F8))
    with torch.no_grad():
        flash_attn_func(leaf.to(F8), k.to(F8), v.to(F8))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("dtype", FP8_DTYPES, ids=str)
def test_appending_quantises_into_the_cache(dtype: torch.dtype, backend: str) -> None:
    cache = [torch.zeros(2, 6, 2, 8, dtype=dtype) for _ in range(2)]
    new = [_normal(2, 3, 2, 8, seed=i).to(torch.bfloat16) for i in range(2)]
    new[0][0, 0] = 1e6  # beyond the range of every fp8 dtype
    scales = [torch.tensor([[0.5, 2.0], [1.0, 0.125]]), torch.tensor([[1.0, 4.0], [0.5, 0.25]])]
    with use_backend(backend):
        v3.flash_attn_with_kvcache(
            _normal(2, 1, 2, 8).to(torch.bfloat16),
            *cache,
            *new,
            cache_seqlens=torch.tensor([1, 3], dtype=torch.int32),
            k_descale=scales[0],
            v_descale=scales[1],
        )
    largest = torch.finfo(dtype).max
    for held, given, scale in zip(cache, new, scales, strict=True):
        expected = (given.float() / scale[:, None, :, None]).clamp(-largest, largest).to(dtype)
        assert torch.equal(held[0, 1:4].float(), expected[0].float())
        assert torch.equal(held[1, 3:6].float(), expected[1].float())
        assert not held[0, :1].float().any()


class _LargestFp32(TorchDispatchMode):
    """Elements of the largest fp32 tensor that an operation returned."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dtype == torch.float32:
            self.elements = max(self.elements, result.numel())
        return result


@pytest.mark.parametrize("seqlen_q", [1, 64])
def test_the_cpu_upcasts_by_tiles(seqlen_q: int) -> None:
    q = _normal(2, seqlen_q, 4, 64).to(F8)
    cache = torch.zeros(2, 16384, 4, 64, dtype=F8)
    spec, inputs = decode_request(q, cache, cache, *[None] * 11, True, -1, -1, 0.0, True, 0)
    with _LargestFp32() as mode:  # which does not see into an operator
        backend("cpu").decode(spec, inputs)
    assert 0 < mode.elements <= cache.numel() // 4


@pytest.mark.parametrize("dtype", FP8_DTYPES, ids=str)
@pytest.mark.parametrize("way", ["tensor", "head", "block"])
def test_quantised_values_are_half_a_spacing_away(way: str, dtype: torch.dtype) -> None:
    x = _normal(2, 37, 4, 16) * torch.tensor([1e-6, 1.0, 30.0, 1e4])[:, None]
    if way == "block":
        x8, scale = quantize_blockwise(x, 8, dtype)
        back = dequantize_blockwise(x8, scale, 8)
        by_element = scale.repeat_interleave(8, 1)[:, :37].unsqueeze(-1)
        assert scale.shape == (2, 5, 4)
    else:
        x8, scale = (quantize_per_tensor if way == "tensor" else quantize_per_head)(x, 2, dtype)
        by_element = scale.repeat_interleave(2, 1)[:, None, :, None]
        back = x8.float() * by_element
        assert scale.shape == (2, 2)
    assert x8.dtype == dtype
    assert scale.dtype == torch.float32
    relative, absolute = HALF_SPACING[dtype]
    # x itself is rounded to fp32, divided and multiplied there.
    allowed = torch.maximum(relative * x.abs(), absolute * by_element) + 4 * FP32_ROUNDING * x.abs()
    assert ((back - x).abs() <= allowed).all()
    assert float(x8.float().abs().max()) == torch.finfo(dtype).max


def test_quantising_zeros_gives_zeros() -> None:
    for quantise in (quantize_per_tensor, quantize_per_head):
        x8, scale = quantise(torch.zeros(1, 3, 2, 8), 2)
        assert not x8.float().any()
        assert (scale == 1).all()
    x8, scale = quantize_blockwise(torch.zeros(1, 3, 2, 8), 2)
    assert not dequantize_blockwise(x8, scale, 2).any()


@pytest.mark.parametrize("shape", [(0, 3, 4, 8), (2, 0, 4, 8), (2, 3, 4, 0)])
def test_quantising_nothing_gives_nothing(shape: tuple[int, ...]) -> None:
    for quantise in (quantize_per_tensor, quantize_per_head):
        x8, scale = quantise(torch.zeros(shape), 2)
        assert (x8.shape, scale.shape) == (shape, (shape[0], 2))
        assert (scale == 1).all()
    x8, scale = quantize_blockwise(torch.zeros(shape), 2)
    assert dequantize_blockwise(x8, scale, 2).shape == shape


@pytest.mark.parametrize("head_dim", [1, 2, 64, 256])
def test_the_hadamard_map(head_dim: int) -> None:
    signs = torch.randint(0, 2, (head_dim,), generator=torch.Generator().manual_seed(0)) * 2 - 1
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while matrix.shape[0] < head_dim:
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64), matrix)
    x = _normal(3, 5, head_dim)
    torch.testing.assert_close(hadamard_transform(x, signs), (x * signs) @ matrix.T / head_dim**0.5)
    q, k = incoherent_processing(x, _normal(3, 5, head_dim, seed=1), torch.Generator().manual_seed(2))
    torch.testing.assert_close(q @ k.mT, x @ _normal(3, 5, head_dim, seed=1).mT)


def test_unsuitable_arguments_are_named() -> None:
    x = torch.zeros(1, 3, 4, 8)
    with pytest.raises(TypeError, match=r"^dtype: got torch.float16"):
        quantize_per_tensor(x, 2, torch.float16)
    with pytest.raises(ValueError, match=r"^x: got shape \(1, 3, 4, 8\)"):
        quantize_per_head(x, 3)
    with pytest.raises(ValueError, match=r"^block_size: got 0"):
        quantize_blockwise(x, 0)
    with pytest.raises(ValueError, match=r"^block_size: got 1.5"):
        quantize_blockwise(x, 1.5)
    with pytest.raises(ValueError, match=r"^descale: got shape \(1, 2, 4\) for x of shape \(1, 3, 4, 8\)"):
        dequantize_blockwise(*quantize_blockwise(x, 2), block_size=3)
    with pytest.raises(ValueError, match=r"^x: got shape \(1, 3, 0, 8\)"):
        quantize_per_head(x[:, :, :0], 2)
    for dtype in (torch.int32, torch.float8_e4m3fn):
        with pytest.raises(TypeError, match=rf"^x: got dtype {dtype}; accepted"):
            quantize_per_tensor(x.to(dtype), 2)
        with pytest.raises(TypeError, match=rf"^x: got dtype {dtype}; accepted"):
            hadamard_transform(x.to(dtype), torch.ones(8))
    with pytest.raises(ValueError, match=r"^x: got head_dim 6"):
        hadamard_transform(torch.zeros(2, 6), torch.ones(6))
    with pytest.raises(ValueError, match=r"^signs: got shape \(4,\)"):
        hadamard_transform(torch.zeros(2, 8), torch.ones(4))
    with pytest.raises(ValueError, match=r"^k: got head_dim 4"):
        incoherent_processing(torch.zeros(2, 8), torch.zeros(2, 4))


def test_the_error_table_tells_hadamard_from_plain() -> None:
    errors = fp8_error.errors(64, outliers=True)
    assert errors["bf16"] < errors["e4m3fn, one scale a tensor, Hadamard"] < errors["e4m3fn, one scale a tensor"]
    assert errors["e4m3fn, one scale a tensor"][0] < errors["e5m2, one scale a tensor"][0]


def test_the_page_has_the_printed_table() -> None:
    page = fp8_error.PAGE.read_text(encoding="utf-8")
    held = re.findall(r"^\| ([^|]+) \|", fp8_error.table_in(page), re.MULTILINE)
    assert held == [fp8_error.COLUMNS[0], "---", *fp8_error.VARIANTS]
    assert fp8_error.table_in(fp8_error.with_table(page, "| planted |")) == "| planted |"


def test_a_backend_without_extensions_says_which() -> None:
    plain = AttentionSpec(torch.bfloat16, 2, 2, 64, 64, 0.125)
    assert extension_reasons(plain) == []
    asked = plain._replace(kv_dtype=F8, has_descale=True, attention_chunk=4, phase="decode", varlen_q=True)
    assert extension_reasons(asked) == [
        "has no fp8",
        "has no q_descale, k_descale, v_descale",
        "has no attention_chunk",
        "has no cu_seqlens_q over a KV cache",
    ]
