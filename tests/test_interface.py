"""The public functions against each other: packed, varlen, paged, cached and raw forms are views of one path."""

# Argument lists are unpacked and results indexed in ways that mypy cannot follow.
# mypy: disable-error-code="arg-type,call-arg,union-attr,return-value,misc"

import pytest
import torch
from torch import Tensor

import flash_attn_2_cuda
from flash_attn import (
    flash_attn_func,
    flash_attn_kvpacked_func,
    flash_attn_qkvpacked_func,
    flash_attn_varlen_func,
    flash_attn_varlen_kvpacked_func,
    flash_attn_varlen_qkvpacked_func,
    flash_attn_with_kvcache,
)
from flash_attn.flash_attn_interface import (
    _flash_attn_backward,
    _flash_attn_forward,
    _flash_attn_varlen_backward,
    _flash_attn_varlen_forward,
    _get_block_size_n,
    maybe_contiguous,
    round_multiple,
)
from flash_attn.testing import cumulative

OPTIONS = {"causal": True, "window_size": (20, 3), "softcap": 5.0}
MASK = (0.0, 0.3, True, -1, -1, 0.0)


def _randn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, dtype=dtype, requires_grad=True)


def _same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_packed_forms_are_views_of_one_path() -> None:
    qkv = _randn(2, 9, 3, 4, 16)
    q, k, v = (x.detach().requires_grad_() for x in qkv.unbind(2))
    expected = flash_attn_func(q, k, v, **OPTIONS)
    direction = torch.randn_like(expected)
    gradient = torch.stack(torch.autograd.grad(expected, (q, k, v), direction), 2)
    packed = flash_attn_qkvpacked_func(qkv, **OPTIONS)
    _same(packed, expected)
    _same(torch.autograd.grad(packed, qkv, direction)[0], gradient)
    kv = qkv.detach()[:, :, 1:].clone().requires_grad_()
    packed = flash_attn_kvpacked_func(q, kv, **OPTIONS)
    _same(packed, expected)
    _same(torch.autograd.grad(packed, kv, direction)[0], gradient[:, :, 1:])


def test_varlen_equals_each_sequence_by_itself() -> None:
    lengths = (5, 0, 12, 1)
    qkv = _randn(sum(lengths), 3, 4, 16)
    ends = cumulative(lengths)
    out, lse, probs = flash_attn_varlen_qkvpacked_func(qkv, ends, 12, **OPTIONS, return_attn_probs=True)
    alone = [flash_attn_qkvpacked_func(x[None], **OPTIONS, return_attn_probs=True) for x in qkv.split(lengths)]
    torch.testing.assert_close(out, torch.cat([x[0][0] for x in alone]))
    torch.testing.assert_close(lse, torch.cat([x[1][0] for x in alone], dim=1))
    assert lse.shape == (4, sum(lengths))
    assert probs.numel() == 0
    split = flash_attn_varlen_kvpacked_func(qkv[:, 0], qkv[:, 1:], ends, ends, 12, 12, **OPTIONS)
    _same(split, out)


def test_max_seqlen_may_be_a_tensor() -> None:
    x, ends = torch.randn(7, 2, 8), cumulative((3, 4))
    _same(
        flash_attn_varlen_func(x, x, x, ends, ends, torch.tensor(4), torch.tensor(4)),
        flash_attn_varlen_func(x, x, x, ends, ends, 4, 4),
    )


def test_rows_outside_of_every_sequence_are_zero() -> None:
    x, ends = torch.randn(9, 2, 8), cumulative((3, 4))
    out, lse, _ = flash_attn_varlen_func(x, x, x, ends, ends, 4, 4, return_attn_probs=True)
    assert torch.equal(out[7:], torch.zeros(2, 2, 8))
    assert torch.equal(lse[:, 7:], torch.full((2, 2), -float("inf")))


