"""The ck backend: composable_kernel's attention on AMD GPUs, compiled when the package is built."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from flash_attn.attention_spec import FP8_DTYPES, AttentionSpec
from flash_attn.backends import ck_dropout
from flash_attn.backends.native import NativeBackend
from flash_attn.backends.native_library import PACKAGE, NativeLibrary

_PAGE_MULTIPLE = 64  # keys of the smallest tile
_SPLIT_HEAD_DIMS = (64, 128, 256)


def library(simulated: str | None = None) -> NativeLibrary:
    """The library of CK kernels."""
    return NativeLibrary(
        backend="ck",
        kernels="CK",
        platform="ROCm",
        torch_version="hip",
        runtime="libamdhip64",
        settings="GPU_ARCHS, OPT_DIM and FLASH_ATTENTION_CK_PRESET",
        path=PACKAGE / "_ck.so",
        tiled_pages=True,
        packed_heads=False,
        fp8_dtypes=(torch.float8_e4m3fn, torch.float8_e4m3fnuz),
        simulated=simulated,
    )


class CKBackend(NativeBackend):
    """Attention in CK-tile.

    Args:
        simulated: architecture to simulate on CPU tensors (see :mod:`flash_attn.backends.simulation`); ``None``
            for none.
    """

    name = "ck"

    def __init__(self, simulated: str | None = None) -> None:
        super().__init__(library(simulated))

    def own_checks(self, spec: AttentionSpec) -> Mapping[str, bool]:
        """Reasons of CK's kernels against a spec, and whether each holds."""
        in_cache = spec.kv_layout == "paged" or spec.has_cache_batch_idx
        return {
            "no leftpad_k": spec.has_leftpad_k,
            "no varlen queries over pages": spec.kv_layout == "paged" and spec.varlen_q,
            "no backward of softcap": spec.needs_backward and spec.softcap > 0,
            "no backward of ALiBi and deterministic": spec.needs_backward and spec.deterministic and spec.has_alibi,
            f"page sizes that are no multiple of {_PAGE_MULTIPLE}": spec.page_size % _PAGE_MULTIPLE != 0,
            f"pages and cache_batch_idx with head dims other than {', '.join(str(dim) for dim in _SPLIT_HEAD_DIMS)}": (
                in_cache and not (spec.head_dim == spec.head_dim_v and spec.head_dim in _SPLIT_HEAD_DIMS)
            ),
            "no ALiBi or dropout of fp8": spec.dtype in FP8_DTYPES and (spec.has_alibi or spec.dropout_p > 0),
            "no dropout with softcap, ALiBi or deterministic": spec.dropout_p > 0
            and (spec.softcap > 0 or spec.has_alibi or (spec.needs_backward and spec.deterministic)),
        }

    def keep_mask(
        self, rng_state: Tensor, dropout_p: float, batch_heads: Tensor, rows: Tensor, first_column: int, columns: int
    ) -> Tensor:
        """Which probabilities survive CK's dropout."""
        return ck_dropout.keep_mask(rng_state, dropout_p, batch_heads, rows, first_column, columns)
