"""Packing and padding against loops over tokens, gradients by finite differences."""

import importlib.util
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

from flash_attn import bert_padding
from flash_attn.bert_padding import (
    IndexFirstAxis,
    IndexFirstAxisResidual,
    IndexPutFirstAxis,
    index_first_axis,
    index_first_axis_residual,
    index_put_first_axis,
    pad_input,
    unpad_input,
    unpad_input_for_concatenated_sequences,
)

MASKS = {
    "right padded": [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]],
    "left padded and holes": [[0, 0, 1, 1], [1, 0, 1, 0], [1, 1, 1, 1]],
    "an empty row": [[0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]],
    "all padding": [[0, 0, 0, 0]] * 3,
}


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.uint8, torch.float32])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_unpad_and_pad(mask: list[list[int]], dtype: torch.dtype) -> None:
    hidden = torch.randn(3, 4, 2, 5)
    rows = [(b, s) for b in range(3) for s in range(4) if mask[b][s]]
    tokens, indices, cu_seqlens, max_seqlen, seqused = unpad_input(hidden, torch.tensor(mask, dtype=dtype))
    assert tokens.shape == (len(rows), 2, 5)
    for token, (b, s) in zip(tokens, rows, strict=True):
        assert torch.equal(token, hidden[b, s])
    lengths = [sum(row) for row in mask]
    assert indices.tolist() == [4 * b + s for b, s in rows]
    assert cu_seqlens.tolist() == [0, lengths[0], sum(lengths[:2]), sum(lengths)]
    assert cu_seqlens.dtype == seqused.dtype == torch.int32
    assert indices.dtype == torch.int64
    assert type(max_seqlen) is int
    assert max_seqlen == max(lengths)
    assert seqused.tolist() == lengths
    assert torch.equal(pad_input(tokens, indices, 3, 4), hidden * torch.tensor(mask)[..., None, None])


def test_unused_tokens_are_kept_and_not_counted_as_used() -> None:
    hidden = torch.randn(2, 4, 3)
    used = torch.tensor([[1, 1, 0, 0], [0, 1, 0, 0]])
    unused = torch.tensor([[0, 1, 1, 0], [1, 0, 0, 0]])
    tokens, indices, cu_seqlens, max_seqlen, seqused = unpad_input(hidden, used, unused)
    assert indices.tolist() == [0, 1, 2, 4, 5]
    assert cu_seqlens.tolist() == [0, 3, 5]
    assert max_seqlen == 3
    assert seqused.tolist() == [2, 1]
    assert torch.equal(tokens, hidden.flatten(0, 1)[indices])


def test_mask_values_above_one_count_once() -> None:
    _, _, cu_seqlens, max_seqlen, seqused = unpad_input(torch.randn(1, 3, 2), torch.tensor([[2, 7, 0]]))
    assert (cu_seqlens.tolist(), max_seqlen, seqused.tolist()) == ([0, 2], 2, [2])


@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 0, 3), (0, 0, 3)])
def test_empty_batches(shape: tuple[int, int, int]) -> None:
    batch, seqlen, dim = shape
    mask = torch.ones(batch, seqlen, dtype=torch.int32)
    tokens, indices, cu_seqlens, max_seqlen, seqused = unpad_input(torch.randn(shape), mask)
    assert tokens.shape == (0, dim)
    assert cu_seqlens.tolist() == [0] * (batch + 1)
    assert max_seqlen == 0
    assert seqused.shape == (batch,)
    assert pad_input(tokens, indices, batch, seqlen).shape == shape
    tokens, _, cu_seqlens, max_seqlen = unpad_input_for_concatenated_sequences(torch.randn(shape), mask)
    assert (tokens.shape, cu_seqlens.tolist(), max_seqlen) == ((0, dim), [0], 0)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_concatenated_sequences(dtype: torch.dtype) -> None:
    hidden = torch.randn(3, 6, 2)
    lengths = torch.tensor([[2, 3, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [1, 0, 4, 1, 0, 0]], dtype=dtype)
    tokens, indices, cu_seqlens, max_seqlen = unpad_input_for_concatenated_sequences(hidden, lengths)
    assert indices.tolist() == [*range(5), *range(12, 18)]
    assert torch.equal(tokens, torch.cat([hidden[0, :5], hidden[2]]))
    assert cu_seqlens.tolist() == [0, 2, 5, 6, 10, 11]
    assert cu_seqlens.dtype == torch.int32
    assert max_seqlen == 4


def test_gradients() -> None:
    x = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    repeated = torch.tensor([3, 0, 3])
    assert torch.autograd.gradcheck(lambda t: index_first_axis(t, repeated), x)
    assert torch.autograd.gradcheck(lambda t: index_first_axis_residual(t, repeated), x)
    values = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: index_put_first_axis(t, torch.tensor([4, 0, 2]), 6), values)
    batch = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[1, 1, 0], [0, 1, 0]])

    def there_and_back(t: torch.Tensor) -> torch.Tensor:
        tokens, indices, *_ = unpad_input(t, mask)
        return pad_input(tokens.sin(), indices, 2, 3)

    assert torch.autograd.gradcheck(there_and_back, batch)