def test_pages_equal_contiguous_keys() -> None:
    q, ends_q, ends_k = torch.randn(5, 4, 16), cumulative((2, 3)), cumulative((10, 7))
    k, v = torch.randn(17, 2, 16), torch.randn(17, 2, 16)
    pages = [torch.zeros(9, 3, 2, 16) for _ in range(2)]
    table = torch.tensor([[5, 0, 7, 2], [1, 8, 3, -1]], dtype=torch.int32)
    for source, paged in zip((k, v), pages, strict=True):
        for row, sequence in zip(table.tolist(), source.split((10, 7)), strict=True):
            for page, rows in zip(row, sequence.split(3), strict=False):
                paged[page, : len(rows)] = rows
    expected = flash_attn_varlen_func(q, k, v, ends_q, ends_k, 3, 10, causal=True)
    paged_out = flash_attn_varlen_func(q, *pages, ends_q, ends_k, 3, 10, causal=True, block_table=table)
    torch.testing.assert_close(paged_out, expected)


def test_decoding_token_by_token_equals_the_whole() -> None:
    q, k, v = torch.randn(2, 11, 4, 16), torch.randn(2, 11, 2, 16), torch.randn(2, 11, 2, 16)
    caches = torch.zeros(2, 16, 2, 16), torch.zeros(2, 16, 2, 16)
    steps = [
        flash_attn_with_kvcache(
            q[:, i : i + 1], *caches, k[:, i : i + 1], v[:, i : i + 1], cache_seqlens=i, causal=True
        )
        for i in range(11)
    ]
    torch.testing.assert_close(torch.cat(steps, 1), flash_attn_func(q, k, v, causal=True))
    assert torch.equal(caches[0][:, :11], k)


def test_private_functions_return_upstream_tuples() -> None:
    q, k, v = (_randn(2, 9, 4, 16) for _ in range(3))
    expected, expected_lse, _ = flash_attn_func(q, k, v, softmax_scale=0.3, causal=True, return_attn_probs=True)
    out, lse, probs, rng_state = _flash_attn_forward(q, k, v, *MASK, None, False)
    _same(out, expected)
    _same(lse, expected_lse)
    assert probs.numel() == 0
    assert (rng_state.dtype, rng_state.shape) == (torch.int64, (2,))
    direction = torch.randn_like(out)
    buffers = [torch.full_like(x, float("nan")) for x in (q, k, v)]
    with torch.no_grad():
        softmax_d = _flash_attn_backward(direction, q, k, v, out, lse, *buffers, *MASK, None, False)
    for buffer, gradient in zip(buffers, torch.autograd.grad(expected, (q, k, v), direction), strict=True):
        _same(buffer, gradient)
    torch.testing.assert_close(softmax_d, (direction * out).sum(-1).transpose(1, 2))


def test_private_varlen_functions() -> None:
    q, k, v = (_randn(9, 4, 16) for _ in range(3))
    lengths = (cumulative((4, 5)), cumulative((4, 5)), 5, 5)
    out, lse, _, rng_state = _flash_attn_varlen_forward(q, k, v, *lengths, 0.0, 0.3, True)
    expected = flash_attn_varlen_func(q, k, v, *lengths, softmax_scale=0.3, causal=True)
    _same(out, expected)
    buffers = [torch.full_like(x, float("nan")) for x in (q, k, v)]
    with torch.no_grad():
        _flash_attn_varlen_backward(
            torch.ones_like(out), q, k, v, out, lse, *buffers, *lengths, *MASK, None, False, rng_state
        )
    for buffer, gradient in zip(buffers, torch.autograd.grad(expected.sum(), (q, k, v)), strict=True):
        _same(buffer, gradient)


def test_dropout_probabilities_show_what_was_dropped() -> None:
    q, k, v = (_randn(2, 20, 2, 16) for _ in range(3))
    out, _, probs = flash_attn_func(q, k, v, dropout_p=0.3, return_attn_probs=True)
    assert probs.shape == (2, 2, 20, 20)
    torch.testing.assert_close(probs.abs().sum(-1), torch.ones(2, 2, 20))
    kept = probs.clamp(min=0) / 0.7
    torch.testing.assert_close(torch.einsum("bhij,bjhd->bihd", kept, v), out)


