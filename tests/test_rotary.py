"""Rotary embedding against complex multiplication in float64."""

from collections.abc import Callable

import pytest
import torch
from rotary_definition import F64, assert_equal_up_to_rounding, both_layouts, both_signs, expected, tables
from torch import Tensor

from flash_attn.layers.rotary import (
    apply_rotary_emb,
    apply_rotary_emb_kv_,
    apply_rotary_emb_qkv_,
    apply_rotary_emb_torch,
    rotate_half,
)
from flash_attn.ops.triton.rotary import apply_rotary
from flash_attn.rotary_embedding import dense_positions, packed_positions, rotate


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@both_layouts
@both_signs
@pytest.mark.parametrize("inplace", [False, True], ids=["new", "inplace"])
@pytest.mark.parametrize("offset", [0, 3, [0, 5, 2]], ids=str)
@pytest.mark.parametrize("rotary_dim", [2, 6, 10])
def test_apply_rotary(
    interleaved: bool, conjugate: bool, inplace: bool, offset: int | list[int], rotary_dim: int
) -> None:
    x = torch.randn(3, 4, 2, 10, dtype=F64)
    cos, sin = tables(9, rotary_dim)
    offsets = torch.tensor(offset, dtype=torch.int32) if isinstance(offset, list) else offset
    positions = torch.arange(4) + torch.as_tensor(offset).expand(3).unsqueeze(-1)
    want = expected(x, cos, sin, positions, interleaved, conjugate)
    given = x.clone()
    out = apply_rotary(given, cos, sin, offsets, None, None, interleaved, inplace, conjugate)
    assert_equal_up_to_rounding(out, want)
    assert (out is given) is inplace
    if not inplace:
        assert torch.equal(given, x)


@both_layouts
@pytest.mark.parametrize("inplace", [False, True], ids=["new", "inplace"])
@pytest.mark.parametrize("offsets", [2, [0, 1, 4, 2]], ids=str)
@pytest.mark.parametrize("tail", [0, 3], ids=["full", "tokens behind the last sequence"])
def test_varlen_is_a_loop_over_sequences(interleaved: bool, inplace: bool, offsets: int | list[int], tail: int) -> None:
    lengths = [3, 0, 5, 1]
    cu_seqlens = torch.tensor([0, 3, 3, 8, 9], dtype=torch.int32)
    x = torch.randn(9 + tail, 2, 8, dtype=F64)
    cos, sin = tables(10, 6)
    want = x.clone()
    for b, length in enumerate(lengths):
        start = int(cu_seqlens[b])
        positions = torch.arange(length) + (offsets[b] if isinstance(offsets, list) else offsets)
        want[start : start + length] = expected(x[start : start + length], cos, sin, positions, interleaved)
    given_offsets = torch.tensor(offsets) if isinstance(offsets, list) else offsets
    out = apply_rotary_emb(x, cos, sin, interleaved, inplace, given_offsets, cu_seqlens, 5)
    assert_equal_up_to_rounding(out, want)
    assert (out.data_ptr() == x.data_ptr()) is inplace


@both_layouts
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_rounds_once(interleaved: bool, dtype: torch.dtype) -> None:
    x = torch.randn(2, 16, 3, 32).to(dtype)
    cos, sin = tables(16, 32, dtype)
    out = apply_rotary(x, cos, sin, interleaved=interleaved)
    want = expected(x, cos, sin, torch.arange(16), interleaved)
    assert out.dtype == dtype
    # Half an ulp for the one rounding, and three float32 roundings of values below 2 max|x|.
    bound = want.abs() * torch.finfo(dtype).eps / 2 + 6 * x.abs().max().double() * torch.finfo(torch.float32).eps
    bound = bound + torch.finfo(dtype).smallest_normal
    assert bool(((out.double() - want).abs() <= bound).all())
    torch_out = apply_rotary_emb_torch(x, cos, sin, interleaved)
    assert torch.equal(torch_out, out)


def test_positions_broadcast() -> None:
    x = torch.randn(3, 4, 2, 6, dtype=F64)
    cos, sin = tables(7, 6)
    one_each = torch.tensor([[5], [0], [6]], dtype=torch.int32)
    assert_equal_up_to_rounding(rotate(x, cos, sin, one_each), expected(x, cos, sin, one_each.expand(3, 4)))


@both_layouts
def test_positions_outside_the_table_leave_rows_alone(interleaved: bool) -> None:
    x = torch.randn(5, 2, 6, dtype=F64)
    cos, sin = tables(4, 4)
    out = rotate(x, cos, sin, torch.tensor([-1, 3, 4, 2**31, -(2**31)]), interleaved=interleaved)
    assert torch.equal(out[[0, 2, 3, 4]], x[[0, 2, 3, 4]])
    assert_equal_up_to_rounding(out[1:2], expected(x[1:2], cos, sin, torch.tensor([3]), interleaved))


