"""Rotary embedding against complex multiplication in float64."""

import inspect
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from flash_attn.layers import rotary
from flash_attn.layers.rotary import (
    RotaryEmbedding,
    apply_rotary_emb,
    apply_rotary_emb_kv_,
    apply_rotary_emb_qkv_,
    apply_rotary_emb_torch,
    rotate_half,
)
from flash_attn.ops.triton.rotary import apply_rotary
from flash_attn.rotary_embedding import dense_positions, packed_positions, rotate

F64 = torch.float64
both_layouts = pytest.mark.parametrize("interleaved", [False, True], ids=["halves", "interleaved"])
both_signs = pytest.mark.parametrize("conjugate", [False, True], ids=["forth", "back"])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def tables(rows: int, rotary_dim: int, dtype: torch.dtype = F64) -> tuple[Tensor, Tensor]:
    """Angles that differ in every entry, so that no mix-up of rows or columns goes unseen."""
    angles = torch.rand(rows, rotary_dim // 2, dtype=F64) * 6.28
    return angles.cos().to(dtype), angles.sin().to(dtype)


def expected(
    x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, interleaved: bool = False, conjugate: bool = False
) -> Tensor:
    """x (..., nheads, head_dim) times cos + i sin of each row's position, in complex128."""
    turn = torch.complex(cos.double(), sin.double())[positions].unsqueeze(-2)
    x = x.double()
    rotary_dim = 2 * cos.shape[-1]
    used, rest = x[..., :rotary_dim], x[..., rotary_dim:]
    layout = (*used.shape[:-1], rotary_dim // 2, 2) if interleaved else (*used.shape[:-1], 2, rotary_dim // 2)
    pairs = used.reshape(layout) if interleaved else used.reshape(layout).transpose(-1, -2)
    product = torch.complex(pairs[..., 0], pairs[..., 1]) * (turn.conj() if conjugate else turn)
    turned = torch.stack([product.real, product.imag], dim=-1)
    turned = turned if interleaved else turned.transpose(-1, -2)
    return torch.cat([turned.flatten(-2), rest], dim=-1)


def assert_equal_up_to_rounding(got: Tensor, want: Tensor) -> None:
    """float64 sums of two products below 6 in size: a few units of 2**-53 each."""
    torch.testing.assert_close(got.double(), want, rtol=0, atol=1e-13)


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


def embedding_tables(dim: int, seqlen: int) -> tuple[Tensor, Tensor]:
    angles = torch.arange(seqlen, dtype=F64)[:, None] / 100.0 ** (torch.arange(0, dim, 2, dtype=F64) / dim)
    return angles.cos(), angles.sin()


@both_layouts
@pytest.mark.parametrize("scale_base", [None, 16], ids=["plain", "xpos"])
def test_rotary_embedding(interleaved: bool, scale_base: int | None) -> None:
    module = RotaryEmbedding(4, base=100.0, interleaved=interleaved, scale_base=scale_base)
    qkv = torch.randn(2, 5, 3, 2, 6)
    cos, sin = embedding_tables(4, 8)
    decay = torch.ones(8, 1, dtype=F64)
    if scale_base is not None:
        base = (torch.arange(0, 4, 2, dtype=F64) + 1.6) / 5.6
        decay = base ** ((torch.arange(8, dtype=F64) - 4) / 16)[:, None]
    positions = torch.arange(5) + 3
    q = expected(qkv[:, :, 0], cos * decay, sin * decay, positions, interleaved)
    k = expected(qkv[:, :, 1], cos / decay, sin / decay, positions, interleaved)
    # float32 angles below 8 and a handful of float32 operations on values below 16.
    atol = 16 * 8 * torch.finfo(torch.float32).eps
    packed = module(qkv.clone(), seqlen_offset=3)
    torch.testing.assert_close(packed.double(), torch.stack([q, k, qkv[:, :, 2].double()], dim=2), rtol=0, atol=atol)
    given_q, given_kv = qkv[:, :, 0].clone(), qkv[:, :, 1:].clone()
    out_q, out_kv = module(given_q, given_kv, seqlen_offset=torch.tensor([3, 3]), max_seqlen=8)
    torch.testing.assert_close(out_q.double(), q, rtol=0, atol=atol)
    torch.testing.assert_close(out_kv[:, :, 0].double(), k, rtol=0, atol=atol)
    assert torch.equal(out_kv[:, :, 1], qkv[:, :, 2])
    assert (out_q.data_ptr(), out_kv.data_ptr()) == (given_q.data_ptr(), given_kv.data_ptr())
    grouped = module(qkv.flatten(2, 3), seqlen_offset=3, num_heads_q=2)
    torch.testing.assert_close(grouped[:, :, :2].double(), q, rtol=0, atol=atol)
    torch.testing.assert_close(grouped[:, :, 2:4].double(), k, rtol=0, atol=atol)


def test_rotary_embedding_cache() -> None:
    module = RotaryEmbedding(4)
    assert (module._seq_len_cached, module._cos_cached, module._cos_k_cached) == (0, None, None)
    assert module.inv_freq.shape == (2,)
    assert module.scale is None
    assert module.state_dict() == {}
    module(torch.zeros(1, 6, 3, 1, 4))
    table = module._cos_cached
    module(torch.zeros(1, 3, 3, 1, 4), seqlen_offset=2)
    assert module._cos_cached is table
    assert module._seq_len_cached == 6
    module(torch.zeros(1, 7, 3, 1, 4))
    assert module._seq_len_cached == 7
    module(torch.zeros(1, 7, 3, 1, 4, dtype=torch.bfloat16))
    assert module._sin_cached is not None
    assert module._sin_cached.dtype == torch.bfloat16


def test_half_precision_module_keeps_float32_angles() -> None:
    module, exact = RotaryEmbedding(8, scale_base=512), RotaryEmbedding(8, scale_base=512)
    module.half()
    module._update_cos_sin_cache(3000, torch.device("cpu"), torch.float16)
    exact._update_cos_sin_cache(3000, torch.device("cpu"), torch.float16)
    assert module.inv_freq.dtype == torch.float16
    for name in ("_cos_cached", "_sin_cached", "_cos_k_cached", "_sin_k_cached"):
        assert torch.equal(getattr(module, name), getattr(exact, name))


@pytest.mark.parametrize("training", [True, False])
def test_tables_made_in_inference_mode_serve_training(training: bool) -> None:
    module = RotaryEmbedding(4).train(training)
    with torch.inference_mode():
        module(torch.zeros(1, 5, 3, 1, 4))
    qkv = torch.randn(1, 5, 3, 1, 4, requires_grad=True)
    torch.autograd.backward([module(qkv * 1).sum()])
    assert qkv.grad is not None


X = torch.zeros(2, 3, 2, 8)
P = torch.zeros(5, 2, 8)
C = torch.zeros(6, 4)
QKV = torch.zeros(2, 3, 3, 2, 8)
LONG = torch.int64
ERRORS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: apply_rotary_emb(P, C, C), ValueError, "x has shape"),
    (lambda: apply_rotary_emb(X, C, C, cu_seqlens=CU, max_seqlen=3), ValueError, "x has shape"),
    (lambda: apply_rotary_emb(X.int(), C, C), TypeError, "x has dtype"),
    (lambda: apply_rotary_emb(X, C[None], C[None]), ValueError, "cos has shape"),
    (lambda: apply_rotary_emb(X, C, C[:5]), ValueError, "sin has shape"),
    (lambda: apply_rotary_emb(X, C.half(), C.half()), TypeError, "cos has dtype"),
    (lambda: apply_rotary_emb(X, C, C.double()), TypeError, "sin has dtype"),
    (lambda: apply_rotary_emb(X, C.to("meta"), C), ValueError, "cos is on meta"),
    (lambda: apply_rotary_emb(X, torch.zeros(6, 5), torch.zeros(6, 5)), ValueError, "rotary_dim of 10"),
    (lambda: apply_rotary_emb(X, C[:2], C[:2]), ValueError, "cos has 2 rows"),
    (lambda: apply_rotary_emb(X, C, C, seqlen_offsets=4), ValueError, "need at least 7"),
    (lambda: apply_rotary_emb(X, C, C, seqlen_offsets=-1), ValueError, "seqlen_offsets is -1"),
    (lambda: apply_rotary_emb(X, C, C, seqlen_offsets=1.5), TypeError, "seqlen_offsets is 1.5"),  # type: ignore[arg-type]
    (
        lambda: apply_rotary_emb(X, C, C, seqlen_offsets=torch.zeros(3, dtype=LONG)),
        ValueError,
        r"accepted is \(2,\)",
    ),
    (lambda: apply_rotary_emb(X, C, C, seqlen_offsets=torch.zeros(2)), TypeError, "seqlen_offsets has dtype"),
    (lambda: apply_rotary_emb(X, C, C, seqlen_offsets=torch.tensor([0, 4])), ValueError, "need at least 7"),
    (
        lambda: apply_rotary_emb(X, C, C, seqlen_offsets=torch.tensor([0, -1])),
        ValueError,
        "values of 0 or more",
    ),
    (lambda: apply_rotary_emb(P, C, C, cu_seqlens=CU), TypeError, "max_seqlen is None"),
    (lambda: apply_rotary_emb(P, C, C, cu_seqlens=CU, max_seqlen=2), ValueError, "longest sequence"),
    (lambda: apply_rotary_emb(P, C, C, cu_seqlens=CU, max_seqlen=7), ValueError, "cos has 6 rows"),
    (
        lambda: apply_rotary_emb(P, C, C, cu_seqlens=CU.float(), max_seqlen=3),
        TypeError,
        "cu_seqlens has dtype",
    ),
    (
        lambda: apply_rotary_emb(P, C, C, cu_seqlens=CU[None], max_seqlen=3),
        ValueError,
        "cu_seqlens has shape",
    ),
    (lambda: apply_rotary_emb(P, C, C, cu_seqlens=CU[:0], max_seqlen=3), ValueError, "cu_seqlens is empty"),
    (lambda: apply_rotary_emb(P, C, C, cu_seqlens=CU + 1, max_seqlen=3), ValueError, "start at 0"),
    (lambda: apply_rotary_emb(P, C, C, cu_seqlens=2 * CU, max_seqlen=6), ValueError, "start at 0"),
    (
        lambda: apply_rotary_emb(P, C, C, cu_seqlens=torch.tensor([0, 3, 2]), max_seqlen=3),
        ValueError,
        "not decrease",
    ),
    (lambda: rotate(X, C[:0], C[:0], torch.arange(3)), ValueError, "cos has shape"),
    (lambda: apply_rotary_emb_qkv_(QKV[:, :, :2], C, C), ValueError, "qkv has shape"),
    (lambda: apply_rotary_emb_qkv_(P, C, C), ValueError, "qkv has shape"),
    (lambda: apply_rotary_emb_qkv_(X, C, C), ValueError, "num_heads_q is None"),
    (lambda: apply_rotary_emb_qkv_(X, C, C, num_heads_q=1), ValueError, "num_heads_q is 1"),
    (lambda: apply_rotary_emb_qkv_(X, C, C, num_heads_q=4), ValueError, "num_heads_q is 4"),
    (lambda: apply_rotary_emb_qkv_(QKV, C, C, C), ValueError, "cos_k and sin_k"),
    (lambda: apply_rotary_emb_kv_(QKV, C, C), ValueError, "kv has shape"),
    (lambda: apply_rotary_emb_torch(X, torch.zeros(3, 5), torch.zeros(3, 5)), ValueError, "rotary_dim of 10"),
    (lambda: apply_rotary_emb_torch(X, C[:3], C[:2]), ValueError, "sin has shape"),
    (lambda: RotaryEmbedding(5), ValueError, "dim is 5"),
    (lambda: RotaryEmbedding(4)(QKV, seqlen_offset=OFFSETS), ValueError, "max_seqlen is None"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_errors(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_rejected_qkv_is_left_as_it_was() -> None:
    qkv = torch.randn(1, 3, 3, 2, 4)
    kept = qkv.clone()
    cos, sin = tables(4, 4, torch.float32)
    with pytest.raises(ValueError, match="sin has shape"):
        apply_rotary_emb_qkv_(qkv, cos, sin, cos, sin[:3])
    assert torch.equal(qkv, kept)


def test_importing_does_not_import_triton() -> None:
    code = (
        "import sys, torch; before = 'triton' in sys.modules\n"
        "import flash_attn.layers.rotary, flash_attn.ops.triton.rotary\n"
        "sys.exit('triton' in sys.modules and not before)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


TAIL = "interleaved=False, inplace=False, seqlen_offsets=0, cu_seqlens=None, max_seqlen=None"
QKV_TAIL = "cos_k=None, sin_k=None, interleaved=False, seqlen_offsets=0, num_heads_q=None"
SIGNATURES = {
    "rotate_half": "x, interleaved=False",
    "apply_rotary_emb_torch": "x, cos, sin, interleaved=False",
    "ApplyRotaryEmb.forward": f"ctx, x, cos, sin, {TAIL}",
    "ApplyRotaryEmb.backward": "ctx, do",
    "apply_rotary_emb": f"x, cos, sin, {TAIL}",
    "apply_rotary_emb_func": f"x, cos, sin, {TAIL}",
    "ApplyRotaryEmbQKV_.forward": f"ctx, qkv, cos, sin, {QKV_TAIL}",
    "ApplyRotaryEmbQKV_.backward": "ctx, dqkv",
    "apply_rotary_emb_qkv_": f"qkv, cos, sin, {QKV_TAIL}",
    "ApplyRotaryEmbKV_.forward": "ctx, kv, cos, sin, interleaved=False, seqlen_offsets=0",
    "ApplyRotaryEmbKV_.backward": "ctx, dkv",
    "apply_rotary_emb_kv_": "kv, cos, sin, interleaved=False, seqlen_offsets=0",
    "RotaryEmbedding.__init__": "self, dim, base=10000.0, interleaved=False, scale_base=None, device=None",
    "RotaryEmbedding._compute_inv_freq": "self, device=None",
    "RotaryEmbedding._update_cos_sin_cache": "self, seqlen, device=None, dtype=None",
    "RotaryEmbedding.forward": "self, qkv, kv=None, seqlen_offset=0, max_seqlen=None, num_heads_q=None",
    "apply_rotary": "x, cos, sin, seqlen_offsets=0, cu_seqlens=None, max_seqlen=None, interleaved=False, "
    "inplace=False, conjugate=False",
}


@pytest.mark.parametrize(("name", "parameters"), SIGNATURES.items())
def test_signatures(name: str, parameters: str) -> None:
    found: object = rotary
    for part in name.split("."):
        found = getattr(found, part)
    bare = [p.replace(annotation=p.empty) for p in inspect.signature(found).parameters.values()]  # type: ignore[arg-type]
    assert ", ".join(map(str, bare)) == parameters
