"""A tiny Llama of transformers through its own FlashAttention-2 path, against its eager attention."""

# mypy: disable-error-code="arg-type,call-arg,misc"

import functools

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, modeling_flash_attention_utils

import flash_attn


def _tiny_llama(implementation: str) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        attn_implementation=implementation,
    )
    return LlamaForCausalLM(config)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let transformers take flash_attn without a GPU, and list which of its functions it calls."""
    names: list[str] = []

    def counted(name: str) -> None:
        function = getattr(flash_attn, name)

        @functools.wraps(function)
        def call(*args: object, **kwargs: object) -> object:
            names.append(name)
            return function(*args, **kwargs)

        monkeypatch.setattr(flash_attn, name, call)

    counted("flash_attn_func")
    counted("flash_attn_varlen_func")
    monkeypatch.setattr(modeling_flash_attention_utils, "_loaded_implementation", None)
    monkeypatch.setattr(modeling_flash_attention_utils, "is_flash_attn_2_available", lambda: True)
    monkeypatch.setattr(PreTrainedModel, "_flash_attn_can_dispatch", lambda *_, **__: True)
    return names


def _run(implementation: str, **inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    model = _tiny_llama(implementation)
    kept = inputs.pop("kept")
    logits = model(**inputs).logits[kept]
    logits.square().sum().backward()
    return logits.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def _assert_same(one: tuple[Tensor, dict[str, Tensor]], other: tuple[Tensor, dict[str, Tensor]]) -> None:
    torch.testing.assert_close(one[0], other[0])
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, other[1][name], msg=lambda text, name=name: f"{name}: {text}")


def test_a_padded_batch(calls: list[str]) -> None:
    ids = torch.randint(0, 97, (3, 20), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, :7] = 0
    mask[2, 13:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask, "kept": mask.bool()}
    _assert_same(_run("flash_attention_2", **inputs), _run("eager", **inputs))
    assert set(calls) == {"flash_attn_varlen_func"}


def test_a_batch_without_padding(calls: list[str]) -> None:
    ids = torch.randint(0, 97, (2, 20), generator=torch.Generator().manual_seed(1))
    inputs = {"input_ids": ids, "kept": torch.ones_like(ids).bool()}
    _assert_same(_run("flash_attention_2", **inputs), _run("eager", **inputs))
    assert set(calls) == {"flash_attn_func"}


def test_packed_sequences(calls: list[str]) -> None:
    lengths = (7, 12, 5)
    ids = torch.randint(0, 97, (1, sum(lengths)), generator=torch.Generator().manual_seed(1))
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    everything = torch.ones_like(ids).bool()
    packed = _run("flash_attention_2", input_ids=ids, position_ids=positions, kept=everything)
    assert set(calls) == {"flash_attn_varlen_func"}

    model = _tiny_llama("eager")
    logits = torch.cat([model(input_ids=part).logits[0] for part in ids.split(lengths, 1)])
    logits.square().sum().backward()
    _assert_same(packed, (logits.detach(), {name: p.grad for name, p in model.named_parameters()}))
