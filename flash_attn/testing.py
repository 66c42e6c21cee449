"""Cases, their tensors, and comparison with the oracle; for tests, benchmarks and ``python -m flash_attn check``.

A result passes when its largest error against the oracle in float64 is at most twice that of plain PyTorch
attention in the same dtype, plus a few roundings of the largest value (:class:`Bound`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flash_attn import dispatch
from flash_attn.attention_spec import FP8_DTYPES, AttentionSpec
from flash_attn.backends.base import AttentionInputs, Backend, DecodeInputs, ForwardResult
from flash_attn.backends.kv_append import append_and_rotate
from flash_attn.backends.reference import ReferenceBackend
from flash_attn.custom_ops import attention, decode
from flash_attn.testing_cases import (
    AttentionCase,
    DecodeCase,
    cumulative,
    make_attention,
    make_decode,
    shuffled_pages,
)

__all__ = [
    "AttentionCase",
    "Bound",
    "Comparison",
    "DecodeCase",
    "compare",
    "compare_attention",
    "compare_decode",
    "cumulative",
    "make_attention",
    "make_decode",
    "shuffled_pages",
]


@dataclass(frozen=True)
class Bound:
    """How far a result of ``dtype`` may be from the oracle.

    Beside twice the error of plain PyTorch, a result may differ by a rounding of its scores, probabilities,
    denominator and output, each of one unit in the last place of the largest value. In float64 the oracle is
    no more exact than what it judges: there every one of the ``terms`` that are added up may round differently.
    Where q is fp8, a backend may round the probabilities to fp8 for its second product: ``dtype`` is bfloat16 then, and
    :func:`fp8_rounding` of the case is added.
    """

    dtype: torch.dtype
    terms: int
    beyond: float = 0.0

    def allowed(self, exact: Tensor, plain: Tensor, scale: float = 1.0) -> float:
        """The largest error that passes; ``scale`` is a magnitude at which results were rounded on the way."""
        finite = exact[exact.isfinite()]
        largest = float(finite.abs().max()) if finite.numel() else 0.0
        error = _error(plain, exact)
        baseline = float(error.max()) if error.numel() else 0.0
        roundings = 4 + (self.terms if self.dtype == torch.float64 else 0)
        return 2 * baseline + roundings * torch.finfo(self.dtype).eps * max(largest, scale, 1.0) + self.beyond


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


def compare_attention(case: AttentionCase, device: torch.device | str = "cpu") -> list[Comparison]:
    """Run ``case`` through the operators on the backend in force and compare every result with the oracle."""
    spec, inputs = make_attention(case, device)
    results = _run_attention(spec, inputs, case)
    return compare_results(case, spec, inputs, results, dispatch.select(spec, inputs.q.device, dispatch.requested()))


def compare_results(
    case: AttentionCase,
    spec: AttentionSpec,
    inputs: AttentionInputs,
    results: dict[str, Tensor],
    backend: Backend | None = None,
) -> list[Comparison]:
    """Compare results of ``case``, by the names out, lse, dq, dk, dv and dlearnable_sink, with the oracle's.

    Gradients are those for the :func:`output_gradients` of the case. Dropout is that of ``backend``, else the
    oracle's own.
    """
    oracle = ReferenceBackend(torch.float64, backend)
    exact = _oracle(oracle, spec, inputs, case)
    plain = _oracle(ReferenceBackend(None, backend), spec, inputs, case)
    scales = _cancelling_magnitudes(oracle, spec, inputs, case) if case.backward else {}
    bound = Bound(spec.out_dtype, case.head_dim + max((*case.seqlens_q, *case.seqlens_k), default=0))
    comparisons = []
    for name, result in results.items():
        # softmax_lse is fp32 by contract, and the gradient of the sink is computed from it.
        fp32 = case.dtype == torch.float64 and name in ("lse", "dlearnable_sink")
        limited = Bound(torch.float32, 0) if fp32 else bound
        if name == "out" and spec.dtype in FP8_DTYPES:
            limited = replace(bound, beyond=fp8_rounding(spec, inputs))
        scale = scales.get(name, 1.0)
        comparisons.append(compare(name, result, exact[name], plain[name], limited, scale))
    return comparisons


def compare_decode(case: DecodeCase, device: torch.device | str = "cpu") -> list[Comparison]:
    """Run ``case`` on the backend in force; compare output, lse and both caches with the oracle's."""
    spec, inputs = make_decode(case, device)
    runs: list[dict[str, Tensor]] = []
    beyond = 0.0
    for compute_dtype in (torch.float64, None):
        cast = decode_copy(inputs, None if spec.is_fp8 else compute_dtype)
        attended, given = append_and_rotate(spec, cast)
        if spec.dtype in FP8_DTYPES:
            beyond = fp8_rounding(attended, given)
        result = ReferenceBackend(compute_dtype).forward(*_in_dtype(attended, given, compute_dtype or spec.out_dtype))
        runs.append({"out": result.out, "lse": result.softmax_lse, **_caches(cast)})
    tested = decode_copy(inputs, None)
    out, lse = decode(
        *tested[:13],
        spec.softmax_scale,
        False,
        (spec.window_left, spec.window_right),
        spec.softcap,
        spec.rotary_interleaved,
        spec.num_splits,
        *tested[13:],
        spec.attention_chunk,
    )
    results = {"out": out, "lse": lse, **_caches(tested)}
    bound = Bound(spec.out_dtype, case.head_dim + case.capacity + max(case.seqlens_new or (case.seqlen_new,)))
    bounds = dict.fromkeys(results, bound) | {"out": replace(bound, beyond=beyond)}
    return [compare(name, results[name], runs[0][name], runs[1][name], bounds[name]) for name in results]


