"""What PyTorch's append to a KV cache writes where some of the new tokens have no slot, as unchecked values can ask."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends.base import DecodeInputs
from flash_attn.backends.kv_append import append_and_rotate

PAGE_SIZE = 4


def _append(cache: Tensor, block_table: Tensor | None, lengths: list[int], seqlen_new: int) -> Tensor:
    """The cache after ``seqlen_new`` tokens a sequence, which hold 1, 2, ... in the order of the rows."""
    batch = len(lengths)
    new = torch.arange(1.0, batch * seqlen_new + 1).view(batch, seqlen_new, 1, 1).expand(-1, -1, 1, 8)
    spec = AttentionSpec(torch.float32, 1, 1, 8, 8, 1.0, phase="decode", appends_kv=True)
    inputs = DecodeInputs(
        torch.ones(batch, 1, 1, 8),
        cache.clone(),
        cache.clone(),
        new,
        new,
        cache_seqlens=torch.tensor(lengths, dtype=torch.int32),
        block_table=block_table,
    )
    append_and_rotate(spec, inputs)
    assert torch.equal(inputs.k_cache, inputs.v_cache)
    return inputs.k_cache[..., 0, 0]


@pytest.mark.parametrize("invalid", [-1, 3])
def test_tokens_of_an_invalid_page_are_dropped_and_those_of_the_next_page_are_written(invalid: int) -> None:
    held = torch.zeros(3, PAGE_SIZE, 1, 8)
    after = _append(held, torch.tensor([[0, invalid, 1]], dtype=torch.int32), [2], 8)
    expected = torch.zeros(3, PAGE_SIZE)
    expected[0, 2:] = torch.tensor([1.0, 2.0])
    expected[1, :2] = torch.tensor([7.0, 8.0])
    assert torch.equal(after, expected)


def test_a_sequence_without_room_leaves_the_slots_of_others_alone() -> None:
    held = torch.zeros(2, PAGE_SIZE, 1, 8)
    after = _append(held, torch.tensor([[0], [-1], [-1]], dtype=torch.int32), [1, 1, 1], 1)
    expected = torch.zeros(2, PAGE_SIZE)
    expected[0, 1] = 1.0
    assert torch.equal(after, expected)


def test_full_caches_stay_as_they_are() -> None:
    held = torch.arange(2.0 * PAGE_SIZE).view(2, PAGE_SIZE, 1, 1).expand(-1, -1, 1, 8).contiguous()
    assert torch.equal(_append(held, None, [PAGE_SIZE, PAGE_SIZE], 2), held[..., 0, 0])
