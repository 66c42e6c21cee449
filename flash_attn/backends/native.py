"""What the backends of compiled kernels share: where they run, what was built, and the way to the kernels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from flash_attn.attention_spec import FP8_DTYPES, AttentionSpec
from flash_attn.backends import native_append, native_calls, native_library
from flash_attn.backends.base import AttentionInputs, Backend, DecodeInputs, ForwardResult, Gradients
from flash_attn.backends.extensions import DESCALES, FP8, extension_reasons
from flash_attn.backends.native_library import NativeLibrary

_DTYPES = (torch.float16, torch.bfloat16)
_MAX_HEAD_DIM = 256
_LOAD_BYTES = 16  # of rows that kernels read


class NativeBackend(Backend):
    """Attention by the kernels of a library that the package's build compiles."""

    extensions: Collection[str] = (FP8, DESCALES)
    """What of :mod:`flash_attn.backends.extensions` it has."""

    def __init__(self, library: NativeLibrary) -> None:
        self.library = library

    @property
    def device_type(self) -> str:
        """``cpu`` where kernels are simulated."""
        return "cpu" if self.emulated else "cuda"

    @property
    def emulated(self) -> bool:
        """Whether kernels are simulated."""
        return self.library.simulated is not None

    def unsupported_reasons(self, spec: AttentionSpec, device: torch.device) -> list[str]:
        """Every reason against ``spec`` that no build of this version takes away."""
        dtypes = (*_DTYPES, *self.library.fp8_dtypes)
        checks = {**_common_checks(spec, dtypes), **self.own_checks(spec)}
        return [*extension_reasons(spec, self.extensions), *(reason for reason, holds in checks.items() if holds)]

    @abstractmethod
    def own_checks(self, spec: AttentionSpec) -> Mapping[str, bool]:
        """Reasons of this vendor's kernels against a spec, and whether each holds."""

    def machine_reasons(self, device: torch.device) -> list[str]:
        """Why nothing runs on ``device`` here: no kernels built, no runtime, no device of the vendor."""
        library = self.library
        missing = f"no {library.platform} device"
        if device.type != self.device_type:
            where = "CPU tensors under FLASH_ATTENTION_SIMULATE" if self.emulated else f"{library.platform} devices"
            return [f"{missing}: {library.kernels} runs on {where}, and this is {device.type}"]
        if not self.emulated and getattr(torch.version, library.torch_version) is None:
            return [f"{missing}: this PyTorch is not built for {library.platform}"]
        if reasons := native_library.loading_reasons(library):
            return list(reasons)
        try:
            arch = native_library.architecture(library, device.index or 0)
        except RuntimeError as error:
            return [f"{missing}: {error}"]
        built = native_library.built_architectures(library)
        return [] if arch in built else [f"{library.kernels} kernels were built for {', '.join(built)}, not for {arch}"]

    def build_reasons(self, spec: AttentionSpec, device: torch.device) -> list[str]:
        """Why the kernels that were built do not serve ``spec``."""
        arch = native_library.architecture(self.library, device.index or 0)
        return native_calls.missing_kernels(self.library, spec, arch)

    def details(self) -> dict[str, str]:
        """How many kernels were built, and for what."""
        if native_library.loading_reasons(self.library):
            return {}
        count = len(native_library.instances(self.library))
        return {"kernels": f"{count} for {', '.join(native_library.built_architectures(self.library))}"}

    def forward(self, spec: AttentionSpec, inputs: AttentionInputs) -> ForwardResult:
        """Attention of validated inputs."""
        return native_calls.forward(self.library, spec, inputs)

    def backward(
        self,
        spec: AttentionSpec,
        inputs: AttentionInputs,
        result: ForwardResult,
        dout: Tensor,
        dlse: Tensor | None,
    ) -> Gradients:
        """Gradients of q, k and v, recomputing the probabilities from ``result.softmax_lse``."""
        return native_calls.backward(self.library, spec, inputs, result, dout, dlse)

    def decode(self, spec: AttentionSpec, inputs: DecodeInputs) -> ForwardResult:
        """Append, rotate and attend to a KV cache; the caches change in place."""
        return self.forward(*native_append.append_and_rotate(self.library, spec, inputs))


def _common_checks(spec: AttentionSpec, dtypes: Sequence[torch.dtype]) -> dict[str, bool]:
    """Reasons of the binding that both vendors share, and whether each holds."""
    dims = (spec.head_dim, spec.head_dim_v)
    in_cache = native_calls.over_caches(spec)
    is_fp8 = spec.dtype in FP8_DTYPES
    multiple = _LOAD_BYTES // spec.dtype.itemsize
    supported = ", ".join(_name(dtype) for dtype in dtypes)
    return {
        f"dtype {_name(spec.dtype)} is not one of {supported}": spec.dtype not in dtypes,
        f"no {_name(spec.dtype)} queries with {_name(spec.key_dtype)} keys": spec.key_dtype != spec.dtype,
        "no descales of 16-bit dtypes": spec.has_descale and not is_fp8,
        "no backward of fp8": is_fp8 and spec.needs_backward,
        "no fp8 over pages and cache_batch_idx": is_fp8 and in_cache,
        f"head dims beyond {_MAX_HEAD_DIM}": max(dims) > _MAX_HEAD_DIM,
        f"{'fp8 ' * is_fp8}head dims that are no multiple of {multiple}": any(dim % multiple for dim in dims),
        "no backward through pages and caches": spec.needs_backward and in_cache,
        "varlen keys come with varlen queries": spec.kv_layout == "varlen" and not spec.varlen_q,
        "no attention sink": spec.has_sink,
        "no attention probabilities": spec.return_attn_probs,
        "no softcap with ALiBi": spec.softcap > 0 and spec.has_alibi,
    }


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
