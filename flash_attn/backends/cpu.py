"""The ``cpu`` backend: tiled attention in PyTorch operations, the default without a GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from flash_attn.attention_spec import FP8_DTYPES, AttentionSpec
from flash_attn.backends.base import AttentionInputs, Backend, DecodeInputs, ForwardResult, Gradients
from flash_attn.backends.cpu_kernels.backward import attention_backward
from flash_attn.backends.cpu_kernels.forward import attention_forward
from flash_attn.backends.kv_append import append_and_rotate

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, *FP8_DTYPES)


class CpuBackend(Backend):
    """Exact attention on CPU tensors, in memory linear in the sequence length.

    ``num_splits`` and ``deterministic`` change nothing: keys are split where a tile has no room for them, and
    every sum has a fixed order.
    """

    name = "cpu"
    device_type = "cpu"

    def unsupported_reasons(self, spec: AttentionSpec, device: torch.device) -> list[str]:
        """Every reason against ``spec`` on ``device``: another device, or a dtype that is not floating point."""
        reasons = []
        if device.type != "cpu":
            reasons.append(f"runs on CPU tensors, not on {device.type}")
        for dtype in dict.fromkeys((spec.dtype, spec.key_dtype)):
            if dtype not in _DTYPES:
                supported = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES)
                reasons.append(f"dtype {str(dtype).removeprefix('torch.')} is not one of {supported}")
        return reasons

    @torch.no_grad()
    def forward(self, spec: AttentionSpec, inputs: AttentionInputs) -> ForwardResult:
        """Attention of validated inputs."""
        return attention_forward(spec, inputs)

    @torch.no_grad()
    def backward(
        self,
        spec: AttentionSpec,
        inputs: AttentionInputs,
        result: ForwardResult,
        dout: Tensor,
        dlse: Tensor | None,
    ) -> Gradients:
        """Gradients of q, k and v, recomputing the probabilities from ``result.softmax_lse``."""
        return attention_backward(spec, inputs, result, dout, dlse)

    @torch.no_grad()
    def decode(self, spec: AttentionSpec, inputs: DecodeInputs) -> ForwardResult:
        """Append, rotate and attend to a KV cache; the caches change in place."""
        return attention_forward(*append_and_rotate(spec, inputs))
