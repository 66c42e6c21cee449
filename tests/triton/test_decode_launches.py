"""What the launcher of the decode kernels does without a GPU: launches, splits, workspace."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from flash_attn.triton_amd.decode import decode, decode_launches, has_few_rows, workspace_size
from flash_attn.triton_amd.decode_config import DecodeConfig, decode_config
from flash_attn.triton_amd.launch import Launch
from flash_attn.triton_amd.problem import Problem
from flash_attn.triton_amd.split_plan import choose_num_splits, most_keys_of_tile

import amdgpu_sim
from flash_attn.backends.triton_calls import decode_problem
from flash_attn.testing import DecodeCase, make_decode

CONFIG = DecodeConfig(block_m=32, block_n=32, num_warps=2)
MI300X_UNITS = 304
FULL = DecodeCase(
    (14, 31, 0),
    4,
    5,
    48,
    4,
    2,
    dtype=torch.bfloat16,
    page_size=16,
    rotary_dim=32,
    alibi_dims=2,
    sink=True,
    leftpad=True,
)


def _names(launches: list[Launch]) -> list[str]:
    return [launch.kernel.__name__ for launch in launches]


def _problem(batch: int = 1, capacity: int = 131072, seqlen_q: int = 1, **changes: object) -> Problem:
    """GQA of 32 query heads over 8, head dim 128; tensors without data."""

    def empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    q, k, v = empty(batch, seqlen_q, 32, 128), empty(batch, capacity, 8, 128), empty(batch, capacity, 8, 128)
    problem = Problem(q, k, v, seqlen_q, capacity, 0.1, seqused_k=empty(batch, dtype=torch.int32))
    return dataclasses.replace(problem, **changes)


def test_meta_tensors_reach_every_launch() -> None:
    out, lse, launches = decode_launches(_problem(), CONFIG, MI300X_UNITS)
    assert out.is_meta
    assert lse.is_meta
    assert _names(launches) == ["_attn_split_kernel", "_combine_kernel"]


def test_one_split_writes_the_result_itself() -> None:
    out, lse, (launch,) = decode_launches(_problem(), CONFIG, MI300X_UNITS, num_splits=1)
    assert launch.arguments["out_ptr"] is out
    assert launch.arguments["lse_ptr"] is lse


def test_num_splits_is_honoured() -> None:
    *_, launches = decode_launches(_problem(), CONFIG, MI300X_UNITS, num_splits=7)
    assert launches[0].grid == (7 * 8,)
    assert launches[1].arguments["num_splits"] == 7


def test_one_sequence_of_128k_keys_fills_the_gpu() -> None:
    for units in (MI300X_UNITS, 48):
        *_, launches = decode_launches(_problem(), CONFIG, units)
        programs = launches[0].grid[0]
        assert 0.8 * units * CONFIG.programs_per_unit <= programs <= units * CONFIG.programs_per_unit


@pytest.mark.parametrize(
    ("programs", "keys", "slots", "num_splits"),
    [
        (8, 131072, 608, 76),
        (8, 1024, 608, 4),
        (8, 100, 608, 1),
        (1, 10**7, 1000, 128),
        (608, 131072, 608, 1),
        (487, 131072, 608, 1),
        (300, 131072, 608, 2),
        (0, 131072, 608, 1),
        (8, 0, 608, 1),
    ],
)
def test_chosen_number_of_splits(programs: int, keys: int, slots: int, num_splits: int) -> None:
    assert choose_num_splits(programs, keys, slots) == num_splits


def test_a_window_bounds_the_keys_of_a_tile() -> None:
    assert most_keys_of_tile(_problem(), 1) == 131072
    assert most_keys_of_tile(_problem(window_left=1000, window_right=0), 1) == 1001
    assert most_keys_of_tile(_problem(window_left=1000), 1) == 131072


@pytest.mark.parametrize(("chunk", "tokens", "keys"), [(1000, 1, 1000), (1000, 2, 2000), (4, 6, 12), (1, 3, 3)])
def test_a_chunk_bounds_the_keys_of_a_tile(chunk: int, tokens: int, keys: int) -> None:
    assert most_keys_of_tile(_problem(attention_chunk=chunk), tokens) == keys


def test_many_sequences_are_not_split() -> None:
    *_, launches = decode_launches(_problem(batch=128), CONFIG, MI300X_UNITS)
    assert _names(launches) == ["_attn_split_kernel"]


def test_workspace() -> None:
    spec, inputs = make_decode(DecodeCase((17, 90), 2, 0, 96))
    problem, _ = decode_problem(spec, inputs)
    size = workspace_size(problem, CONFIG, 4, 3)
    assert size == 3 * 2 * 2 * 4 * 33
    assert workspace_size(problem, CONFIG, 4, 1) == 0
    workspace = torch.full((size + 1,), float("nan"))
    with amdgpu_sim.triton_device("gfx942"):
        own = decode(problem, CONFIG, 4, num_splits=3)
        given = decode(problem, CONFIG, 4, num_splits=3, workspace=workspace)
        again = decode(problem, CONFIG, 4, num_splits=3, workspace=workspace)
    assert workspace[:-1].isfinite().any()
    assert workspace[-1].isnan()
    for results in (given, again):
        assert torch.equal(results[0], own[0])
        assert torch.equal(results[1], own[1])


@pytest.mark.parametrize("workspace", [torch.empty(10), torch.empty(10**4, dtype=torch.float16), torch.empty(99, 99)])
def test_a_workspace_that_does_not_do_is_refused(workspace: torch.Tensor) -> None:
    spec, inputs = make_decode(DecodeCase((17, 90), 2, 0, 96))
    problem, _ = decode_problem(spec, inputs)
    with pytest.raises(
        ValueError, match=r"workspace is torch.float\d\d of shape .* takes torch.float32 of shape \(1584,\)"
    ):
        decode_launches(problem, CONFIG, 4, num_splits=3, workspace=workspace)


def test_new_tokens_need_lengths() -> None:
    spec, inputs = make_decode(FULL)
    problem, new_tokens = decode_problem(spec, inputs)
    with pytest.raises(ValueError, match="new tokens need seqused_k"):
        decode_launches(dataclasses.replace(problem, seqused_k=None), CONFIG, 4, new_tokens)


def test_rows_that_count_as_few() -> None:
    assert has_few_rows(_problem(seqlen_q=16))
    assert not has_few_rows(_problem(seqlen_q=17))
    assert not has_few_rows(_problem(dropout_p=0.1))


@pytest.mark.parametrize(
    "arch", ["gfx90a", "gfx942:sramecc+:xnack-", "gfx950", "gfx1100", "gfx1201", "sm_90", "unknown"]
)
def test_every_architecture_has_tiles(arch: str) -> None:
    config = decode_config(_problem(), arch)
    assert config.block_m >= 16
    assert config.fp8 == {"gfx942:sramecc+:xnack-": "fnuz", "gfx950": "ocp", "gfx1201": "ocp", "sm_90": "ocp"}.get(arch)
