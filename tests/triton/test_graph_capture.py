"""What a CUDA or HIP graph can capture: no call of the triton backend reads a value from the GPU or sends it one.

Tensors are on PyTorch's meta device in place of a GPU, where they have no data; everything between an operator and the
launch of a kernel runs on them: checks, the choice of a backend, configurations, splits, allocations.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from decode_grid import CORE  # type: ignore[import-not-found]
from flash_attn.triton_amd.launch import Launch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from flash_attn import dispatch
from flash_attn.backends import triton_runtime
from flash_attn.backends.base import AttentionInputs
from flash_attn.backends.triton import TritonBackend
from flash_attn.testing import AttentionCase, DecodeCase, make_attention, make_decode
from flash_attn.value_checks import check_attention_values, check_decode_values

GPU, META = torch.device("cuda", 0), torch.device("meta")
TRAINING = AttentionCase((40, 40), (50, 50), 4, 2, 64, 64, torch.bfloat16, causal=True, dropout_p=0.1)
PACKED = AttentionCase((1, 70, 0), (90, 90, 17), 4, 2, varlen=True, causal=True, dtype=torch.float16)
ATTENTION = {
    "training": TRAINING,
    "packed training": PACKED,
    "a row of dense keys": replace(TRAINING, seqlens_q=(1, 1), dropout_p=0.0, backward=False, num_splits=2),
    **{name: case for name, case in CORE.items() if isinstance(case, AttentionCase)},
}
DECODING = {name: case for name, case in CORE.items() if isinstance(case, DecodeCase)}


class _OnTheDevice(TorchDispatchMode):
    """Raises where an operation gives a number, or a tensor that is not on the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        leaves = tree_leaves(result)
        elsewhere = any(isinstance(x, Tensor) and x.device != META for x in leaves)
        if elsewhere or any(isinstance(x, (bool, int, float)) for x in leaves):
            raise AssertionError(f"{func} gave {result}")
        return result


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels that were launched on no GPU."""
    names: list[str] = []
    monkeypatch.setattr(Launch, "run", lambda launch: names.append(launch.kernel.__name__))
    monkeypatch.setattr(TritonBackend, "machine_reasons", lambda backend, device: [])
    monkeypatch.setattr("flash_attn.backends.triton.architecture_name", lambda device: "gfx942")
    monkeypatch.setattr(triton_runtime, "launching", lambda device, simulated: nullcontext())
    return names


def _moved(inputs: Any) -> Any:
    """The tensors of a call without their data."""
    return tree_map(lambda x: x.to(META) if isinstance(x, Tensor) else x, inputs)


@pytest.mark.parametrize("num_splits", [0, 1, 3])
@pytest.mark.parametrize("name", DECODING)
def test_decoding(name: str, num_splits: int, launched: list[str]) -> None:
    spec, inputs = make_decode(replace(DECODING[name], num_splits=num_splits))
    given = _moved(inputs)
    with _OnTheDevice():
        check_decode_values(given)
        result = dispatch.select(spec, GPU, "triton").decode(spec, given)
    assert result.out.shape == (*inputs.q.shape[:-1], spec.head_dim_v)
    assert "_attn_split_kernel" in launched
    assert ("_append_kernel" in launched) == spec.appends_kv
    if num_splits > 0:
        assert ("_combine_kernel" in launched) == (num_splits > 1)


@pytest.mark.parametrize("name", ATTENTION)
def test_attention(name: str, launched: list[str]) -> None:
    case = ATTENTION[name]
    spec, inputs = make_attention(case)
    given: AttentionInputs = _moved(inputs)
    with _OnTheDevice():
        check_attention_values(given)
        backend = dispatch.select(spec, GPU, "triton")
        result = backend.forward(spec, given)
        if case.backward:
            backend.backward(spec, given, result, torch.empty_like(result.out), None)
    assert launched


@pytest.mark.parametrize(
    "read", [Tensor.item, Tensor.tolist, Tensor.cpu, bool, lambda x: torch.arange(3).to(x.device), lambda x: int(x) + 1]
)
def test_reading_is_noticed(read: Callable[[Tensor], object]) -> None:
    x = torch.empty((), device=META, dtype=torch.int32)
    with _OnTheDevice(), pytest.raises((AssertionError, RuntimeError)):
        read(x)
