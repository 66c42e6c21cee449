"""The forward kernel as AMD machine code on the simulator, against the oracle."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from flash_attn.triton_amd.tuning import ForwardConfig
from problems import compare_forward, failures

import amdgpu_sim
from flash_attn.testing import AttentionCase

SMALL = ForwardConfig(block_m=32, block_n=32, num_warps=2)
# Another number of rows than of keys; whole groups of dropout's 64 columns; an order for several dies.
WIDE = ForwardConfig(block_m=16, block_n=64, num_warps=1, num_xcds=3)

CASES = {
    "causal_gqa": AttentionCase((70,), (90,), 4, 2, 64, 64, torch.bfloat16, causal=True),
    "full": AttentionCase((70,), (90,), 2, 2, 64, 64, torch.float16),
    "more_rows_than_keys": AttentionCase((100,), (40,), 2, 1, 32, 32, torch.float32, causal=True),
    "window": AttentionCase((70,), (120,), 2, 1, 32, 32, torch.float32, window_size=(37, 11)),
    "left_window": AttentionCase((70,), (150,), 2, 2, 32, 32, torch.float16, window_size=(20, -1)),
    "softcap": AttentionCase((40,), (70,), 3, 1, 32, 32, torch.float32, softcap=1.5, causal=True),
    "alibi": AttentionCase((40, 40), (70, 70), 4, 2, 32, 32, torch.float32, alibi_dims=2),
    "alibi_softcap": AttentionCase((40,), (70,), 2, 2, 32, 32, torch.float16, softcap=3.0, alibi_dims=1),
    "dropout": AttentionCase((40, 40), (70, 70), 4, 2, 32, 32, torch.float32, dropout_p=0.3),
    "sink": AttentionCase((40,), (70,), 4, 4, 32, 32, torch.float32, sink=True, causal=True),
    "sink_without_keys": AttentionCase((60,), (20,), 2, 2, 32, 32, torch.float32, sink=True, causal=True),
    "negative_scale": AttentionCase((40,), (70,), 2, 2, 32, 32, torch.float32, softmax_scale=-0.3),
    "zero_scale": AttentionCase((40,), (70,), 2, 2, 32, 32, torch.float32, softmax_scale=0.0, causal=True),
    "varlen": AttentionCase((5, 40, 0), (17, 80, 3), 4, 2, 32, 32, torch.float32, varlen=True, causal=True),
    "padded_keys": AttentionCase(
        (5, 40, 0), (17, 80, 3), 2, 1, 32, 32, torch.float32, varlen=True, seqused=True, leftpad=True, causal=True
    ),
    "paged": AttentionCase((5, 40, 0), (17, 80, 3), 4, 2, 32, 32, torch.float32, varlen=True, page_size=16),
    "odd_pages": AttentionCase((5, 40), (17, 80), 2, 1, 32, 32, torch.bfloat16, varlen=True, page_size=7, leftpad=True),
    "seqused_q": AttentionCase(
        (5, 70, 3), (17, 80, 30), 2, 1, 32, 32, torch.bfloat16, varlen=True, causal=True, seqused_q=True
    ),
    "chunks": AttentionCase((70,), (120,), 2, 1, 32, 32, torch.bfloat16, attention_chunk=37),
    "chunks_of_blocks": AttentionCase((100,), (150,), 2, 1, 32, 32, torch.bfloat16, attention_chunk=48),
    "chunks_causal": AttentionCase((70,), (120,), 2, 1, 32, 32, torch.bfloat16, attention_chunk=64, causal=True),
    "chunks_rows_before_the_first_key": AttentionCase((100,), (40,), 2, 2, 32, 32, torch.float32, attention_chunk=7),
    "qv": AttentionCase((40,), (70,), 4, 2, 32, 64, torch.bfloat16, causal=True, qv=True),
    "qv_latent": AttentionCase((20,), (40,), 4, 1, 64, 512, torch.bfloat16, causal=True, qv=True),
    "qv_negative_scale": AttentionCase((20,), (40,), 2, 1, 40, 24, torch.float32, softmax_scale=-0.2, qv=True),
    "qv_fp8_keys": AttentionCase(
        (20,), (40,), 4, 2, 32, 64, torch.bfloat16, qv=True, kv_dtype=torch.float8_e4m3fn, descale=True
    ),
    "head_dims_40_80": AttentionCase((33,), (47,), 4, 2, 40, 80, torch.bfloat16),
    "head_dims_5_1": AttentionCase((33,), (47,), 2, 2, 5, 1, torch.float32),
    "head_dim_512": AttentionCase((17,), (40,), 1, 1, 512, 512, torch.float16),
    "no_keys": AttentionCase((33,), (0,), 2, 2, 32, 32, torch.float32),
    "no_rows": AttentionCase((0,), (33,), 2, 2, 32, 32, torch.float32),
    "no_sequences": AttentionCase((), (), 2, 2, 32, 32, torch.float32),
}
OTHER_TARGETS = {
    "gfx90a": ("causal_gqa", "window"),
    "gfx950": ("causal_gqa", "odd_pages"),
    "gfx1100": ("causal_gqa", "paged"),
    "gfx1201": ("causal_gqa", "dropout", "chunks", "seqused_q", "qv"),
}


def _forward_only(case: AttentionCase) -> AttentionCase:
    return dataclasses.replace(case, backward=False)


@pytest.mark.parametrize("name", CASES)
def test_features_on_gfx942(name: str) -> None:
    with amdgpu_sim.triton_device("gfx942"):
        assert not failures(compare_forward(_forward_only(CASES[name]), SMALL))


@pytest.mark.parametrize(
    ("target", "name"), [(target, name) for target, names in OTHER_TARGETS.items() for name in names]
)
def test_features_on_other_targets(target: str, name: str) -> None:
    with amdgpu_sim.triton_device(target):
        assert not failures(compare_forward(_forward_only(CASES[name]), SMALL))


def test_tiles_of_other_shapes_and_order() -> None:
    case = dataclasses.replace(_forward_only(CASES["dropout"]), dtype=torch.bfloat16, window_size=(50, 20))
    with amdgpu_sim.triton_device("gfx942"):
        assert not failures(compare_forward(case, WIDE))