def test_residual_gradient_is_not_written_in_place() -> None:
    x = torch.randn(4, 2, requires_grad=True)
    picked, residual = index_first_axis_residual(x, torch.tensor([1]))
    given = torch.ones(4, 2)
    torch.autograd.backward([picked, residual], [torch.ones(1, 2), given])
    assert torch.equal(given, torch.ones(4, 2))
    assert x.grad is not None
    assert x.grad.tolist() == [[1, 1], [2, 2], [1, 1], [1, 1]]


def test_classes_apply_like_the_functions() -> None:
    x, indices = torch.randn(4, 2), torch.tensor([2, 0])
    assert torch.equal(IndexFirstAxis.apply(x, indices), x[indices])
    assert torch.equal(IndexFirstAxisResidual.apply(x, indices)[1], x)
    assert torch.equal(IndexPutFirstAxis.apply(x[:2], indices, 4)[indices], x[:2])


def test_compiles_without_a_graph_break() -> None:
    x, indices = torch.randn(2, 3, 4), torch.tensor([0, 2, 5])

    def pick_and_pad(t: torch.Tensor) -> torch.Tensor:
        return pad_input(index_first_axis(t.flatten(0, 1), indices), indices, 2, 3)

    compiled = torch.compile(pick_and_pad, backend="aot_eager", fullgraph=True)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    torch.autograd.backward([(compiled(a) ** 2).sum()])
    torch.autograd.backward([(pick_and_pad(b) ** 2).sum()])
    assert a.grad is not None
    assert b.grad is not None
    assert torch.equal(a.grad, b.grad)


def test_unpad_under_compile() -> None:
    x, mask = torch.randn(3, 4, 2), torch.tensor(MASKS["an empty row"])
    for got, want in zip(torch.compile(unpad_input, backend="aot_eager")(x, mask), unpad_input(x, mask), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


X = torch.zeros(2, 3, 4)
ERRORS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: unpad_input(X, torch.ones(2, 4)), ValueError, "attention_mask has shape"),
    (lambda: unpad_input(X, torch.ones(2, 3), torch.ones(3)), ValueError, "unused_mask has shape"),
    (
        lambda: unpad_input(X, torch.full((2, 3), float("-inf"))),
        ValueError,
        "attention_mask is of torch.float32",
    ),
    (
        lambda: unpad_input_for_concatenated_sequences(X, torch.ones(6).long()),
        ValueError,
        "in_length has shape",
    ),
    (lambda: unpad_input_for_concatenated_sequences(X, torch.ones(2, 3)), TypeError, "in_length has dtype"),
    (
        lambda: unpad_input_for_concatenated_sequences(X, torch.full((2, 3), 2)),
        ValueError,
        "in_length must be",
    ),
    (
        lambda: unpad_input_for_concatenated_sequences(X, torch.full((2, 3), -1)),
        ValueError,
        "in_length must be",
    ),
    (lambda: index_first_axis(X, torch.zeros(1)), TypeError, "indices has dtype"),
    (lambda: index_first_axis(X, torch.zeros(1, 1).long()), ValueError, "indices has shape"),
    (lambda: pad_input(X, torch.zeros(3).long(), 2, 3), ValueError, "values has shape"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_errors(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_rearrange() -> None:
    if importlib.util.find_spec("einops"):
        assert bert_padding.rearrange(torch.zeros(2, 3), "a b -> (a b)").shape == (6,)
    else:
        with pytest.raises(ImportError, match="einops, which is not installed"):
            bert_padding.rearrange(torch.zeros(2, 3), "a b -> (a b)")


SIGNATURES = {
    "IndexFirstAxis.forward": "ctx, input, indices",
    "IndexFirstAxis.backward": "ctx, grad_output",
    "IndexPutFirstAxis.forward": "ctx, values, indices, first_axis_dim",
    "IndexPutFirstAxis.backward": "ctx, grad_output",
    "IndexFirstAxisResidual.forward": "ctx, input, indices",
    "IndexFirstAxisResidual.backward": "ctx, grad_output, grad_residual",
    "index_first_axis": "input, indices",
    "index_put_first_axis": "values, indices, first_axis_dim",
    "index_first_axis_residual": "input, indices",
    "unpad_input": "hidden_states, attention_mask, unused_mask=None",
    "unpad_input_for_concatenated_sequences": "hidden_states, attention_mask_in_length",
    "pad_input": "hidden_states, indices, batch, seqlen",
}


@pytest.mark.parametrize(("name", "parameters"), SIGNATURES.items())
def test_signatures(name: str, parameters: str) -> None:
    found: Any = bert_padding
    for part in name.split("."):
        found = getattr(found, part)
    bare = [p.replace(annotation=p.empty) for p in inspect.signature(found).parameters.values()]
    assert ", ".join(map(str, bare)) == parameters