def fp8_rounding(spec: AttentionSpec, inputs: AttentionInputs) -> float:
    """How far one rounding of the probabilities to E4M3 may move the output.

    A probability has 3 bits of mantissa after it, so that it moves by 2 ** -4 of itself and an output by as much of
    ``sum_j P_ij |v_j|``. What is below the normal range moves by 2 ** -10; the weights of a row, at most 1, can be
    scaled by 2 ** 8 before they are rounded, and their sum is at least 1, so that is 2 ** -18 of every ``|v_j|``.
    """
    exact_spec, exact = _in_dtype(spec, inputs, torch.float64)
    magnitudes = exact._replace(v=exact.v.abs())
    if inputs.v.numel() == 0 or inputs.q.numel() == 0:
        return 0.0
    mean = ReferenceBackend().forward(exact_spec, magnitudes).out
    scale = 1.0 if inputs.v_descale is None else float(inputs.v_descale.abs().max())
    return 2**-4 * float(mean.max()) + 2**-18 * inputs.max_seqlen_k * float(magnitudes.v.max()) * scale


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
        *given[14:],
        spec.attention_chunk,
    )
    results = {"out": out, "lse": lse}
    if case.backward:
        dout, dlse = output_gradients(out, lse, case)
        grads = torch.autograd.grad((out, lse), list(leaves.values()), (dout, dlse))
        results |= {f"d{name}": grad for name, grad in zip(leaves, grads, strict=True)}
    return results


def output_gradients(out: Tensor, lse: Tensor, case: AttentionCase) -> tuple[Tensor, Tensor]:
    """Random gradients of output and log-sum-exp, reproducible by the seed of ``case``."""
    generator = torch.Generator().manual_seed(case.seed + 1)
    dout = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(case.dtype).to(out.device)
    dlse = torch.randn(lse.shape, generator=generator).to(out.device)
    return dout, dlse


def _oracle(
    backend: ReferenceBackend, spec: AttentionSpec, inputs: AttentionInputs, case: AttentionCase
) -> dict[str, Tensor]:
    """Results of the definition, computed and returned in the dtype of ``backend`` (``None``: in the case's)."""
    dtype = backend.compute_dtype or spec.out_dtype
    spec, given = _in_dtype(spec, inputs, dtype)
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


def _in_dtype(
    spec: AttentionSpec, inputs: AttentionInputs, dtype: torch.dtype
) -> tuple[AttentionSpec, AttentionInputs]:
    """The same call on tensors of ``dtype``; scales and slopes stay fp32."""
    wide = {name: x.to(dtype) for name in ("q", "k", "v", "qv") if (x := getattr(inputs, name)) is not None}
    return spec._replace(dtype=dtype, kv_dtype=None), inputs._replace(**wide)


def _sink_gradient_terms(sink: Tensor, result: ForwardResult, softmax_d: Tensor) -> Tensor:
    """What every row adds to the gradient of its head's sink; rows outside of every sequence add nothing."""
    outside = result.softmax_lse == float("-inf")
    probability = torch.exp(sink.view(-1, 1) - result.softmax_lse.double()).masked_fill(outside, 0.0)
    return -probability * softmax_d.double()


def _all_but_heads(per_row: Tensor) -> list[int]:
    """Dimensions of a tensor in the layout of softmax_lse, less that of the heads."""
    return [dim for dim in range(per_row.dim()) if dim != per_row.dim() - 2]


def _cancelling_magnitudes(
    backend: ReferenceBackend, spec: AttentionSpec, inputs: AttentionInputs, case: AttentionCase
) -> dict[str, float]:
    """Size of what cancels inside of a gradient, and leaves its rounding behind.

    ``dS = P * (dP - delta)`` with ``delta = rowsum(dout * out) - dlse``, so dq and dk are differences of which
    one part is ``delta`` times a weighted mean; the sink's gradient adds up ``-delta`` times its share of a row.
    """
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
        logits = result.softmax_lse.abs().nan_to_num(posinf=0.0)
        magnitudes["dlearnable_sink"] = (terms * (1 + logits)).sum(_all_but_heads(terms))
    return {name: float(x.abs().max()) if x.numel() else 0.0 for name, x in magnitudes.items()}


def _caches(inputs: DecodeInputs) -> dict[str, Tensor]:
    """Both caches in float64, which PyTorch can compare whatever they were."""
    return {"k_cache": inputs.k_cache.double(), "v_cache": inputs.v_cache.double()}


def decode_copy(inputs: DecodeInputs, dtype: torch.dtype | None) -> DecodeInputs:
    """A copy of ``inputs`` with caches of its own, in ``dtype`` where one is given but for fp32 and integer extras."""
    cast = ("q", "k_cache", "v_cache", "k_new", "v_new", "rotary_cos", "rotary_sin", "qv")
    copies = {name: x.to(dtype or x.dtype, copy=True) for name in cast if (x := getattr(inputs, name)) is not None}
    return inputs._replace(**copies)