def test_position_helpers() -> None:
    device = torch.device("cpu")
    assert dense_positions(3, 4, device).tolist() == [4, 5, 6]
    assert dense_positions(2, torch.tensor([0, 7]), device).tolist() == [[0, 1], [7, 8]]
    cu_seqlens = torch.tensor([0, 2, 2, 5], dtype=torch.int32)
    assert packed_positions(7, cu_seqlens, 1).tolist() == [1, 2, 1, 2, 3, -1, -1]
    assert packed_positions(5, cu_seqlens, torch.tensor([4, 9, 6])).tolist() == [4, 5, 6, 7, 8]
    assert packed_positions(2, torch.tensor([0]), torch.zeros(0, dtype=torch.int64)).tolist() == [-1, -1]


def test_positions_and_rotation_run_on_meta_tensors() -> None:
    """A meta tensor has no values: whatever reads one on the host raises."""
    x = torch.empty(6, 2, 8, device="meta")
    cos = sin = torch.empty(9, 4, device="meta")
    cu_seqlens = torch.empty(3, dtype=torch.int32, device="meta")
    offsets = torch.empty(2, dtype=torch.int32, device="meta")
    assert apply_rotary(x, cos, sin, offsets, cu_seqlens, 5).shape == x.shape
    dense = x.unsqueeze(0).expand(2, 6, 2, 8)
    assert apply_rotary(dense, cos, sin, offsets).shape == (2, 6, 2, 8)


@both_layouts
@pytest.mark.parametrize("strided", ["transposed heads", "every second channel"])
def test_any_strides(interleaved: bool, strided: str) -> None:
    if strided == "transposed heads":
        x = torch.randn(2, 3, 4, 6, dtype=F64).transpose(1, 2)
    else:
        x = torch.randn(2, 4, 3, 12, dtype=F64)[..., ::2]
    cos, sin = (table.t().contiguous().t() for table in tables(4, 6))
    want = expected(x, cos, sin, torch.arange(4), interleaved)
    assert_equal_up_to_rounding(apply_rotary(x, cos, sin, interleaved=interleaved), want)
    assert_equal_up_to_rounding(apply_rotary(x, cos, sin, interleaved=interleaved, inplace=True), want)


@pytest.mark.parametrize("shape", [(0, 3, 2, 4), (2, 0, 2, 4), (2, 3, 0, 4)])
def test_empty(shape: tuple[int, ...]) -> None:
    cos, sin = tables(3, 4)
    assert apply_rotary_emb(torch.zeros(shape, dtype=F64), cos, sin).shape == shape
    assert apply_rotary(torch.zeros(2, 0, 2, 4, dtype=F64), cos[:0], sin[:0]).shape == (2, 0, 2, 4)


@both_layouts
@pytest.mark.parametrize("offset", [1, [3, 0]], ids=str)
@pytest.mark.parametrize("xpos", [False, True], ids=["one table", "k table"])
@pytest.mark.parametrize("heads", ["packed", "grouped", "multi-query"])
def test_qkv(interleaved: bool, offset: int | list[int], xpos: bool, heads: str) -> None:
    nheads, nheads_k = {"packed": (2, 2), "grouped": (4, 2), "multi-query": (3, 1)}[heads]
    q, k, v = (torch.randn(2, 4, h, 8, dtype=F64) for h in (nheads, nheads_k, nheads_k))
    cos, sin = tables(7, 6)
    cos_k, sin_k = tables(7, 6) if xpos else (cos, sin)
    positions = torch.arange(4) + torch.as_tensor(offset).expand(2).unsqueeze(-1)
    qkv = torch.stack([q, k, v], dim=2) if heads == "packed" else torch.cat([q, k, v], dim=2)
    want = [
        expected(q, cos, sin, positions, interleaved),
        expected(k, cos_k, sin_k, positions, interleaved),
        v,
    ]
    out = apply_rotary_emb_qkv_(
        qkv,
        cos,
        sin,
        cos_k if xpos else None,
        sin_k if xpos else None,
        interleaved,
        torch.tensor(offset) if isinstance(offset, list) else offset,
        None if heads == "packed" else nheads,
    )
    assert out.data_ptr() == qkv.data_ptr()
    assert torch.equal(out, qkv)
    assert_equal_up_to_rounding(out, torch.stack(want, dim=2) if heads == "packed" else torch.cat(want, dim=2))


@both_layouts
def test_kv(interleaved: bool) -> None:
    kv = torch.randn(2, 4, 2, 3, 8, dtype=F64)
    cos, sin = tables(7, 6)
    offsets = torch.tensor([3, 1])
    want = kv.clone()
    want[:, :, 0] = expected(kv[:, :, 0], cos, sin, torch.arange(4) + offsets.unsqueeze(-1), interleaved)
    out = apply_rotary_emb_kv_(kv, cos, sin, interleaved, offsets)
    assert out.data_ptr() == kv.data_ptr()
    assert_equal_up_to_rounding(kv, want)


