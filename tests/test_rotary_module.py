"""RotaryEmbedding: its rotation, its scales and the tables it keeps."""

import pytest
import torch
from rotary_definition import F64, both_layouts, expected
from torch import Tensor

from flash_attn.layers.rotary import RotaryEmbedding


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def embedding_tables(dim: int, seqlen: int) -> tuple[Tensor, Tensor]:
    angles = torch.arange(seqlen, dtype=F64)[:, None] / 100.0 ** (torch.arange(0, dim, 2, dtype=F64) / dim)
    return angles.cos(), angles.sin()


@both_layouts
@pytest.mark.parametrize("scale_base", [None, 16], ids=["plain", "xpos"])
def test_rotary_embedding(interleaved: bool, scale_base: int | None) -> None:
    module = RotaryEmbedding(4, base=100.0, interleaved=interleaved, scale_base=scale_base)
    qkv = torch.randn(2, 5, 3, 2, 6)
    cos, sin = embedding_tables(4, 8)
    decay = torch.ones(8, 1, dtype=F64)
    if scale_base is not None:
        base = (torch.arange(0, 4, 2, dtype=F64) + 1.6) / 5.6
        decay = base ** ((torch.arange(8, dtype=F64) - 4) / 16)[:, None]
    positions = torch.arange(5) + 3
    q = expected(qkv[:, :, 0], cos * decay, sin * decay, positions, interleaved)
    k = expected(qkv[:, :, 1], cos / decay, sin / decay, positions, interleaved)
    # float32 angles below 8 and a handful of float32 operations on values below 16.
    atol = 16 * 8 * torch.finfo(torch.float32).eps
    packed = module(qkv.clone(), seqlen_offset=3)
    torch.testing.assert_close(packed.double(), torch.stack([q, k, qkv[:, :, 2].double()], dim=2), rtol=0, atol=atol)
    given_q, given_kv = qkv[:, :, 0].clone(), qkv[:, :, 1:].clone()
    out_q, out_kv = module(given_q, given_kv, seqlen_offset=torch.tensor([3, 3]), max_seqlen=8)
    torch.testing.assert_close(out_q.double(), q, rtol=0, atol=atol)
    torch.testing.assert_close(out_kv[:, :, 0].double(), k, rtol=0, atol=atol)
    assert torch.equal(out_kv[:, :, 1], qkv[:, :, 2])
    assert (out_q.data_ptr(), out_kv.data_ptr()) == (given_q.data_ptr(), given_kv.data_ptr())
    grouped = module(qkv.flatten(2, 3), seqlen_offset=3, num_heads_q=2)
    torch.testing.assert_close(grouped[:, :, :2].double(), q, rtol=0, atol=atol)
    torch.testing.assert_close(grouped[:, :, 2:4].double(), k, rtol=0, atol=atol)


def test_rotary_embedding_cache() -> None:
    module = RotaryEmbedding(4)
    assert (module._seq_len_cached, module._cos_cached, module._cos_k_cached) == (0, None, None)
    assert module.inv_freq.shape == (2,)
    assert module.scale is None
    assert module.state_dict() == {}
    module(torch.zeros(1, 6, 3, 1, 4))
    table = module._cos_cached
    module(torch.zeros(1, 3, 3, 1, 4), seqlen_offset=2)
    assert module._cos_cached is table
    assert module._seq_len_cached == 6
    module(torch.zeros(1, 7, 3, 1, 4))
    assert module._seq_len_cached == 7
    module(torch.zeros(1, 7, 3, 1, 4, dtype=torch.bfloat16))
    assert module._sin_cached is not None
    assert module._sin_cached.dtype == torch.bfloat16


def test_half_precision_module_keeps_float32_angles() -> None:
    module, exact = RotaryEmbedding(8, scale_base=512), RotaryEmbedding(8, scale_base=512)
    module.half()
    module._update_cos_sin_cache(3000, torch.device("cpu"), torch.float16)
    exact._update_cos_sin_cache(3000, torch.device("cpu"), torch.float16)
    assert module.inv_freq.dtype == torch.float16
    for name in ("_cos_cached", "_sin_cached", "_cos_k_cached", "_sin_k_cached"):
        assert torch.equal(getattr(module, name), getattr(exact, name))


@pytest.mark.parametrize("training", [True, False])
def test_tables_made_in_inference_mode_serve_training(training: bool) -> None:
    module = RotaryEmbedding(4).train(training)
    with torch.inference_mode():
        module(torch.zeros(1, 5, 3, 1, 4))
    qkv = torch.randn(1, 5, 3, 1, 4, requires_grad=True)
    torch.autograd.backward([module(qkv * 1).sum()])
    assert qkv.grad is not None
