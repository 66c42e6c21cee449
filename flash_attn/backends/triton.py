"""The triton backend: the kernels of ``flash_attn.triton_amd``, imported on first use, on AMD and NVIDIA GPUs.

CPU tensors are for tests: the simulator runs the kernels' AMD machine code, Triton's interpreter their source.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flash_attn import architectures
from flash_attn.attention_spec import FP8_DTYPES, AttentionSpec
from flash_attn.backends import simulation, triton_runtime
from flash_attn.backends.base import AttentionInputs, Backend, DecodeInputs, ForwardResult, Gradients
from flash_attn.backends.extensions import (
    ATTENTION_CHUNK,
    DESCALES,
    FP8,
    QV,
    RAGGED_APPEND,
    RAGGED_QUERIES,
    ROTARY_SEQLENS,
    SEQUSED_Q,
    extension_reasons,
)
from flash_attn.backends.gpu import architecture_name, compute_units

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, *FP8_DTYPES)
_EXTENSIONS = (FP8, DESCALES, SEQUSED_Q, ATTENTION_CHUNK, QV, RAGGED_QUERIES, RAGGED_APPEND, ROTARY_SEQLENS)
_MAX_HEAD_DIM = 512
# Of a GPU that is not there.
_PRETENDED_COMPUTE_UNITS = 64
# The interpreter knows no architecture; configurations are then those of this one.
_INTERPRETED_AS = "gfx942"


class TritonBackend(Backend):
    """Attention in Triton.

    ``deterministic`` changes nothing: every sum has a fixed order. ``num_splits`` counts where rows are few: there
    programs share the keys of a row.

    Args:
        simulated: architecture to simulate on CPU tensors (see :mod:`flash_attn.backends.simulation`); ``None``
            for none.
        forward_config: JSON of a configuration of the forward kernel to use in place of the shipped one.
        autotune: time configurations on the GPU at the first call of each class of problems.
    """

    name = "triton"

    def __init__(self, simulated: str | None = None, forward_config: str | None = None, autotune: bool = False) -> None:
        self._simulated = simulated
        self._forward_config = forward_config
        self._autotune = autotune

    @property
    def device_type(self) -> str:
        """``cpu`` where kernels are emulated."""
        return "cpu" if self.emulated else "cuda"

    @property
    def emulated(self) -> bool:
        """Whether kernels are simulated, or interpreted as ``TRITON_INTERPRET`` asks."""
        return self._simulated is not None or triton_runtime.interpreting()

    def unsupported_reasons(self, spec: AttentionSpec, device: torch.device) -> list[str]:
        """Every reason against ``spec``: dtypes, head dims, backwards into caches, some v3 arguments."""
        reasons = extension_reasons(spec, having=_EXTENSIONS)
        if spec.dtype not in _DTYPES:
            supported = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES)
            reasons.append(f"dtype {str(spec.dtype).removeprefix('torch.')} is not one of {supported}")
        if spec.dtype in FP8_DTYPES and spec.key_dtype != spec.dtype:
            reasons.append("no fp8 queries with keys of another dtype")
        if spec.dtype in FP8_DTYPES and spec.rotary_dim > 0:
            reasons.append("no rotation of fp8 queries")
        if spec.is_fp8 and spec.return_attn_probs:
            reasons.append("no probabilities of fp8 inputs")
        if spec.has_qv and (spec.needs_backward or spec.return_attn_probs):
            reasons.append("no backward and no probabilities with qv")
        if max(spec.head_dim, spec.head_dim_v) > _MAX_HEAD_DIM:
            reasons.append(f"head dims beyond {_MAX_HEAD_DIM}")
        if spec.needs_backward and spec.kv_layout == "paged":
            reasons.append("no backward of paged keys and values")
        if spec.needs_backward and spec.has_cache_batch_idx:
            reasons.append("no backward through cache_batch_idx")
        return reasons

    def machine_reasons(self, device: torch.device) -> list[str]:
        """Why Triton runs nothing on ``device`` here: not installed, no GPU of a known kind, CPU tensors."""
        reasons = [*triton_runtime.installation_reasons(), *super().machine_reasons(device)]
        if reasons:
            return reasons
        if self._simulated is not None:
            if triton_runtime.interpreting():
                return ["TRITON_INTERPRET and FLASH_ATTENTION_SIMULATE are both set; accepted is one of them"]
            if device.type != "cpu":
                return [f"FLASH_ATTENTION_SIMULATE is for CPU tensors, not for {device.type}"]
            return simulation.reasons(self._simulated)
        if device.type == "cpu":
            switches = "FLASH_ATTENTION_SIMULATE or TRITON_INTERPRET=1"
            return [] if triton_runtime.interpreting() else [f"runs on CPU tensors only under {switches}"]
        if device.type != "cuda":
            return [f"runs on GPUs that PyTorch calls cuda, not on {device.type}"]
        arch = architecture_name(device)
        return [] if architectures.find(arch) else [f"GPU architecture {arch} is unknown to flash_attn"]

    def build_reasons(self, spec: AttentionSpec, device: torch.device) -> list[str]:
        """Why the kernels cannot be interpreted or compiled for ``spec``: fp8 that Triton does not convert there."""
        encodings = [dtype for dtype in dict.fromkeys((spec.dtype, spec.key_dtype)) if dtype in FP8_DTYPES]
        if not encodings:
            return []
        if triton_runtime.interpreting():
            return ["Triton's interpreter does not round to fp8"]
        arch = architectures.find(self._simulated or architecture_name(device))
        assert arch is not None
        return [
            f"Triton does not convert {str(dtype).removeprefix('torch.')} on {arch.name}"
            for dtype in encodings
            if not _converts(arch, dtype)
        ]

    def details(self) -> dict[str, str]:
        """The version of Triton and what runs its kernels here."""
        if triton_runtime.installation_reasons():
            return {}
        import triton

        runs = f"simulated as {self._simulated}" if self._simulated else "on GPUs"
        return {"triton": triton.__version__, "runs": "interpreted" if triton_runtime.interpreting() else runs}

    def forward(self, spec: AttentionSpec, inputs: AttentionInputs) -> ForwardResult:
        """Attention of validated inputs."""
        from flash_attn.backends import triton_calls

        device = inputs.q.device
        with triton_runtime.launching(device, self._simulated):
            return triton_calls.forward(spec, inputs, self._choice(device))

    def backward(
        self,
        spec: AttentionSpec,
        inputs: AttentionInputs,
        result: ForwardResult,
        dout: Tensor,
        dlse: Tensor | None,
    ) -> Gradients:
        """Gradients of q, k and v, recomputing the probabilities from ``result.softmax_lse``."""
        from flash_attn.backends import triton_calls

        device = inputs.q.device
        with triton_runtime.launching(device, self._simulated):
            return triton_calls.backward(spec, inputs, result, dout, dlse, self._choice(device))

    def decode(self, spec: AttentionSpec, inputs: DecodeInputs) -> ForwardResult:
        """Append, rotate and attend to a KV cache; the caches change in place."""
        from flash_attn.backends import triton_calls

        device = inputs.q.device
        with triton_runtime.launching(device, self._simulated):
            return triton_calls.decode(spec, inputs, self._choice(device))

    def _choice(self, device: torch.device) -> triton_runtime.ConfigChoice:
        """What the configurations of kernels for tensors on ``device`` follow from."""
        on_gpu = device.type == "cuda"
        arch = architecture_name(device) if on_gpu else self._simulated or _INTERPRETED_AS
        units = compute_units(device) if on_gpu else _PRETENDED_COMPUTE_UNITS
        return triton_runtime.ConfigChoice(arch, self._forward_config, self._autotune and on_gpu, units)


def _converts(arch: architectures.Architecture, dtype: torch.dtype) -> bool:
    """Whether Triton converts an fp8 ``dtype`` on ``arch``: on NVIDIA's GPUs e4m3 as their matrix units take it."""
    if arch.vendor == "amd" or dtype == torch.float8_e5m2:
        return True
    return dtype == torch.float8_e4m3fn and arch.fp8 == "ocp"
