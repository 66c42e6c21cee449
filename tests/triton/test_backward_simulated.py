"""The backward kernels as AMD machine code on the simulator, against the oracle."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from flash_attn.triton_amd.backward import attention_backward, backward_launches, new_gradients
from flash_attn.triton_amd.tuning import BackwardConfig, BackwardTile
from problems import compare_backward, failures
from torch import Tensor

import amdgpu_sim
from flash_attn.backends.base import AttentionInputs
from flash_attn.backends.reference import ReferenceBackend
from flash_attn.backends.triton_calls import attention_problem
from flash_attn.testing import AttentionCase, make_attention, output_gradients

SMALL = BackwardConfig(BackwardTile(32, 32, num_warps=2), BackwardTile(32, 32, num_warps=2))
# Different numbers of blocks on both axes; the second tile has whole groups of dropout's 64 columns.
WIDE = BackwardConfig(BackwardTile(32, 64, num_warps=4), BackwardTile(16, 64, num_warps=1), num_xcds=3)

CASES = {
    "causal_gqa": AttentionCase((40,), (70,), 4, 2, 64, 64, torch.bfloat16, causal=True),
    "more_rows_than_keys": AttentionCase((70,), (20,), 2, 1, 32, 32, torch.float32, causal=True),
    "window": AttentionCase((70,), (120,), 2, 1, 32, 32, torch.float32, window_size=(37, 11)),
    "left_window": AttentionCase((70,), (120,), 1, 1, 32, 32, torch.float16, window_size=(20, -1)),
    "softcap": AttentionCase((20,), (40,), 3, 1, 32, 32, torch.float32, softcap=1.5, causal=True),
    "alibi": AttentionCase((20, 20), (40, 40), 4, 2, 32, 32, torch.float32, alibi_dims=2),
    "alibi_softcap": AttentionCase((40,), (70,), 2, 2, 32, 32, torch.float16, softcap=3.0, alibi_dims=1),
    "dropout": AttentionCase((20, 20), (70, 70), 2, 1, 32, 32, torch.float32, dropout_p=0.3),
    "sink": AttentionCase((40,), (70,), 2, 2, 32, 32, torch.float32, sink=True, causal=True),
    "negative_scale": AttentionCase((40,), (70,), 2, 2, 32, 32, torch.float32, softmax_scale=-0.3),
    "zero_scale": AttentionCase((40,), (70,), 2, 2, 32, 32, torch.float32, softmax_scale=0.0, causal=True),
    "one_key": AttentionCase((1,), (1,), 4, 2, 32, 32, torch.float32, softmax_scale=1.0),
    "varlen": AttentionCase((5, 40, 0), (17, 50, 3), 2, 1, 32, 32, torch.float32, varlen=True, causal=True),
    "padded_keys": AttentionCase(
        (5, 40, 0), (17, 50, 3), 2, 1, 32, 32, torch.float32, varlen=True, seqused=True, leftpad=True, causal=True
    ),
    "seqused_q": AttentionCase(
        (5, 40, 3), (17, 50, 30), 2, 1, 32, 32, torch.float32, varlen=True, causal=True, seqused_q=True
    ),
    "chunks": AttentionCase((70,), (120,), 2, 1, 32, 32, torch.bfloat16, attention_chunk=37),
    "chunks_of_blocks": AttentionCase((100,), (150,), 2, 1, 32, 32, torch.bfloat16, attention_chunk=48),
    "chunks_causal": AttentionCase((70,), (100,), 2, 1, 32, 32, torch.bfloat16, attention_chunk=64, causal=True),
    "chunks_rows_before_the_first_key": AttentionCase((70,), (20,), 2, 2, 32, 32, torch.float32, attention_chunk=7),
    "head_dims_40_80": AttentionCase((33,), (47,), 4, 2, 40, 80, torch.bfloat16),
    "head_dims_5_1": AttentionCase((33,), (47,), 2, 2, 5, 1, torch.float32),
    "no_keys": AttentionCase((33,), (0,), 2, 2, 32, 32, torch.float32),
    "no_rows": AttentionCase((0,), (33,), 2, 2, 32, 32, torch.float32),
    "no_sequences": AttentionCase((), (), 2, 2, 32, 32, torch.float32),
}
LARGE = {
    "head_dim_256": AttentionCase((20,), (30,), 2, 1, 256, 256, torch.bfloat16, causal=True),
    "head_dim_512": AttentionCase((17,), (20,), 1, 1, 512, 512, torch.float16),
}
OTHER_TARGETS = {
    "gfx90a": ("causal_gqa", "window"),
    "gfx950": ("causal_gqa", "alibi_softcap"),
    "gfx1100": ("causal_gqa", "padded_keys"),
    "gfx1201": ("causal_gqa", "dropout", "chunks", "seqused_q"),
}


@pytest.mark.parametrize("name", CASES)
def test_features_on_gfx942(name: str) -> None:
    with amdgpu_sim.triton_device("gfx942"):
        assert not failures(compare_backward(CASES[name], SMALL))


@pytest.mark.parametrize(
    ("target", "name"), [(target, name) for target, names in OTHER_TARGETS.items() for name in names]
)
def test_features_on_other_targets(target: str, name: str) -> None:
    with amdgpu_sim.triton_device(target):
        assert not failures(compare_backward(CASES[name], SMALL))


@pytest.mark.parametrize("name", LARGE)
def test_large_head_dims_with_the_shipped_tiles(name: str) -> None:
    with amdgpu_sim.triton_device("gfx942"):
        assert not failures(compare_backward(LARGE[name]))


def test_tiles_of_other_shapes_and_order() -> None:
    case = dataclasses.replace(CASES["dropout"], dtype=torch.bfloat16, window_size=(50, 20))
    with amdgpu_sim.triton_device("gfx942"):
        assert not failures(compare_backward(case, WIDE))


def test_strides_are_honoured_and_results_do_not_depend_on_the_order_of_waves() -> None:
    case = AttentionCase((40, 40), (35, 35), 2, 2, 32, 32, torch.bfloat16, causal=True)
    spec, inputs = make_attention(case)
    result = ReferenceBackend().forward(spec, inputs)
    dout, dlse = output_gradients(result.out, result.softmax_lse, case)
    strided = inputs._replace(q=_with_gaps(inputs.q), k=_with_gaps(inputs.k), v=_with_gaps(inputs.v))

    def gradients(given: AttentionInputs, dout: Tensor, dlse: Tensor, seed: int) -> tuple[Tensor, ...]:
        with amdgpu_sim.triton_device("gfx942", seed=seed):
            problem = attention_problem(spec, given)
            found: tuple[Tensor, ...] = attention_backward(problem, result.out, result.softmax_lse, dout, dlse, SMALL)
            return found

    plain = gradients(inputs, dout, dlse, 0)
    for layout in (_with_gaps, _last_dim_outermost):
        again = gradients(strided, layout(dout), _last_dim_outermost(dlse), 1)
        assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))


def test_softmax_d_without_dlse() -> None:
    case = AttentionCase((40,), (35,), 2, 1, 32, 24, torch.float32, varlen=True)
    spec, inputs = make_attention(case)
    result = ReferenceBackend().forward(spec, inputs)
    dout, _ = output_gradients(result.out, result.softmax_lse, case)
    with amdgpu_sim.triton_device("gfx942"):
        found = attention_backward(attention_problem(spec, inputs), result.out, result.softmax_lse, dout, None, SMALL)
    products = dout.double() * result.out.double()
    error = (found[3] - products.sum(-1).T).abs()
    # One rounding of every product and of every partial sum.
    assert bool((error <= (1 + case.head_dim_v) * torch.finfo(torch.float32).eps * products.abs().sum(-1).T).all())


def test_caches_have_no_gradient() -> None:
    case = AttentionCase((5,), (32,), page_size=16, varlen=True, backward=False)
    spec, inputs = make_attention(case)
    problem = attention_problem(spec, inputs)
    result = ReferenceBackend().forward(spec, inputs)
    with pytest.raises(ValueError, match="block_table"):
        backward_launches(
            problem, result.out, result.softmax_lse, result.out, None, new_gradients(problem), BackwardConfig()
        )


def _with_gaps(x: Tensor) -> Tensor:
    """The same values with other heads between the heads and other rows between the rows."""
    return x.new_full((*x.shape[:-2], 2 * x.shape[-2], x.shape[-1] + 8), float("nan"))[..., ::2, : x.shape[-1]].copy_(x)


def _last_dim_outermost(x: Tensor) -> Tensor:
    """The same values with the last dimension outermost in memory."""
    return x.movedim(-1, 0).contiguous().movedim(0, -1)
