"""The oracle itself, against loops over single elements, known Philox words and numerical gradients."""

# Argument lists are unpacked and results indexed in ways that mypy cannot follow.
# mypy: disable-error-code="arg-type,call-arg,union-attr,return-value"

import math

import pytest
import torch
from torch import Tensor

from flash_attn.backends.dropout import dropout_threshold, keep_mask, philox
from flash_attn.backends.reference import ReferenceBackend
from flash_attn.custom_ops import attention
from flash_attn.dispatch import use_backend
from flash_attn.testing import AttentionCase, make_attention

CASES = {
    "plain": AttentionCase(seqlens_q=(3, 3), seqlens_k=(5, 5)),
    "causal, more queries than keys": AttentionCase(seqlens_q=(6,), seqlens_k=(4,), causal=True),
    "causal, more keys than queries": AttentionCase(seqlens_q=(3,), seqlens_k=(7,), causal=True),
    "window": AttentionCase(seqlens_q=(6,), seqlens_k=(8,), window_size=(2, 1)),
    "window and causal": AttentionCase(seqlens_q=(6,), seqlens_k=(6,), window_size=(2, 3), causal=True),
    "softcap": AttentionCase(seqlens_q=(4,), seqlens_k=(4,), softcap=0.7),
    "grouped queries": AttentionCase(seqlens_q=(4,), seqlens_k=(4,), nheads_q=6, nheads_k=2),
    "alibi": AttentionCase(seqlens_q=(4, 4), seqlens_k=(5, 5), alibi_dims=1, causal=True),
    "alibi of each sequence": AttentionCase(seqlens_q=(4, 4), seqlens_k=(5, 5), alibi_dims=2),
    "sink": AttentionCase(seqlens_q=(5,), seqlens_k=(3,), sink=True, causal=True),
    "value head dim": AttentionCase(seqlens_q=(4,), seqlens_k=(4,), head_dim=8, head_dim_v=5),
    "scale": AttentionCase(seqlens_q=(4,), seqlens_k=(4,), softmax_scale=0.9),
    "varlen": AttentionCase(seqlens_q=(4, 0, 2), seqlens_k=(3, 5, 0), varlen=True, causal=True),
    "varlen pages": AttentionCase(seqlens_q=(4, 2), seqlens_k=(3, 9), varlen=True, page_size=4),
    "seqused and leftpad": AttentionCase(seqlens_q=(4, 4), seqlens_k=(9, 9), seqused=True, leftpad=True, alibi_dims=1),
    "dropout": AttentionCase(seqlens_q=(4, 4), seqlens_k=(70, 70), dropout_p=0.4),
}


