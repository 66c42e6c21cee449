"""The step of a KV cache of the native backends where their kernel does not do it; none is loaded here."""

from dataclasses import replace

import pytest
import torch

from flash_attn.backends import kv_append, native_append
from flash_attn.backends.base import DecodeInputs
from flash_attn.backends.ck import library
from flash_attn.testing import decode_copy
from flash_attn.testing_cases import DecodeCase, make_decode

CASE = DecodeCase((3, 7), 2, 2, 12, head_dim=16, head_dim_v=16, dtype=torch.bfloat16, rotary_dim=16)


def misaligned(inputs: DecodeInputs) -> DecodeInputs:
    """Caches whose rows begin 8 bytes behind a multiple of 16."""
    wider = (torch.cat((x, x), -1) for x in (inputs.k_cache, inputs.v_cache))
    k_cache, v_cache = (x[..., 4:20] for x in wider)
    return inputs._replace(k_cache=k_cache, v_cache=v_cache)


def test_without_new_tokens_nothing_is_launched() -> None:
    spec, inputs = make_decode(replace(CASE, seqlen_new=0, rotary_dim=0))
    attended, given = native_append.append_and_rotate(library(), spec, inputs)
    assert attended.phase == "attention"
    assert given.q is inputs.q
    assert given.seqused_k is not None
    assert given.seqused_k.tolist() == [3, 7]


def test_rows_that_no_store_can_begin_at_are_written_by_pytorch() -> None:
    spec, inputs = make_decode(CASE)
    inputs = misaligned(inputs)
    assert not native_append.kernel_writes(inputs)
    expected = kv_append.append_and_rotate(spec, decode_copy(inputs, None))[1]
    given = native_append.append_and_rotate(library(), spec, inputs)[1]
    assert given.k is inputs.k_cache
    for name in ("q", "k", "v", "seqused_k"):
        assert torch.equal(getattr(given, name), getattr(expected, name)), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float8_e4m3fn])
def test_the_kernel_writes_16_bit_caches_alone(dtype: torch.dtype) -> None:
    _, inputs = make_decode(CASE)
    assert native_append.kernel_writes(inputs)
    assert not native_append.kernel_writes(inputs._replace(v_cache=inputs.v_cache.to(dtype)))
