"""torch.compile, export, opcheck, vmap, torch.func, autocast and double backward."""

# Argument lists are unpacked and results indexed in ways that mypy cannot follow.
# mypy: disable-error-code="arg-type,call-arg,union-attr,return-value,misc"

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from flash_attn import (
    flash_attn_func,
    flash_attn_qkvpacked_func,
    flash_attn_varlen_func,
    flash_attn_with_kvcache,
    use_backend,
)
from flash_attn.testing import cumulative


def _qkv(batch: int = 2, seqlen: int = 24, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    shapes = ((batch, seqlen, 4, 16), (batch, seqlen + 3, 2, 16), (batch, seqlen + 3, 2, 12))
    return tuple(torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes)


def _dense(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    sink = torch.linspace(-1, 1, q.shape[2])
    out, lse, _ = flash_attn_func(
        q, k, v, causal=True, window_size=(9, 0), softcap=4.0, learnable_sink=sink, return_attn_probs=True
    )
    return out, lse


def _varlen(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    ends = (cumulative((x.shape[1],) * x.shape[0]) for x in (q, k))
    packed = (x.flatten(0, 1) for x in (q, k, v))
    out, lse, _ = flash_attn_varlen_func(*packed, *ends, q.shape[1], k.shape[1], causal=True, return_attn_probs=True)
    return out, lse


def _gradients(f: Callable[..., tuple[Tensor, Tensor]], *inputs: Tensor) -> list[Tensor]:
    out, lse = f(*inputs)
    return [out, lse, *torch.autograd.grad((out, lse), inputs, (torch.ones_like(out), torch.ones_like(lse)))]


@pytest.mark.parametrize("function", [_dense, _varlen])
@pytest.mark.parametrize("dynamic", [False, True])
def test_compile_without_graph_breaks(function: Callable[..., tuple[Tensor, Tensor]], dynamic: bool) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for batch, seqlen in ((2, 24), (3, 40)):
        inputs = _qkv(batch, seqlen)
        for got, expected in zip(_gradients(compiled, *inputs), _gradients(function, *inputs), strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_inductor_compiles_a_module_around_it() -> None:
    torch._dynamo.reset()

    def block(x: Tensor, weight: Tensor) -> Tensor:
        return flash_attn_qkvpacked_func((x @ weight).unflatten(-1, (3, 2, 8)), causal=True).flatten(-2).relu()

    x, weight = torch.randn(2, 16, 16, requires_grad=True), torch.randn(16, 48, requires_grad=True)
    expected = block(x, weight)
    got = torch.compile(block, fullgraph=True)(x, weight)
    torch.testing.assert_close(got, expected)
    for one, other in zip(*(torch.autograd.grad(y.sum(), (x, weight)) for y in (got, expected)), strict=True):
        torch.testing.assert_close(one, other)


def test_dropout_compiles_and_its_mask_is_that_of_the_backward() -> None:
    torch._dynamo.reset()
    q, k, v = _qkv()

    def call(v: Tensor) -> Tensor:
        return flash_attn_func(q, k, v, dropout_p=0.5)

    for f in (call, torch.compile(call, fullgraph=True, backend="aot_eager")):
        out = f(v)
        # The output is linear in v, so its derivative along v is the output itself.
        (gradient,) = torch.autograd.grad(out, v, torch.ones_like(out))
        torch.testing.assert_close((gradient * v).sum(), out.sum())
        assert not torch.allclose(f(v), out), "every call draws a mask of its own"


def test_export() -> None:
    class Module(torch.nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return _dense(q, k, v)[0]

    inputs = tuple(x.detach() for x in _qkv())
    exported = torch.export.export(Module(), inputs)
    assert any("flash_attn.forward" in str(node.target) for node in exported.graph.nodes)
    torch.testing.assert_close(exported.module()(*inputs), Module()(*inputs), rtol=0, atol=0)


def test_kvcache_compiles_and_writes_in_place() -> None:
    torch._dynamo.reset()
    q, k, v = torch.randn(2, 1, 4, 16), torch.randn(2, 1, 2, 16), torch.randn(2, 1, 2, 16)
    lengths = torch.tensor([3, 7], dtype=torch.int32)

    def call(k_cache: Tensor, v_cache: Tensor) -> Tensor:
        return flash_attn_with_kvcache(q, k_cache, v_cache, k, v, cache_seqlens=lengths, causal=True)

    caches = [torch.randn(2, 32, 2, 16) for _ in range(2)]
    eager, traced = [c.clone() for c in caches], [c.clone() for c in caches]
    expected = call(*eager)
    got = torch.compile(call, fullgraph=True, backend="aot_eager")(*traced)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert torch.equal(eager[0], traced[0])
    assert torch.equal(eager[1][0, 3], v[0, 0])


def _request(*tensors: Tensor) -> tuple[object, ...]:
    return (*tensors, *[None] * 2, 0, 0, *[None] * 6, 0.0, None, True, -1, -1, 0.0, False, False, 0, True, "")


def test_opcheck() -> None:
    tensors = _qkv()
    forward, backward = torch.ops.flash_attn.forward.default, torch.ops.flash_attn.backward.default
    torch.library.opcheck(forward, _request(*tensors))
    out, lse, _ = forward(*_request(*(x.detach() for x in tensors)))
    given = (torch.ones_like(out), None, out, lse, *_request(*(x.detach() for x in tensors)))
    torch.library.opcheck(backward, given)
    caches = [torch.randn(2, 8, 2, 16) for _ in range(2)]
    rest = (*[None] * 11, True, -1, -1, 0.0, True, 0, "")
    torch.library.opcheck(torch.ops.flash_attn.with_kvcache.default, (torch.randn(2, 1, 4, 16), *caches, *rest))


def test_opcheck_of_upstream_names() -> None:
    q, k, v = _qkv()
    arguments = (0.0, 0.3, True, -1, -1, 0.0, None)
    forward = torch.ops.flash_attn._flash_attn_forward.default
    torch.library.opcheck(forward, (q, k, v, *arguments, False))
    with torch.no_grad():
        out, lse, _, _ = forward(q, k, v, *arguments, False)
        grads = [torch.empty_like(x) for x in (q, k, v)]
        torch.ops.flash_attn._flash_attn_backward(torch.ones_like(out), q, k, v, out, lse, *grads, *arguments, False)
    expected = torch.autograd.grad(flash_attn_func(q, k, v, softmax_scale=0.3, causal=True).sum(), (q, k, v))
    for one, other in zip(grads, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_vmap_and_func_grad() -> None:
    torch.manual_seed(0)
    q = torch.randn(3, 2, 5, 4, 8)
    k, v = torch.randn(2, 7, 2, 8), torch.randn(2, 7, 3, 2, 8)
    slopes = torch.rand(2, 4)

    def call(q: Tensor, v: Tensor) -> Tensor:
        return flash_attn_func(q, k, v, causal=True, alibi_slopes=slopes)

    def loss(q: Tensor, v: Tensor) -> Tensor:
        return call(q, v).square().sum()

    expected = torch.stack([call(q[i], v[:, :, i]) for i in range(3)])
    torch.testing.assert_close(torch.func.vmap(call, in_dims=(0, 2))(q, v), expected)
    grads = torch.func.vmap(torch.func.grad(loss), in_dims=(0, 2))(q, v)
    looped = torch.stack([torch.func.grad(loss)(q[i], v[:, :, i]) for i in range(3)])
    torch.testing.assert_close(grads, looped)
    leaf = q[0].clone().requires_grad_()
    torch.testing.assert_close(looped[0], torch.autograd.grad(loss(leaf, v[:, :, 0]), leaf)[0])


def test_vmap_refuses_what_it_cannot_fold() -> None:
    q = torch.randn(3, 8, 2, 8)
    ends = cumulative((8,))
    with pytest.raises(NotImplementedError, match="vmap"):
        torch.func.vmap(lambda q: flash_attn_varlen_func(q, q, q, ends, ends, 8, 8))(q)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_autocast_does_not_reach_inside(backend: str) -> None:
    q, k, v = _qkv()
    with use_backend(backend):
        expected = _gradients(_dense, q, k, v)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = _gradients(_dense, q, k, v)
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_double_backward_is_refused() -> None:
    q, k, v = _qkv()
    (gradient,) = torch.autograd.grad(flash_attn_func(q, k, v).sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match="double backward"):
        gradient.sum().backward()


def test_kvcache_refuses_backward() -> None:
    q, k, v = _qkv()
    out = flash_attn_with_kvcache(q, k.detach(), v.detach())
    with pytest.raises(NotImplementedError, match="flash_attn_with_kvcache has no backward"):
        out.sum().backward()


def test_backward_keeps_the_backend_of_its_forward() -> None:
    q, k, v = _qkv(dtype=torch.float64)
    with use_backend("reference"):
        out = flash_attn_func(q, k, v)
    assert out.grad_fn is not None
    assert out.grad_fn.scalars[-1] == "reference"
