"""Cases, their tensors, and comparison with the oracle; for tests, benchmarks and ``python -m flash_attn check``.

A result passes when its largest error against the oracle in float64 is at most twice that of plain PyTorch
attention in the same dtype, plus a few roundings of the largest value (:class:`Bound`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends.base import AttentionInputs, DecodeInputs, ForwardResult
from flash_attn.backends.reference import ReferenceBackend
from flash_attn.custom_ops import attention, decode
from flash_attn.validation import attention_request, decode_request


@dataclass(frozen=True)
class Bound:
    """How far a result of ``dtype`` may be from the oracle.

    Beside twice the error of plain PyTorch, a result may differ by a rounding of its scores, probabilities,
    denominator and output, each of one unit in the last place of the largest value. In float64 the oracle is
    no more exact than what it judges: there every one of the ``terms`` that are added up may round differently.
    """

    dtype: torch.dtype
    terms: int

    def allowed(self, exact: Tensor, plain: Tensor, scale: float = 1.0) -> float:
        """The largest error that passes; ``scale`` is a magnitude at which results were rounded on the way."""
        finite = exact[exact.isfinite()]
        largest = float(finite.abs().max()) if finite.numel() else 0.0
        error = _error(plain, exact)
        baseline = float(error.max()) if error.numel() else 0.0
        roundings = 4 + (self.terms if self.dtype == torch.float64 else 0)
        return 2 * baseline + roundings * torch.finfo(self.dtype).eps * max(largest, scale, 1.0)


@dataclass(frozen=True)
class AttentionCase:
    """One forward and backward call. Dense layouts need equal lengths in ``seqlens_q`` and in ``seqlens_k``."""

    seqlens_q: tuple[int, ...] = (33, 33)
    seqlens_k: tuple[int, ...] = (47, 47)
    nheads_q: int = 4
    nheads_k: int = 4
    head_dim: int = 32
    head_dim_v: int = 32
    dtype: torch.dtype = torch.float32
    varlen: bool = False
    page_size: int = 0
    causal: bool = False
    window_size: tuple[int, int] = (-1, -1)
    softcap: float = 0.0
    softmax_scale: float | None = None
    dropout_p: float = 0.0
    alibi_dims: int = 0
    sink: bool = False
    seqused: bool = False
    leftpad: bool = False
    deterministic: bool = False
    num_splits: int = 0
    backward: bool = True
    seed: int = 0


@dataclass(frozen=True)
class DecodeCase:
    """One call of ``flash_attn_with_kvcache`` over caches that hold ``cache_seqlens`` tokens."""

    cache_seqlens: tuple[int, ...] = (17, 40)
    seqlen_q: int = 1
    seqlen_new: int = 0
    capacity: int = 48
    nheads_q: int = 4
    nheads_k: int = 2
    head_dim: int = 32
    head_dim_v: int = 32
    dtype: torch.dtype = torch.float32
    page_size: int = 0
    causal: bool = True
    window_size: tuple[int, int] = (-1, -1)
    softcap: float = 0.0
    alibi_dims: int = 0
    sink: bool = False
    leftpad: bool = False
    batch_idx: bool = False
    rotary_dim: int = 0
    rotary_interleaved: bool = True
    num_splits: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Comparison:
    """Largest error of one result against the oracle, and what is allowed."""

    name: str
    error: float
    allowed: float
    where: tuple[int, ...]

    @property
    def passed(self) -> bool:
        """Whether the error is allowed; a NaN or a misplaced infinity never is."""
        return self.error <= self.allowed


def make_attention(case: AttentionCase, device: torch.device | str = "cpu") -> tuple[AttentionSpec, AttentionInputs]:
    """Validated random inputs of ``case``, reproducible by its seed."""
    generator = torch.Generator().manual_seed(case.seed)
    batch = len(case.seqlens_q)

    def normal(*shape: int, dtype: torch.dtype = case.dtype) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).to(device)

    def below(limits: tuple[int, ...]) -> Tensor:
        drawn = [int(torch.randint(0, limit + 1, (), generator=generator)) for limit in limits]
        return torch.tensor(drawn, dtype=torch.int32, device=device)

    paged = case.page_size > 0
    q_shape = (sum(case.seqlens_q),) if case.varlen else (batch, max(case.seqlens_q, default=0))
    block_table = None
    if paged:
        pages = -(-max(case.seqlens_k, default=0) // case.page_size)
        block_table = shuffled_pages(batch, pages, generator).to(device)
        k_shape: tuple[int, ...] = (batch * pages + 1, case.page_size)
    else:
        k_shape = (sum(case.seqlens_k),) if case.varlen else (batch, max(case.seqlens_k, default=0))
    seqused = below(case.seqlens_k) if case.seqused else None
    leftpad = below(tuple(n // 2 for n in case.seqlens_k)) if case.leftpad else None
    rng_state = torch.randint(0, 2**63 - 1, (2,), generator=generator)
    alibi_shape = {1: (case.nheads_q,), 2: (batch, case.nheads_q)}
    alibi = normal(*alibi_shape[case.alibi_dims], dtype=torch.float32).abs() / 4 if case.alibi_dims else None
    return attention_request(
        normal(*q_shape, case.nheads_q, case.head_dim),
        normal(*k_shape, case.nheads_k, case.head_dim),
        normal(*k_shape, case.nheads_k, case.head_dim_v),
        cumulative(case.seqlens_q, device) if case.varlen else None,
        cumulative(case.seqlens_k, device) if case.varlen else None,
        max(case.seqlens_q, default=0),
        max(case.seqlens_k, default=0),
        seqused,
        leftpad,
        block_table,
        alibi,
        normal(case.nheads_q, dtype=torch.float32) if case.sink else None,
        rng_state.to(device) if case.dropout_p > 0 else None,
        case.dropout_p,
        case.softmax_scale,
        case.causal,
        *case.window_size,
        case.softcap,
        case.deterministic,
        False,
        case.num_splits,
        case.backward,
    )


def make_decode(case: DecodeCase, device: torch.device | str = "cpu") -> tuple[AttentionSpec, DecodeInputs]:
    """Validated random caches and new tokens of ``case``, reproducible by its seed."""
    generator = torch.Generator().manual_seed(case.seed)
    batch = len(case.cache_seqlens)

    def normal(*shape: int, dtype: torch.dtype = case.dtype) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).to(device)

    block_table = batch_idx = None
    cache_shape = (batch, case.capacity)
    if case.page_size:
        pages = -(-case.capacity // case.page_size)
        block_table = shuffled_pages(batch, pages, generator).to(device)
        cache_shape = (batch * pages + 1, case.page_size)
    elif case.batch_idx:
        batch_idx = torch.randperm(batch + 1, generator=generator)[:batch].to(torch.int32).to(device)
        cache_shape = (batch + 1, case.capacity)
    capacity = case.capacity if block_table is None else block_table.shape[1] * case.page_size
    angles = torch.rand(capacity, case.rotary_dim // 2, generator=generator, dtype=torch.float64) * 6.28
    cos, sin = (x.to(case.dtype).to(device) if case.rotary_dim else None for x in (angles.cos(), angles.sin()))
    leftpad = [int(torch.randint(0, n // 2 + 1, (), generator=generator)) for n in case.cache_seqlens]
    alibi_shape = {1: (case.nheads_q,), 2: (batch, case.nheads_q)}
    return decode_request(
        normal(batch, case.seqlen_q, case.nheads_q, case.head_dim),
        normal(*cache_shape, case.nheads_k, case.head_dim),
        normal(*cache_shape, case.nheads_k, case.head_dim_v),
        normal(batch, case.seqlen_new, case.nheads_k, case.head_dim) if case.seqlen_new else None,
        normal(batch, case.seqlen_new, case.nheads_k, case.head_dim_v) if case.seqlen_new else None,
        cos,
        sin,
        torch.tensor(case.cache_seqlens, dtype=torch.int32, device=device),
        batch_idx,
        torch.tensor(leftpad, dtype=torch.int32, device=device) if case.leftpad else None,
        block_table,
        normal(*alibi_shape[case.alibi_dims], dtype=torch.float32).abs() / 4 if case.alibi_dims else None,
        normal(case.nheads_q, dtype=torch.float32) if case.sink else None,
        None,
        case.causal,
        *case.window_size,
        case.softcap,
        case.rotary_interleaved,
        case.num_splits,
    )


def compare_attention(case: AttentionCase, device: torch.device | str = "cpu") -> list[Comparison]:
    """Run ``case`` through the operators on the backend in force and compare every result with the oracle."""
    spec, inputs = make_attention(case, device)
    return compare_results(case, spec, inputs, _run_attention(spec, inputs, case))


def compare_results(
    case: AttentionCase, spec: AttentionSpec, inputs: AttentionInputs, results: dict[str, Tensor]
) -> list[Comparison]:
    """Compare results of ``case``, by the names out, lse, dq, dk, dv and dlearnable_sink, with the oracle's.

    Gradients are those for the :func:`output_gradients` of the case.
    """
    exact = _oracle(torch.float64, spec, inputs, case)
    plain = _oracle(None, spec, inputs, case)
    scales = _cancelling_magnitudes(spec, inputs, case) if case.backward else {}
    bound = Bound(case.dtype, case.head_dim + max((*case.seqlens_q, *case.seqlens_k), default=0))
    comparisons = []
    for name, result in results.items():
        # softmax_lse is fp32 by contract, and the gradient of the sink is computed from it.
        fp32 = case.dtype == torch.float64 and name in ("lse", "dlearnable_sink")
        limited = Bound(torch.float32, 0) if fp32 else bound
        scale = scales.get(name, 1.0)
        comparisons.append(compare(name, result, exact[name], plain[name], limited, scale))
    return comparisons


def compare_decode(case: DecodeCase, device: torch.device | str = "cpu") -> list[Comparison]:
    """Run ``case`` on the backend in force; compare output, lse and both caches with the oracle's."""
    spec, inputs = make_decode(case, device)
    runs: list[dict[str, Tensor]] = []
    for compute_dtype in (torch.float64, None):
        dtype = compute_dtype or case.dtype
        cast = _decode_to(inputs, dtype)
        result = ReferenceBackend(compute_dtype).decode(spec._replace(dtype=dtype), cast)
        runs.append({"out": result.out, "lse": result.softmax_lse, "k_cache": cast.k_cache, "v_cache": cast.v_cache})
    tested = _decode_to(inputs, case.dtype)
    options = (spec.softmax_scale, False, (spec.window_left, spec.window_right), spec.softcap)
    out, lse = decode(*tested, *options, spec.rotary_interleaved, spec.num_splits)
    results = {"out": out, "lse": lse, "k_cache": tested.k_cache, "v_cache": tested.v_cache}
    bound = Bound(case.dtype, case.head_dim + case.capacity + case.seqlen_new)
    return [compare(name, results[name], runs[0][name], runs[1][name], bound) for name in results]


