"""The decode kernels as AMD machine code on the simulator, against the oracle."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from decode_problems import compare_call, compare_case, failed
from flash_attn.triton_amd.decode import decode
from flash_attn.triton_amd.decode_config import DecodeConfig
from flash_attn.triton_amd.forward import attention_forward
from flash_attn.triton_amd.tuning import ForwardConfig

import amdgpu_sim
from flash_attn.backends.reference import ReferenceBackend
from flash_attn.backends.triton_calls import attention_problem, decode_problem
from flash_attn.testing import AttentionCase, Bound, DecodeCase, compare, make_attention, make_decode

SMALL = DecodeConfig(block_m=32, block_n=32, num_warps=2)
# Loads ahead of their use, other tiles, an order for several dies.
PIPELINED = DecodeConfig(block_m=16, block_n=16, num_warps=4, num_stages=2, num_xcds=3)
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16

# Name: (case, num_splits).
CASES = {
    "one_row": (DecodeCase((17, 90, 0), 1, 0, 96, 8, 2, dtype=BF16), 1),
    "splits": (DecodeCase((17, 90, 0), 1, 0, 96, 8, 2, dtype=F16), 3),
    "more_splits_than_blocks": (DecodeCase((17, 70), 1, 0, 96, 4, 2), 20),
    "chosen_splits": (DecodeCase((17, 600), 1, 0, 600, 1, 1, 16, 16, BF16), 0),
    "sixteen_rows": (DecodeCase((33, 90), 16, 0, 96, 4, 1, dtype=BF16), 2),
    "tile_ends_inside_of_a_token": (DecodeCase((17, 50), 13, 0, 50, 3, 1), 2),
    "more_rows_than_keys": (DecodeCase((3, 40), 9, 0, 48, 2, 2), 2),
    "not_causal": (DecodeCase((17, 90), 3, 0, 96, 2, 1, causal=False), 2),
    "window": (DecodeCase((17, 90), 5, 0, 96, 2, 1, causal=False, window_size=(37, 3)), 2),
    "left_window": (DecodeCase((17, 90), 5, 0, 96, 2, 1, causal=False, window_size=(5, -1)), 3),
    "chunks": (DecodeCase((17, 90, 40), 5, 0, 96, 2, 1, dtype=BF16, attention_chunk=20), 2),
    "chunks_not_causal": (DecodeCase((3, 90), 9, 0, 96, 2, 1, causal=False, attention_chunk=50, leftpad=True), 3),
    "qv": (DecodeCase((17, 90), 2, 3, 96, 8, 2, 32, 64, BF16, page_size=16, qv=True, rotary_dim=16), 2),
    "softcap": (DecodeCase((17, 40), 2, 0, 48, 4, 2, softcap=1.5), 2),
    "alibi": (DecodeCase((17, 70), 3, 0, 96, 4, 2, alibi_dims=2), 2),
    "alibi_softcap": (DecodeCase((17, 70), 1, 0, 96, 4, 2, alibi_dims=1, softcap=3.0), 2),
    "sink": (DecodeCase((0, 70), 2, 0, 96, 4, 2, sink=True), 3),
    "leftpad": (DecodeCase((17, 90), 2, 0, 96, 2, 2, leftpad=True), 2),
    "batch_idx": (DecodeCase((17, 40), 2, 5, 48, 2, 2, batch_idx=True, rotary_dim=16), 2),
    "page_1": (DecodeCase((17, 40), 1, 3, 48, 2, 1, page_size=1), 2),
    "page_16_crossed": (DecodeCase((14, 31, 0), 4, 5, 48, 4, 2, page_size=16, rotary_dim=32, dtype=BF16), 2),
    "page_32_one_lookup": (DecodeCase((31, 64, 90), 2, 2, 96, 2, 1, page_size=32), 2),
    "page_32_leftpad": (DecodeCase((31, 90), 2, 0, 96, 2, 1, page_size=32, leftpad=True), 2),
    "page_256": (DecodeCase((0, 254, 300), 1, 3, 512, 2, 1, 16, 16, F16, page_size=256), 4),
    "page_7": (DecodeCase((6, 34), 3, 5, 42, 2, 2, page_size=7, leftpad=True, dtype=F16), 2),
    "beyond_capacity": (DecodeCase((46, 48, 40, 60), 5, 5, 48, 2, 1, rotary_dim=8), 2),
    "beyond_pages": (DecodeCase((30, 32), 5, 5, 32, 2, 1, page_size=16), 2),
    "rotary_halves": (DecodeCase((17, 40), 3, 5, 48, 2, 1, rotary_dim=32, rotary_interleaved=False), 2),
    "rotary_part_of_halves": (
        DecodeCase((17, 40), 3, 5, 48, 2, 1, rotary_dim=12, rotary_interleaved=False, dtype=BF16), 1
    ),
    "rotary_at_one_position": (DecodeCase((17, 40), 3, 2, 48, 2, 1, rotary_dim=16, causal=False), 2),
    "head_dims_40_80": (DecodeCase((17, 40), 2, 3, 48, 2, 1, 40, 80, BF16, rotary_dim=40), 2),
    "head_dims_6_1": (DecodeCase((17, 40), 2, 3, 48, 2, 1, 6, 1, rotary_dim=2, rotary_interleaved=False), 2),
    "no_sequences": (DecodeCase((), 1, 0, 48), 2),
}  # fmt: skip
OTHER_TARGETS = {
    "gfx90a": ("splits", "page_16_crossed", "sink"),
    "gfx950": ("one_row", "page_32_one_lookup", "rotary_part_of_halves"),
    "gfx1100": ("splits", "page_7", "sixteen_rows"),
    "gfx1201": ("one_row", "page_16_crossed", "page_7"),
}


@pytest.mark.parametrize("name", CASES)
def test_features_on_gfx942(name: str) -> None:
    case, num_splits = CASES[name]
    with amdgpu_sim.triton_device("gfx942"):
        assert not failed(compare_case(case, SMALL, num_splits))


@pytest.mark.parametrize(
    ("target", "name"), [(target, name) for target, names in OTHER_TARGETS.items() for name in names]
)
def test_features_on_other_targets(target: str, name: str) -> None:
    case, num_splits = CASES[name]
    with amdgpu_sim.triton_device(target):
        assert not failed(compare_case(case, SMALL, num_splits))


@pytest.mark.parametrize("target", ["gfx942", "gfx950", "gfx1201"])
def test_pipelined_tiles_in_another_order(target: str) -> None:
    case = DecodeCase((14, 90), 5, 2, 96, 8, 2, dtype=BF16, page_size=16, rotary_dim=16)
    with amdgpu_sim.triton_device(target):
        assert not failed(compare_case(case, PIPELINED, 3))


def test_more_parts_than_the_combination_takes_at_once() -> None:
    # Under ALiBi the last keys weigh most: what was combined before them decays.
    with amdgpu_sim.triton_device("gfx942"):
        assert not failed(compare_case(DecodeCase((300, 5), 1, 0, 300, 1, 1, 16, 16, alibi_dims=1), PIPELINED, 19))


def test_sequences_may_share_a_cache_row() -> None:
    spec, inputs = make_decode(DecodeCase((17, 40, 9), 2, 0, 48, batch_idx=True))
    shared = inputs._replace(cache_batch_idx=torch.tensor([2, 2, 0], dtype=torch.int32))
    with amdgpu_sim.triton_device("gfx942"):
        assert not failed(compare_call(spec, shared, SMALL, 2))


@pytest.mark.parametrize("interleaved", [True, False])
def test_rotated_keys_are_those_of_pytorch(interleaved: bool) -> None:
    case = DecodeCase((14, 40), 1, 5, 48, dtype=F32, rotary_dim=24, rotary_interleaved=interleaved)
    spec, inputs = make_decode(case)
    tested = inputs._replace(k_cache=inputs.k_cache.clone(), v_cache=inputs.v_cache.clone())
    ReferenceBackend(None).decode(spec, inputs)
    problem, new_tokens = decode_problem(spec, tested)
    with amdgpu_sim.triton_device("gfx942"):
        decode(problem, SMALL, 4, new_tokens, 1)
    assert torch.equal(tested.k_cache, inputs.k_cache)


def test_negative_scale() -> None:
    spec, inputs = make_decode(DecodeCase((17, 40), 2, 0, 48))
    with amdgpu_sim.triton_device("gfx942"):
        assert not failed(compare_call(spec._replace(softmax_scale=-0.3), inputs, SMALL, 2))


def test_tokens_of_missing_pages_are_dropped() -> None:
    spec, inputs = make_decode(DecodeCase((14, 16), 1, 4, 48, page_size=16))
    assert inputs.block_table is not None
    inputs.block_table[0, 1], inputs.block_table[1, 1] = -1, inputs.k_cache.shape[0]
    tested = inputs._replace(k_cache=inputs.k_cache.clone(), v_cache=inputs.v_cache.clone())
    ReferenceBackend().decode(spec, inputs)
    problem, new_tokens = decode_problem(spec, tested)
    with amdgpu_sim.triton_device("gfx942"):
        decode(problem, SMALL, 4, new_tokens, 2)
    torch.testing.assert_close(tested.k_cache, inputs.k_cache, rtol=0, atol=0)
    torch.testing.assert_close(tested.v_cache, inputs.v_cache, rtol=0, atol=0)


MIXED = AttentionCase((1, 20, 0, 3, 1), (70, 40, 30, 3, 17), 4, 2, 16, 16, F32, varlen=True, backward=False)


@pytest.mark.parametrize(("page_size", "causal"), [(0, False), (16, True)])
def test_packed_rows_of_prefill_and_decoding_in_one_launch(page_size: int, causal: bool) -> None:
    case = dataclasses.replace(MIXED, page_size=page_size, causal=causal, seqused=page_size > 0)
    spec, inputs = make_attention(case)
    problem = attention_problem(spec, inputs)
    exact, plain = ReferenceBackend().forward(spec, inputs), ReferenceBackend(None).forward(spec, inputs)
    with amdgpu_sim.triton_device("gfx942"):
        split = decode(problem, SMALL, 4, num_splits=2)
        whole = attention_forward(problem, ForwardConfig(block_m=32, block_n=32, num_warps=2))
    for out, lse in (split, whole):
        assert compare("out", out, exact.out, plain.out, Bound(F32, 0)).passed
        assert compare("lse", lse, exact.softmax_lse, plain.softmax_lse, Bound(F32, 0)).passed


FP8_CACHES = [
    ("gfx942", torch.float8_e4m3fnuz),
    ("gfx942", torch.float8_e4m3fn),
    ("gfx950", torch.float8_e5m2),
    pytest.param("gfx1201", torch.float8_e4m3fn, marks=pytest.mark.slow),
    pytest.param("gfx1100", torch.float8_e4m3fn, marks=pytest.mark.slow),
    pytest.param("gfx90a", torch.float8_e4m3fnuz, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("target", "fp8"), FP8_CACHES, ids=str)
def test_fp8_cache_with_scales_by_sequence_and_head(target: str, fp8: torch.dtype) -> None:
    spec, inputs = make_decode(DecodeCase((14, 40), 2, 4, 48, 4, 2, dtype=BF16, page_size=16))
    generator = torch.Generator().manual_seed(1)
    k_descale, v_descale = (torch.rand(2, 2, generator=generator) + 0.25 for _ in "kv")
    problem, new_tokens = decode_problem(spec, inputs)
    assert inputs.block_table is not None
    assert inputs.cache_seqlens is not None
    assert new_tokens is not None
    k, v = inputs.k_cache.to(fp8), inputs.v_cache.to(fp8)
    new_tokens.k[0, 0, 0, :2] = torch.tensor([1e5, -1e5])
    given = dataclasses.replace(problem, k=k.clone(), v=v.clone(), k_descale=k_descale, v_descale=v_descale)
    with amdgpu_sim.triton_device(target):
        out, lse = decode(given, SMALL, 4, new_tokens, 2)

    # What the kernels should have appended, then attention to the scaled caches.
    largest = torch.finfo(fp8).max
    for cache, new, scale in ((k, new_tokens.k, k_descale), (v, new_tokens.v, v_descale)):
        quantised = (new.float() / scale[:, None, :, None]).clamp(-largest, largest).to(fp8)
        for batch, length in enumerate(inputs.cache_seqlens.tolist()):
            for token in range(new.shape[1]):
                page = int(inputs.block_table[batch, (length + token) // 16])
                cache.view(torch.uint8)[page, (length + token) % 16] = quantised[batch, token].view(torch.uint8)
    assert torch.equal(given.k.view(torch.uint8), k.view(torch.uint8))
    assert torch.equal(given.v.view(torch.uint8), v.view(torch.uint8))
    results = []
    for dtype, backend in ((torch.float64, ReferenceBackend()), (BF16, ReferenceBackend(None))):
        scaled = [_scaled(x, scale, inputs.block_table, dtype) for x, scale in ((k, k_descale), (v, v_descale))]
        call = inputs._replace(q=inputs.q.to(dtype), k_cache=scaled[0], v_cache=scaled[1], k_new=None, v_new=None)
        call = call._replace(cache_seqlens=inputs.cache_seqlens + 4)
        results.append(backend.decode(spec._replace(dtype=dtype), call))
    exact, plain = results
    assert compare("out", out, exact.out, plain.out, Bound(BF16, 0)).passed
    assert compare("lse", lse, exact.softmax_lse, plain.softmax_lse, Bound(BF16, 0)).passed


def _scaled(pages: torch.Tensor, scale: torch.Tensor, block_table: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Pages in ``dtype``, multiplied by the scale of the sequence that they belong to."""
    scaled = pages.to(dtype)
    for batch, row in enumerate(block_table):
        scaled[row.long()] *= scale[batch].to(dtype)[:, None]
    return scaled