def _element_by_element(case: AttentionCase) -> tuple[Tensor, Tensor]:
    """Attention in Python floats, one output row at a time."""
    spec, x = make_attention(case)
    batch = len(case.seqlens_q)
    out = torch.zeros(*x.q.shape[:-1], case.head_dim_v, dtype=torch.float64)
    lse = torch.full((case.nheads_q, x.q.shape[0]) if case.varlen else (batch, case.nheads_q, x.q.shape[1]), -math.inf)
    for b in range(batch):
        leftpad = 0 if x.leftpad_k is None else int(x.leftpad_k[b])
        used = case.seqlens_k[b] if x.seqused_k is None else int(x.seqused_k[b])
        seqlen_q, seqlen_k = case.seqlens_q[b], max(0, used - leftpad)
        q_start, k_start = (sum(lengths[:b]) for lengths in (case.seqlens_q, case.seqlens_k))
        for h in range(case.nheads_q):
            group = h // (case.nheads_q // case.nheads_k)
            slope = 0.0
            if x.alibi_slopes is not None:
                slope = float(x.alibi_slopes[h] if case.alibi_dims == 1 else x.alibi_slopes[b, h])
            for i in range(seqlen_q):
                row = x.q[q_start + i, h] if case.varlen else x.q[b, i, h]
                weights: dict[int, float] = {}
                values: dict[int, Tensor] = {}
                for j in range(seqlen_k):
                    if x.block_table is not None:
                        page = int(x.block_table[b, j // case.page_size])
                        key, value = (t[page, j % case.page_size, group] for t in (x.k, x.v))
                    elif case.varlen:
                        key, value = x.k[k_start + leftpad + j, group], x.v[k_start + leftpad + j, group]
                    else:
                        key, value = x.k[b, leftpad + j, group], x.v[b, leftpad + j, group]
                    offset = j - (i + seqlen_k - seqlen_q)
                    left, right = case.window_size
                    if (case.causal and offset > 0) or (left >= 0 and offset < -left):
                        continue
                    if not case.causal and right >= 0 and offset > right:
                        continue
                    logit = spec.softmax_scale * float(row.double() @ key.double())
                    if case.softcap:
                        logit = case.softcap * math.tanh(logit / case.softcap)
                    weights[j], values[j] = math.exp(logit - slope * abs(offset)), value.double()
                total = sum(weights.values())
                if x.learnable_sink is not None:
                    total += math.exp(float(x.learnable_sink[h]))
                where = (h, q_start + i) if case.varlen else (b, h, i)
                if total > 0:
                    lse[where] = math.log(total)
                for j, weight in weights.items():
                    if x.rng_state is not None:
                        bh = torch.tensor(b * case.nheads_q + h)
                        if not keep_mask(x.rng_state, case.dropout_p, bh, torch.tensor(i), j, 1):
                            continue
                        weight /= 1 - case.dropout_p
                    target = out[q_start + i, h] if case.varlen else out[b, i, h]
                    target += weight / total * values[j]
    return out, lse


@pytest.mark.parametrize("name", CASES)
def test_the_definition_element_by_element(name: str) -> None:
    spec, inputs = make_attention(CASES[name])
    result = ReferenceBackend().forward(spec, inputs)
    out, lse = _element_by_element(CASES[name])
    # Both compute in float64, and the results are rounded to float32 once.
    for got, expected in ((result.out, out.float()), (result.softmax_lse, lse.float())):
        torch.testing.assert_close(got, expected, rtol=torch.finfo(torch.float32).eps, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_gradients_equal_numerical_ones(name: str) -> None:
    case = CASES[name]
    spec, inputs = make_attention(case)
    tensors = [x.double()[..., :3].clone().requires_grad_() for x in (inputs.q, inputs.k, inputs.v)]
    sink = None if inputs.learnable_sink is None else inputs.learnable_sink.double().requires_grad_()

    def call(q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None) -> tuple[Tensor, Tensor]:
        rest = inputs._replace(q=q, k=k, v=v, learnable_sink=sink)
        options = (spec.dropout_p, spec.softmax_scale, False, (spec.window_left, spec.window_right), spec.softcap)
        with use_backend("reference"):
            out, lse, _ = attention(*rest[:3], *rest[5:7], *rest[3:5], *rest[7:10], *rest[11:14], *options)
        return out, lse.masked_fill(lse.isinf(), 0.0).double()

    # The log-sum-exp is fp32, so only the output is differentiated numerically.
    assert torch.autograd.gradcheck(lambda *args: call(*args)[0], (*tensors, sink), fast_mode=True)


def test_philox_gives_the_published_words() -> None:
    zero, ones = torch.tensor(0), torch.tensor(0xFFFFFFFF)
    words = [int(word) for word in philox((zero,) * 4, (zero,) * 2)]
    assert words == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    words = [int(word) for word in philox((ones,) * 4, (ones,) * 2)]
    assert words == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def test_a_tile_of_the_dropout_mask_is_the_part_of_the_whole() -> None:
    state = torch.tensor([12345678901234567, 42])
    heads, rows = torch.arange(3).view(3, 1), torch.arange(5)
    whole = keep_mask(state, 0.3, heads, rows, 0, 300)
    part = keep_mask(state, 0.3, heads[1:2], rows[2:], 77, 130)
    assert torch.equal(part, whole[1:2, 2:, 77:207])


def test_dropout_drops_its_share() -> None:
    state = torch.tensor([7, 0])
    kept = keep_mask(state, 0.25, torch.arange(8).view(8, 1), torch.arange(256), 0, 512).double().mean()
    sigma = math.sqrt(0.25 * 0.75 / (8 * 256 * 512))
    assert abs(float(kept) - 0.75) < 5 * sigma
    assert dropout_threshold(0.5) == 2**31