def compare(name: str, result: Tensor, exact: Tensor, plain: Tensor, bound: Bound, scale: float = 1.0) -> Comparison:
    """Compare one tensor with the oracle's; infinities must stand where the oracle has them."""
    if result.shape != exact.shape:
        raise AssertionError(f"{name}: shape {tuple(result.shape)}, the oracle has {tuple(exact.shape)}")
    error = _error(result, exact)
    allowed = bound.allowed(exact, plain, scale)
    if error.numel() == 0:
        return Comparison(name, 0.0, allowed, ())
    worst = int(error.flatten().argmax())
    where = tuple(int(i) for i in torch.unravel_index(torch.tensor(worst), error.shape))
    return Comparison(name, float(error.flatten()[worst]), allowed, where)


def output_gradients(out: Tensor, lse: Tensor, case: AttentionCase) -> tuple[Tensor, Tensor]:
    """Random gradients of output and log-sum-exp, reproducible by the seed of ``case``."""
    generator = torch.Generator().manual_seed(case.seed + 1)
    dout = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(case.dtype).to(out.device)
    dlse = torch.randn(lse.shape, generator=generator).to(out.device)
    return dout, dlse


def cumulative(seqlens: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
    """int32 cumulative lengths, 0 first."""
    return torch.tensor([0, *seqlens], dtype=torch.int32).cumsum(0, dtype=torch.int32).to(device)


def shuffled_pages(batch: int, pages: int, generator: torch.Generator) -> Tensor:
    """A block table that scatters every sequence over the pages, and leaves one page unused."""
    order = torch.randperm(batch * pages + 1, generator=generator)[: batch * pages]
    return order.to(torch.int32).view(batch, pages)


def _error(result: Tensor, exact: Tensor) -> Tensor:
    """Absolute error in float64; infinite where exactly one is not finite, or the infinities differ."""
    result, exact = result.detach().double(), exact.detach().double()
    error = (result - exact).abs().masked_fill(result == exact, 0.0)
    return error.masked_fill(error.isnan(), float("inf"))


def _run_attention(spec: AttentionSpec, inputs: AttentionInputs, case: AttentionCase) -> dict[str, Tensor]:
    differentiable = ("q", "k", "v", "learnable_sink")
    leaves = {
        name: tensor.detach().clone().requires_grad_(case.backward)
        for name in differentiable
        if (tensor := getattr(inputs, name)) is not None
    }
    given = inputs._replace(**leaves)
    out, lse, _ = attention(
        given.q,
        given.k,
        given.v,
        given.cu_seqlens_q,
        given.cu_seqlens_k,
        given.max_seqlen_q,
        given.max_seqlen_k,
        given.seqused_k,
        given.leftpad_k,
        given.block_table,
        given.alibi_slopes,
        given.learnable_sink,
        given.rng_state,
        spec.dropout_p,
        spec.softmax_scale,
        False,
        (spec.window_left, spec.window_right),
        spec.softcap,
        spec.deterministic,
        False,
        spec.num_splits,
    )
    results = {"out": out, "lse": lse}
    if case.backward:
        dout, dlse = output_gradients(out, lse, case)
        grads = torch.autograd.grad((out, lse), list(leaves.values()), (dout, dlse))
        results |= {f"d{name}": grad for name, grad in zip(leaves, grads, strict=True)}
    return results


def _oracle(
    compute_dtype: torch.dtype | None, spec: AttentionSpec, inputs: AttentionInputs, case: AttentionCase
) -> dict[str, Tensor]:
    """Results of the definition, computed and returned in ``compute_dtype`` (``None``: in the case's dtype)."""
    dtype = compute_dtype or case.dtype
    backend = ReferenceBackend(compute_dtype)
    spec = spec._replace(dtype=dtype)
    given = inputs._replace(q=inputs.q.to(dtype), k=inputs.k.to(dtype), v=inputs.v.to(dtype))
    result = backend.forward(spec, given)
    results = {"out": result.out, "lse": result.softmax_lse}
    if case.backward:
        dout, dlse = output_gradients(result.out, result.softmax_lse, case)
        grads = backend.backward(spec, given, result, dout.to(dtype), dlse)
        results |= {"dq": grads.dq, "dk": grads.dk, "dv": grads.dv}
        if given.learnable_sink is not None:
            terms = _sink_gradient_terms(given.learnable_sink, result, grads.softmax_d)
            results["dlearnable_sink"] = terms.sum(_all_but_heads(terms))
    return results


def _sink_gradient_terms(sink: Tensor, result: ForwardResult, softmax_d: Tensor) -> Tensor:
    """What every row adds to the gradient of its head's sink."""
    return -torch.exp(sink.view(-1, 1) - result.softmax_lse.double()) * softmax_d.double()


def _all_but_heads(per_row: Tensor) -> list[int]:
    """Dimensions of a tensor in the layout of softmax_lse, less that of the heads."""
    return [dim for dim in range(per_row.dim()) if dim != per_row.dim() - 2]


def _cancelling_magnitudes(spec: AttentionSpec, inputs: AttentionInputs, case: AttentionCase) -> dict[str, float]:
    """Size of what cancels inside of a gradient, and leaves its rounding behind.

    ``dS = P * (dP - delta)`` with ``delta = rowsum(dout * out) - dlse``, so dq and dk are differences of which
    one part is ``delta`` times a weighted mean; the sink's gradient adds up ``-delta`` times its share of a row.
    """
    backend = ReferenceBackend()
    wide = spec._replace(dtype=torch.float64)
    given = inputs._replace(q=inputs.q.double(), k=inputs.k.double(), v=inputs.v.double())
    result = backend.forward(wide, given)
    dout, dlse = output_gradients(result.out, result.softmax_lse, case)
    delta = (dout.double() * result.out).abs().sum(-1) + dlse.double().abs().transpose(-1, -2)
    weight = delta.unsqueeze(-1) * abs(spec.softmax_scale)

    alike = wide._replace(head_dim_v=spec.head_dim, dropout_p=0.0)
    mean_key = backend.forward(alike, given._replace(v=given.k.abs()))
    gathered = backend.backward(alike, given._replace(v=given.k), mean_key, weight * given.q.abs(), None).dv
    magnitudes = {"dq": weight * mean_key.out, "dk": gathered}
    if given.learnable_sink is not None:
        terms = _sink_gradient_terms(given.learnable_sink, result, delta.transpose(-1, -2))
        magnitudes["dlearnable_sink"] = (terms * (1 + result.softmax_lse.abs())).sum(_all_but_heads(terms))
    return {name: float(x.abs().max()) if x.numel() else 0.0 for name, x in magnitudes.items()}


def _decode_to(inputs: DecodeInputs, dtype: torch.dtype) -> DecodeInputs:
    """A copy of ``inputs`` in ``dtype``, with caches of its own; fp32 and integer extras keep their dtype."""
    kept = {"cache_seqlens", "cache_batch_idx", "cache_leftpad", "block_table", "alibi_slopes", "learnable_sink"}
    return DecodeInputs(
        **{name: x if x is None or name in kept else x.to(dtype, copy=True) for name, x in inputs._asdict().items()}
    )