COS, SIN = tables(9, 4)
COS_K, SIN_K = tables(9, 4)
CU = torch.tensor([0, 1, 4])
OFFSETS = torch.tensor([2, 5])
GRADIENTS: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "dense": (lambda x: apply_rotary_emb(x, COS, SIN), (2, 3, 2, 6)),
    "offsets": (lambda x: apply_rotary_emb(x, COS, SIN, True, seqlen_offsets=OFFSETS), (2, 3, 2, 6)),
    "int offset": (lambda x: apply_rotary_emb(x, COS, SIN, seqlen_offsets=4), (2, 3, 2, 6)),
    "inplace": (
        lambda x: apply_rotary_emb(x.clone(), COS, SIN, inplace=True, seqlen_offsets=1),
        (2, 3, 2, 6),
    ),
    "varlen": (lambda x: apply_rotary_emb(x, COS, SIN, False, False, OFFSETS, CU, 3), (5, 2, 6)),
    "qkv": (
        lambda x: apply_rotary_emb_qkv_(x.clone(), COS, SIN, COS_K, SIN_K, True, OFFSETS),
        (2, 2, 3, 2, 5),
    ),
    "gqa": (lambda x: apply_rotary_emb_qkv_(x.clone(), COS, SIN, num_heads_q=2), (2, 2, 4, 5)),
    "kv": (lambda x: apply_rotary_emb_kv_(x.clone(), COS, SIN, True, OFFSETS), (2, 2, 2, 2, 5)),
    "torch": (lambda x: apply_rotary_emb_torch(x, COS[:3], SIN[:3]), (2, 3, 2, 6)),
}


@pytest.mark.parametrize(("function", "shape"), GRADIENTS.values(), ids=GRADIENTS.keys())
def test_gradients(function: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)


@pytest.mark.parametrize("name", ["inplace", "qkv", "gqa", "kv"])
def test_a_shared_gradient_is_not_written(name: str) -> None:
    """The sum passes one gradient tensor to both terms: rotating it in place would corrupt the other's."""
    function, shape = GRADIENTS[name]
    x = torch.randn(shape, dtype=F64, requires_grad=True)
    other = torch.randn(shape, dtype=F64, requires_grad=True)
    given = torch.randn(shape, dtype=F64)
    kept = given.clone()
    torch.autograd.backward([function(x) + other], [given])
    assert torch.equal(given, kept)
    assert other.grad is not None
    assert torch.equal(other.grad, kept)


def test_inplace_on_a_leaf_that_needs_a_gradient() -> None:
    qkv = torch.randn(2, 3, 3, 2, 4, dtype=F64)
    leaf = qkv.clone().requires_grad_()
    out = apply_rotary_emb_qkv_(leaf, COS, SIN)
    torch.autograd.backward([out.sum()])
    assert leaf.grad is not None
    back = expected(torch.ones(2, 3, 2, 4), COS, SIN, torch.arange(3), conjugate=True)
    assert_equal_up_to_rounding(leaf.grad[:, :, 1], back)
    assert torch.equal(leaf.grad[:, :, 2], torch.ones(2, 3, 2, 4, dtype=F64))


@pytest.mark.parametrize("name", ["dense", "offsets", "varlen", "torch", "inplace", "qkv", "gqa", "kv"])
def test_compiles_without_a_graph_break(name: str) -> None:
    function, shape = GRADIENTS[name]
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    a = torch.randn(shape, dtype=F64, requires_grad=True)
    b = a.detach().clone().requires_grad_()
    weight = torch.randn(shape, dtype=F64)
    got, want = compiled(a), function(b)
    assert torch.equal(got, want)
    torch.autograd.backward([(got * weight).sum()])
    torch.autograd.backward([(want * weight).sum()])
    assert a.grad is not None
    assert b.grad is not None
    assert torch.equal(a.grad, b.grad)


@both_layouts
def test_rotate_half_and_the_torch_form(interleaved: bool) -> None:
    x = torch.randn(2, 3, 4, 6, dtype=F64)
    quarter = torch.zeros(3, 3, dtype=F64), torch.ones(3, 3, dtype=F64)
    assert_equal_up_to_rounding(rotate_half(x, interleaved), expected(x, *quarter, torch.arange(3), interleaved))
    cos, sin = tables(3, 4)
    want = expected(x, cos, sin, torch.arange(3), interleaved)
    assert_equal_up_to_rounding(apply_rotary_emb_torch(x, cos, sin, interleaved), want)
    per_batch = apply_rotary_emb_torch(x, torch.stack([cos, sin]), torch.stack([sin, cos]), interleaved)
    assert_equal_up_to_rounding(per_batch[0], want[0])
    assert_equal_up_to_rounding(per_batch[1], expected(x, sin, cos, torch.arange(3), interleaved)[1])
    assert apply_rotary_emb_torch(x.to(torch.bfloat16), cos.float(), sin.float()).dtype == torch.float32
