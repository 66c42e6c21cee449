"""The FlashAttention-3 functions: what they add, against FlashAttention-2 calls and definitions of a few lines."""

# Results are indexed in ways that mypy cannot follow.
# mypy: disable-error-code="arg-type,call-arg,misc,operator,return-value,union-attr"

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import flash_attn
from flash_attn import flash_attn_3_interface as v3
from flash_attn import use_backend
from flash_attn.compatibility_v3 import _flash_attn_backward, _flash_attn_forward
from flash_attn.testing import cumulative

BACKENDS = ("cpu", "reference")
F8 = torch.float8_e4m3fn


def _normal(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def _ints(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def _masked(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, scale: float) -> Tensor:
    """Attention of ``(seqlen, nheads, head_dim)`` under a mask, row by row; rows that see nothing are 0."""
    scores = torch.einsum("ihd,jhd->hij", q, k) * scale
    probs = scores.masked_fill(~visible, float("-inf")).softmax(-1).nan_to_num(0.0)
    return torch.einsum("hij,jhd->ihd", probs, v)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("seqlen_q", "seqlen_k"), [(9, 9), (5, 14), (14, 5)])
@pytest.mark.parametrize("causal", [False, True])
def test_chunks_are_counted_from_the_first_key(seqlen_q: int, seqlen_k: int, causal: bool, backend: str) -> None:
    q, k, v = _normal(1, seqlen_q, 2, 8), _normal(1, seqlen_k, 2, 8, seed=1), _normal(1, seqlen_k, 2, 8, seed=2)
    visible = torch.zeros(seqlen_q, seqlen_k, dtype=torch.bool)
    for i in range(seqlen_q):
        position = i + seqlen_k - seqlen_q
        for j in range(seqlen_k):
            visible[i, j] = position // 4 == j // 4 and (j <= position or not causal)
    with use_backend(backend):
        out = v3.flash_attn_func(q, k, v, causal=causal, attention_chunk=4)
    torch.testing.assert_close(out[0], _masked(q[0], k[0], v[0], visible, 8**-0.5))


@pytest.mark.parametrize("backend", BACKENDS)
def test_qv_adds_scores_and_has_gradients(backend: str) -> None:
    def loss(q: Tensor, k: Tensor, v: Tensor, qv: Tensor) -> Tensor:
        scores = torch.einsum("bihd,bjhd->bhij", q, k) + torch.einsum("bihd,bjhd->bhij", qv, v)
        return torch.einsum("bhij,bjhd->bihd", (scores * (8 + 12) ** -0.5).softmax(-1), v)

    q, k, v, qv = (_normal(2, 6, 3, d, seed=d + i).requires_grad_() for i, d in enumerate((8, 8, 12, 12)))
    with use_backend(backend):
        out = v3.flash_attn_func(q, k, v, qv=qv)
        with torch.no_grad():
            lazily = v3.flash_attn_func(q, k, v, qv=qv)
        grads = torch.autograd.grad(out.square().sum(), (q, k, v, qv))
    expected = loss(q, k, v, qv)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(lazily, expected)
    for got, right in zip(grads, torch.autograd.grad(expected.square().sum(), (q, k, v, qv)), strict=True):
        torch.testing.assert_close(got, right)


@pytest.mark.parametrize("backend", BACKENDS)
def test_seqused_q_takes_the_first_queries(backend: str) -> None:
    q, k, v = _normal(9, 2, 8), _normal(11, 2, 8, seed=1), _normal(11, 2, 8, seed=2)
    q.requires_grad_()
    ends_q, ends_k, used = cumulative((5, 4)), cumulative((6, 5)), (3, 0)
    with use_backend(backend):
        out, lse = v3.flash_attn_varlen_func(
            q, k, v, ends_q, ends_k, 5, 6, seqused_q=_ints(*used), causal=True, return_attn_probs=True
        )
        (dq,) = torch.autograd.grad(out.sum(), q)
        expected = v3.flash_attn_func(q[None, :3], k[None, :6], v[None, :6], causal=True)[0]
    torch.testing.assert_close(out[:3], expected)
    assert not out[3:].any()
    assert (lse[:, 3:] == float("-inf")).all()
    assert not dq[3:].any()
    assert dq[:3].any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("page_size", [0, 1, 3, 16])
def test_ragged_decoding_equals_one_sequence_at_a_time(page_size: int, backend: str) -> None:
    lengths, queries, new, capacity = (7, 0, 20), (2, 3, 0), (1, 3, 0), 24
    cos, sin = _normal(64, 4, seed=5).cos(), _normal(64, 4, seed=5).sin()
    table, shape = None, (3, capacity)
    if page_size:
        pages = -(-capacity // page_size)
        table = torch.randperm(3 * pages, generator=torch.Generator().manual_seed(0)).to(torch.int32).view(3, pages)
        shape = (3 * pages, page_size)
    k_cache, v_cache = _normal(*shape, 2, 8, seed=1), _normal(*shape, 2, 6, seed=2)
    q, k, v = _normal(sum(queries), 4, 8, seed=3), _normal(sum(new), 2, 8, seed=4), _normal(sum(new), 2, 6, seed=6)
    expected_k, expected_v = k_cache.clone(), v_cache.clone()
    options: dict[str, Any] = {"causal": True, "rotary_cos": cos, "rotary_sin": sin, "return_softmax_lse": True}
    rotary = _ints(17, 10, 30)
    with use_backend(backend):
        out, lse = v3.flash_attn_with_kvcache(
            q,
            k_cache,
            v_cache,
            k,
            v,
            cache_seqlens=_ints(*lengths),
            page_table=table,
            cu_seqlens_q=cumulative(queries),
            cu_seqlens_k_new=cumulative(new),
            rotary_seqlens=rotary,
            **options,
        )
        for b in range(3):
            rows = slice(sum(queries[:b]), sum(queries[: b + 1]))
            added = slice(sum(new[:b]), sum(new[: b + 1]))
            one, one_lse = v3.flash_attn_with_kvcache(
                q[None, rows],
                expected_k,
                expected_v,
                k[None, added],
                v[None, added],
                cache_seqlens=lengths[b],
                page_table=None if table is None else table[b : b + 1],
                cache_batch_idx=_ints(b) if table is None else None,
                rotary_seqlens=rotary[b : b + 1],
                **options,
            )
            torch.testing.assert_close(out[rows], one[0])
            torch.testing.assert_close(lse[:, rows], one_lse[0])
    assert torch.equal(k_cache, expected_k)
    assert torch.equal(v_cache, expected_v)


def test_rotary_seqlens_moves_the_rotation_alone() -> None:
    q, k, v = _normal(2, 1, 2, 8), _normal(2, 1, 2, 8, seed=1), _normal(2, 1, 2, 8, seed=2)
    cos, sin = _normal(32, 4, seed=3).cos(), _normal(32, 4, seed=3).sin()
    caches = [_normal(2, 8, 2, 8, seed=4) for _ in range(4)]
    lengths = _ints(3, 5)
    plain = v3.flash_attn_with_kvcache(
        q, *caches[:2], k, v, rotary_cos=cos[4:], rotary_sin=sin[4:], cache_seqlens=lengths, causal=True
    )
    moved = v3.flash_attn_with_kvcache(
        q,
        *caches[2:],
        k,
        v,
        rotary_cos=cos,
        rotary_sin=sin,
        cache_seqlens=lengths,
        rotary_seqlens=lengths + 4,
        causal=True,
    )
    assert torch.equal(plain, moved)
    assert torch.equal(caches[0], caches[2])


def test_hints_change_nothing() -> None:
    q, k, v = (_normal(2, 5, 2, 8, seed=i) for i in range(3))
    expected = v3.flash_attn_func(q, k, v)
    for num_splits in (0, 1, 3):
        for pack_gqa in (None, False, True):
            hints: dict[str, Any] = {"num_splits": num_splits, "pack_gqa": pack_gqa, "sm_margin": 4}
            assert torch.equal(v3.flash_attn_func(q, k, v, **hints), expected)
    lengths = _ints(3, 5)
    plan = v3.get_scheduler_metadata(2, 5, 5, 2, 2, 8, lengths, causal=True)
    assert plan.dtype == torch.int32
    cached = v3.flash_attn_with_kvcache(q, k, v, cache_seqlens=lengths)
    assert torch.equal(v3.flash_attn_with_kvcache(q, k, v, cache_seqlens=lengths, scheduler_metadata=plan), cached)


def test_packed_heads_of_grouped_queries() -> None:
    q, k, v = _normal(2, 5, 4, 8), _normal(2, 5, 2, 8, seed=1), _normal(2, 5, 2, 8, seed=2)
    expected = v3.flash_attn_func(q, k, v, causal=True)
    packed = v3.flash_attn_qkvpacked_func(torch.cat([q, k, v], 2), causal=True, num_heads_q=4)
    assert torch.equal(packed, expected)
    stacked = v3.flash_attn_qkvpacked_func(torch.stack([k, k, v], 2))
    assert torch.equal(stacked, v3.flash_attn_func(k, k, v))


def test_the_same_gradients_as_the_second_interface() -> None:
    tensors = [_normal(2, 5, 2, 8, seed=i, dtype=torch.float32).requires_grad_() for i in range(3)]
    ours, theirs = (
        f(*tensors, causal=True, window_size=(2, 0)) for f in (v3.flash_attn_func, flash_attn.flash_attn_func)
    )
    assert torch.equal(ours, theirs)
    for one, other in zip(*(torch.autograd.grad(x.sum(), tensors) for x in (ours, theirs)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_combine_is_the_whole_attention(dtype: torch.dtype) -> None:
    q, k, v = (_normal(2, n, 3, 8, seed=n) for n in (5, 12, 13))
    v = v[:, :12]
    bounds = ((0, 5), (5, 5), (5, 12))  # the second part has no key
    parts = [v3.flash_attn_func(q, k[:, a:b], v[:, a:b], return_attn_probs=True) for a, b in bounds]
    out_partial = torch.stack([out for out, _ in parts]).to(dtype)
    out_partial[1] = float("nan")
    lse_partial = torch.stack([lse for _, lse in parts]).transpose(-1, -2)
    out, lse = v3.flash_attn_combine(out_partial, lse_partial)
    whole, whole_lse = v3.flash_attn_func(q, k, v, return_attn_probs=True)
    # fp32 log-sum-exps carry the weights: a few roundings of those, and one of each partial output and of the result.
    eps = 4 * torch.finfo(torch.float32).eps * 4 + 2 * torch.finfo(dtype).eps
    torch.testing.assert_close(out.double(), whole, rtol=0, atol=eps * float(v.abs().max()))
    torch.testing.assert_close(lse.transpose(-1, -2), whole_lse)
    assert out.dtype == dtype
    target = torch.empty(out.shape, dtype=torch.bfloat16)
    assert v3.flash_attn_combine(out_partial, lse_partial, target)[0] is target
    assert v3.flash_attn_combine(out_partial, lse_partial, out_dtype=torch.float16)[0].dtype == torch.float16


def test_combine_of_nothing_is_nothing() -> None:
    out, lse = v3.flash_attn_combine(torch.full((2, 1, 3, 1, 4), float("nan")), torch.full((2, 1, 3, 1), -torch.inf))
    assert not out.any()
    assert (lse == -torch.inf).all()


def test_private_functions() -> None:
    q, k, v = (_normal(2, 5, 2, 8, seed=i, dtype=torch.float32) for i in range(3))
    out, lse, *rest = _flash_attn_forward(q, k, v, causal=True)
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    expected = v3.flash_attn_func(*leaves, causal=True)
    assert torch.equal(out, expected)
    assert [x.numel() for x in rest] == [0, 0]
    grads = [torch.empty_like(x) for x in (q, k, v)]
    _flash_attn_backward(torch.ones_like(out), q, k, v, out, lse, dq=grads[0], dk=grads[1], dv=grads[2], is_causal=True)
    for got, right in zip(grads, torch.autograd.grad(expected.sum(), leaves), strict=True):
        torch.testing.assert_close(got, right)
    lengths = _ints(3, 5)
    cached = _flash_attn_forward(q, k, v, seqused_k=lengths)[0]
    assert torch.equal(cached, v3.flash_attn_with_kvcache(q, k, v, cache_seqlens=lengths))
    buffer = torch.empty_like(out)
    assert _flash_attn_forward(q, k, v, out_=buffer, causal=True)[0] is buffer
    assert torch.equal(buffer, out)


def test_compiles() -> None:
    torch._dynamo.reset()
    q, k, v, qv = (_normal(2, 6, 2, d, seed=i, dtype=torch.float32) for i, d in enumerate((8, 8, 8, 8)))
    scale = torch.full((2, 2), 0.5)

    def call(q: Tensor) -> Tensor:
        plain = v3.flash_attn_func(q, k, v, attention_chunk=4, causal=True)
        latent = v3.flash_attn_func(q, k, v, qv=qv, attention_chunk=4, causal=True)
        return plain + latent

    def fp8(q: Tensor, cache: Tensor) -> Tensor:
        dense = v3.flash_attn_func(q.to(F8), k.to(F8), v.to(F8), q_descale=scale)
        return dense + v3.flash_attn_with_kvcache(q, cache, cache, k, v, cache_seqlens=_ints(1, 2), k_descale=scale)

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    for leaf in (q, q.clone().requires_grad_()):
        torch.testing.assert_close(compiled(leaf), call(leaf), rtol=0, atol=0)
    caches = [_normal(2, 9, 2, 8, seed=9).to(F8) for _ in range(2)]
    expected = fp8(q, caches[0])
    got = torch.compile(fp8, fullgraph=True, backend="aot_eager")(q, caches[1])
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert torch.equal(caches[0].float(), caches[1].float())


def test_opcheck() -> None:
    q, k, v, qv = (_normal(2, 6, 2, 8, seed=i, dtype=torch.float32) for i in range(4))
    request = (*[None] * 2, 0, 0, *[None] * 6, 0.0, None, True, -1, -1, 0.0, False, False, 0)
    forward = torch.ops.flash_attn.forward_extended.default
    used = _ints(3, 6)
    torch.library.opcheck(forward, (q, k, v, *request, False, "", None, None, None, qv, used, 4))
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    torch.library.opcheck(forward, (*leaves, *request, True, "", None, None, None, None, used, 4))
    scale = torch.rand(2, 2)
    for dtype, tests in ((torch.float32, "test_schema"), (torch.float32, "test_faketensor"), (F8, "test_faketensor")):
        tensors = [x.to(dtype) for x in (q, k, v)]  # PyTorch's own check of a schema cannot multiply fp8
        torch.library.opcheck(forward, (*tensors, *request, False, "", scale, scale, scale), test_utils=tests)


def test_the_main_distribution_leaves_the_top_level_names_alone() -> None:
    from build_tools.distribution import setup_arguments
    from build_tools.settings import Settings

    arguments = setup_arguments(Path(flash_attn.__file__).parents[1], Settings.from_environment())
    shipped = {name.split(".")[0] for name in (*arguments["packages"], *arguments["py_modules"])}
    assert shipped == {"flash_attn", "flash_attn_2_cuda"}
