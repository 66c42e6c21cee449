"""The ck backend: composable_kernel's attention on AMD GPUs, compiled when the package is built.

Its dropout has a generator of its own (Philox inside of CK-tile, with 8 bits an element, so that ``dropout_p`` is
rounded to 1/255): a seed drops other elements than on the other backends.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends import ck_library, simulation
from flash_attn.backends.base import AttentionInputs, Backend, DecodeInputs, ForwardResult, Gradients
from flash_attn.backends.kv_append import append_and_rotate

_DTYPES = (torch.float16, torch.bfloat16)
_MAX_HEAD_DIM = 256
_HEAD_DIM_MULTIPLE = 8  # elements of a 16-byte load


class CKBackend(Backend):
    """Attention in CK-tile.

    Args:
        simulated: architecture to simulate on CPU tensors (see :mod:`flash_attn.backends.simulation`); ``None``
            for none.
    """

    name = "ck"

    def __init__(self, simulated: str | None = None) -> None:
        self._simulated = simulated

    @property
    def device_type(self) -> str:
        """``cpu`` where kernels are simulated."""
        return "cuda" if self._simulated is None else "cpu"

    @property
    def emulated(self) -> bool:
        """Whether kernels are simulated."""
        return self._simulated is not None

    def unsupported_reasons(self, spec: AttentionSpec, device: torch.device) -> list[str]:
        """Every reason against ``spec`` that no build of this version takes away."""
        checks = {
            f"dtype {str(spec.dtype).removeprefix('torch.')} is not one of float16, bfloat16": spec.dtype not in _DTYPES,
            f"head dims beyond {_MAX_HEAD_DIM}": max(spec.head_dim, spec.head_dim_v) > _MAX_HEAD_DIM,
            f"head dims that are no multiple of {_HEAD_DIM_MULTIPLE}": spec.head_dim % _HEAD_DIM_MULTIPLE != 0
            or spec.head_dim_v % _HEAD_DIM_MULTIPLE != 0,
            "no backward in this version": spec.needs_backward,
            "no paged keys and values in this version": spec.kv_layout == "paged",
            "no cache_batch_idx in this version": spec.has_cache_batch_idx,
            "no leftpad_k": spec.has_leftpad_k,
            "no attention sink": spec.has_sink,
            "no attention probabilities": spec.return_attn_probs,
            "one of softcap, ALiBi and dropout at a time": (spec.softcap > 0) + spec.has_alibi + (spec.dropout_p > 0)
            > 1,
            "varlen queries need varlen keys": spec.varlen_q != (spec.kv_layout == "varlen"),
        }
        return [reason for reason, holds in checks.items() if holds]

    def machine_reasons(self, device: torch.device) -> list[str]:
        """Why CK runs nothing on ``device`` here: no kernels built, no HIP runtime, no ROCm device."""
        if device.type != self.device_type:
            where = "CPU tensors under FLASH_ATTENTION_SIMULATE" if self.emulated else "ROCm devices"
            return [f"no ROCm device: CK runs on {where}, and this is {device.type}"]
        if self._simulated is None and torch.version.hip is None:
            return ["no ROCm device: this PyTorch is not built for ROCm"]
        if reasons := ck_library.loading_reasons(self._simulated):
            return list(reasons)
        try:
            arch = ck_library.architecture(device.index or 0)
        except RuntimeError as error:
            return [f"no ROCm device: {error}"]
        built = sorted({arch for row in ck_library.instances() for arch in row["archs"]})
        return [] if arch in built else [f"CK kernels were built for {', '.join(built)}, and this is {arch}"]

    def build_reasons(self, spec: AttentionSpec, device: torch.device) -> list[str]:
        """Why the kernels that were built do not serve ``spec``."""
        missing = ck_library.missing_instance(spec, ck_library.architecture(device.index or 0), _runs_varlen(spec))
        return [missing] if missing else []

    def details(self) -> dict[str, str]:
        """How many kernels were built, and for what."""
        if ck_library.loading_reasons(self._simulated):
            return {}
        rows = ck_library.instances()
        archs = sorted({arch for row in rows for arch in row["archs"]})
        return {"kernels": f"{len(rows)} for {', '.join(archs)}"}

    def forward(self, spec: AttentionSpec, inputs: AttentionInputs) -> ForwardResult:
        """Attention of validated inputs."""
        if spec.varlen_q or not spec.has_seqused_k:
            return self._launch(spec, inputs)
        batch, seqlen_q, nheads_q, _ = inputs.q.shape
        result = self._launch(spec, _flattened(inputs))
        softmax_lse = result.softmax_lse.view(nheads_q, batch, seqlen_q).transpose(0, 1).contiguous()
        return ForwardResult(result.out.view(batch, seqlen_q, nheads_q, -1), softmax_lse)

    def backward(
        self,
        spec: AttentionSpec,
        inputs: AttentionInputs,
        result: ForwardResult,
        dout: Tensor,
        dlse: Tensor | None,
    ) -> Gradients:
        """Refuse: ``unsupported_reasons`` says that there is none."""
        raise RuntimeError("the ck backend has no backward in this version")

    def decode(self, spec: AttentionSpec, inputs: DecodeInputs) -> ForwardResult:
        """Append, rotate and attend to a KV cache; the caches change in place."""
        return self.forward(*append_and_rotate(spec, inputs))

    def _launch(self, spec: AttentionSpec, inputs: AttentionInputs) -> ForwardResult:
        q = inputs.q
        out = q.new_empty(*q.shape[:-1], inputs.v.shape[-1])
        lse_shape = (q.shape[1], q.shape[0]) if q.dim() == 3 else (q.shape[0], q.shape[2], q.shape[1])
        softmax_lse = q.new_empty(lse_shape, dtype=torch.float32)
        if inputs.k.numel() == 0:
            return ForwardResult(out.zero_(), softmax_lse.fill_(-torch.inf))
        tensors = (
            *(inputs.q, inputs.k, inputs.v, out, softmax_lse),
            *(inputs.cu_seqlens_q, inputs.cu_seqlens_k, inputs.seqused_k),
            *(_float32(inputs.alibi_slopes), inputs.rng_state if spec.dropout_p > 0 else None),
        )
        numbers = (spec.softmax_scale, spec.softcap, spec.dropout_p, spec.window_left, spec.window_right)
        simulated = self._simulated
        with simulation.launching_hip(simulated, tensors) if simulated else nullcontext():
            torch.ops.flash_attn_ck.forward(*tensors, inputs.max_seqlen_q, inputs.max_seqlen_k, *numbers)
        return ForwardResult(out, softmax_lse)


def _runs_varlen(spec: AttentionSpec) -> bool:
    """Whether the kernel for sequences of different lengths runs; the other knows no ``seqused_k``."""
    return spec.varlen_q or spec.has_seqused_k


def _flattened(inputs: AttentionInputs) -> AttentionInputs:
    """A dense call as a varlen one; its tensors are views where sequences follow each other in memory."""
    q, k, v = (x.reshape(-1, *x.shape[2:]) for x in (inputs.q, inputs.k, inputs.v))
    cu_seqlens_q, cu_seqlens_k = (
        torch.arange(x.shape[0] + 1, dtype=torch.int32, device=x.device) * x.shape[1] for x in (inputs.q, inputs.k)
    )
    return inputs._replace(q=q, k=k, v=v, cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k)


def _float32(slopes: Tensor | None) -> Tensor | None:
    return None if slopes is None else slopes.float().contiguous()
