"""The cuda backend: this project's CUTLASS kernels on NVIDIA GPUs, compiled when the package is built."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from flash_attn.attention_spec import FP8_DTYPES, AttentionSpec
from flash_attn.backends.extensions import DESCALES, FP8, RAGGED_APPEND, RAGGED_QUERIES, ROTARY_SEQLENS
from flash_attn.backends.native import NativeBackend
from flash_attn.backends.native_calls import over_caches
from flash_attn.backends.native_library import PACKAGE, NativeLibrary


def library(simulated: str | None = None) -> NativeLibrary:
    """The library of CUDA kernels."""
    return NativeLibrary(
        backend="cuda",
        kernels="CUDA",
        platform="CUDA",
        torch_version="cuda",
        runtime="libcudart",
        settings="FLASH_ATTN_CUDA_ARCHS, OPT_DIM and FLASH_ATTENTION_CUDA_PRESET",
        path=PACKAGE / "_cuda.so",
        tiled_pages=False,
        packed_heads=True,
        fp8_dtypes=(torch.float8_e4m3fn,),
        simulated=simulated,
    )


class CUDABackend(NativeBackend):
    """Attention in CUTLASS: FlashAttention-2 class kernels from Ampere on, and Hopper's own.

    Args:
        simulated: architecture to simulate on CPU tensors (see :mod:`flash_attn.backends.simulation`); ``None``
            for none.
    """

    name = "cuda"
    extensions = (FP8, DESCALES, RAGGED_QUERIES, RAGGED_APPEND, ROTARY_SEQLENS)

    def __init__(self, simulated: str | None = None) -> None:
        super().__init__(library(simulated))

    def own_checks(self, spec: AttentionSpec) -> Mapping[str, bool]:
        """Reasons of the CUDA kernels against a spec, and whether each holds."""
        features = (spec.softcap > 0, spec.has_alibi, spec.dropout_p > 0, spec.needs_backward and spec.deterministic)
        return {
            "no dropout of fp8": spec.dtype in FP8_DTYPES and spec.dropout_p > 0,
            "more than one of softcap, ALiBi, dropout and deterministic": sum(features) > 1,
            "no dropout over pages, cache_batch_idx and leftpad_k": spec.dropout_p > 0 and over_caches(spec),
            "no leftpad_k of varlen keys": spec.has_leftpad_k and spec.kv_layout == "varlen",
        }
