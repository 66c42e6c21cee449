"""The ck backend: composable_kernel's attention on AMD GPUs, compiled when the package is built."""

from __future__ import annotations

import torch
from torch import Tensor

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends import ck_calls, ck_dropout, ck_library
from flash_attn.backends.base import AttentionInputs, Backend, DecodeInputs, ForwardResult, Gradients
from flash_attn.backends.extensions import extension_reasons
from flash_attn.backends.kv_append import append_and_rotate

_DTYPES = (torch.float16, torch.bfloat16)
_MAX_HEAD_DIM = 256
_HEAD_DIM_MULTIPLE = 8  # elements of a 16-byte load
_PAGE_MULTIPLE = 64  # keys of the smallest tile
_SPLIT_HEAD_DIMS = (64, 128, 256)


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
            f"dtype {str(spec.dtype).removeprefix('torch.')} is not one of float16, bfloat16": spec.dtype
            not in _DTYPES,
            f"head dims beyond {_MAX_HEAD_DIM}": max(spec.head_dim, spec.head_dim_v) > _MAX_HEAD_DIM,
            f"head dims that are no multiple of {_HEAD_DIM_MULTIPLE}": spec.head_dim % _HEAD_DIM_MULTIPLE != 0
            or spec.head_dim_v % _HEAD_DIM_MULTIPLE != 0,
            "no backward of softcap": spec.needs_backward and spec.softcap > 0,
            "no backward of ALiBi and deterministic": spec.needs_backward and spec.deterministic and spec.has_alibi,
            f"page sizes that are no multiple of {_PAGE_MULTIPLE}": spec.page_size % _PAGE_MULTIPLE != 0,
            f"pages and cache_batch_idx with head dims other than {', '.join(str(dim) for dim in _SPLIT_HEAD_DIMS)}": (
                spec.kv_layout == "paged" or spec.has_cache_batch_idx
            )
            and not (spec.head_dim == spec.head_dim_v and spec.head_dim in _SPLIT_HEAD_DIMS),
            "no varlen queries over pages": spec.kv_layout == "paged" and spec.varlen_q,
            "no backward through pages and caches": spec.needs_backward
            and (spec.kv_layout == "paged" or spec.has_cache_batch_idx),
            "no leftpad_k": spec.has_leftpad_k,
            "no attention sink": spec.has_sink,
            "no attention probabilities": spec.return_attn_probs,
            "no dropout with softcap, ALiBi or deterministic": spec.dropout_p > 0
            and (spec.softcap > 0 or spec.has_alibi or (spec.needs_backward and spec.deterministic)),
            "no softcap with ALiBi": spec.softcap > 0 and spec.has_alibi,
            "varlen queries and keys come together": spec.kv_layout != "paged"
            and spec.varlen_q != (spec.kv_layout == "varlen"),
        }
        return [*extension_reasons(spec, having=()), *(reason for reason, holds in checks.items() if holds)]

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
        return ck_calls.missing_kernels(spec, ck_library.architecture(device.index or 0))

    def details(self) -> dict[str, str]:
        """How many kernels were built, and for what."""
        if ck_library.loading_reasons(self._simulated):
            return {}
        rows = ck_library.instances()
        archs = sorted({arch for row in rows for arch in row["archs"]})
        return {"kernels": f"{len(rows)} for {', '.join(archs)}"}

    def keep_mask(
        self, rng_state: Tensor, dropout_p: float, batch_heads: Tensor, rows: Tensor, first_column: int, columns: int
    ) -> Tensor:
        """Which probabilities survive CK's dropout."""
        return ck_dropout.keep_mask(rng_state, dropout_p, batch_heads, rows, first_column, columns)

    def forward(self, spec: AttentionSpec, inputs: AttentionInputs) -> ForwardResult:
        """Attention of validated inputs."""
        return ck_calls.forward(spec, inputs, self._simulated)

    def backward(
        self,
        spec: AttentionSpec,
        inputs: AttentionInputs,
        result: ForwardResult,
        dout: Tensor,
        dlse: Tensor | None,
    ) -> Gradients:
        """Gradients of q, k and v, recomputing the probabilities from ``result.softmax_lse``."""
        return ck_calls.backward(spec, inputs, result, dout, dlse, self._simulated)

    def decode(self, spec: AttentionSpec, inputs: DecodeInputs) -> ForwardResult:
        """Append, rotate and attend to a KV cache; the caches change in place."""
        return self.forward(*append_and_rotate(spec, inputs))