def test_dropout_follows_manual_seed() -> None:
    x = torch.randn(1, 64, 2, 16)
    torch.manual_seed(3)
    first, second = (flash_attn_func(x, x, x, dropout_p=0.5) for _ in range(2))
    torch.manual_seed(3)
    _same(flash_attn_func(x, x, x, dropout_p=0.5), first)
    assert not torch.equal(first, second)


def test_raw_functions_by_position() -> None:
    q, k, v = (torch.randn(2, 9, 4, 16) for _ in range(3))
    expected = flash_attn_func(q, k, v, softmax_scale=0.3, causal=True)
    buffer = torch.empty_like(q)
    out, lse, _, rng_state = flash_attn_2_cuda.fwd(q, k, v, buffer, None, *MASK[:5])
    assert out is buffer
    _same(out, expected)
    grads = flash_attn_2_cuda.bwd(out, q, k, v, out, lse, None, None, None, None, *MASK, False, None, rng_state)
    assert [x.shape for x in grads] == [q.shape, k.shape, v.shape, lse.shape]
    lengths = cumulative((9, 9))
    packed = [x.flatten(0, 1) for x in (q, k, v)]
    before = (None, lengths, lengths, None, None, None, None, 9, 9, 0.0, 0.3, False, True, -1, -1)
    varlen_out, varlen_lse, _, _ = flash_attn_2_cuda.varlen_fwd(*packed, *before, 0.0, False, None)
    torch.testing.assert_close(varlen_out.view_as(out), out)
    saved = (varlen_out, *packed, varlen_out, varlen_lse, None, None, None, lengths, lengths, None, 9, 9)
    varlen_grads = flash_attn_2_cuda.varlen_bwd(*saved, 0.0, 0.3, False, True, -1, -1)
    torch.testing.assert_close(varlen_grads[0].view_as(q), grads[0])
    decoded, _ = flash_attn_2_cuda.fwd_kvcache(q, k, v, *[None] * 10, 0.3, True, -1, -1)
    torch.testing.assert_close(decoded, expected)


@pytest.mark.parametrize("shape", [(0, 5, 2, 8), (2, 0, 2, 8)])
def test_empty_calls(shape: tuple[int, ...]) -> None:
    q, k = _randn(*shape), _randn(shape[0], 4, 2, 8)
    out = flash_attn_func(q, k, k)
    assert out.shape == q.shape
    assert torch.equal(torch.autograd.grad(out.sum(), k)[0], torch.zeros_like(k))


def test_no_keys_give_zero_and_minus_infinity() -> None:
    q, k = _randn(2, 5, 2, 8), _randn(2, 0, 2, 8)
    out, lse, _ = flash_attn_func(q, k, k, return_attn_probs=True)
    assert torch.equal(out, torch.zeros_like(out))
    assert torch.equal(lse, torch.full_like(lse, -float("inf")))
    assert torch.equal(torch.autograd.grad(out.sum(), q)[0], torch.zeros_like(q))


def test_inputs_with_any_strides() -> None:
    q = torch.randn(2, 4, 16, 9).permute(0, 3, 1, 2)
    k = torch.randn(9, 2, 4, 32)[..., ::2].transpose(0, 1)
    expected = flash_attn_func(q.contiguous(), k.contiguous(), k.contiguous())
    _same(flash_attn_func(q, k, k), expected)


def test_small_helpers() -> None:
    x = torch.randn(3, 4)
    assert maybe_contiguous(x) is x
    assert maybe_contiguous(x.T).stride(-1) == 1
    assert maybe_contiguous(None) is None
    assert [round_multiple(n, 32) for n in (1, 32, 33)] == [32, 32, 64]
    assert 128 % _get_block_size_n(torch.device("cpu"), 64, False, False) == 0
