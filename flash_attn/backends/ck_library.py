"""The compiled CK kernels: one library beside the package, loaded on first use, and what it says of itself."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends import simulation

LIBRARY = Path(__file__).resolve().parent.parent / "_ck.so"


@cache
def loading_reasons(simulated: str | None) -> tuple[str, ...]:
    """Why there are no CK kernels in this process; empty when there are. Loads them."""
    if not LIBRARY.is_file():
        return ("this flash_attn was built without CK kernels; python -m flash_attn info says why",)
    if simulated is not None:
        if reasons := simulation.reasons():
            return tuple(reasons)
        simulation.hip_device(simulated)
    try:
        torch.ops.load_library(str(LIBRARY))
    except OSError as error:
        missing_runtime = "libamdhip64" in str(error)
        return (f"{'no ROCm device: no HIP runtime' if missing_runtime else 'CK kernels do not load'} ({error})",)
    return ()


@cache
def architecture(index: int) -> str:
    """Name of the architecture of device ``index``; RuntimeError with the HIP runtime's words if there is none."""
    return str(torch.ops.flash_attn_ck.device_architecture(index))


@cache
def instances() -> list[dict[str, Any]]:
    """The kernels in the library, as csrc_ck/instances.py describes them."""
    described: list[dict[str, Any]] = json.loads(torch.ops.flash_attn_ck.instances())
    return described


def block_size(phase: str, spec: AttentionSpec, arch: str, varlen: bool = False) -> int:
    """Keys of a block of the kernel for ``phase`` (forward, backward, split) that serves ``spec``; 0 if none does."""
    features = {
        "varlen": varlen,
        "paged": spec.kv_layout == "paged",
        "masked": spec.window_left >= 0 or spec.window_right >= 0,
        "softcap": spec.softcap > 0,
        "alibi": spec.has_alibi,
        "dropout": spec.dropout_p > 0,
        "deterministic": phase == "backward" and spec.deterministic,
    }
    kind = (spec.dtype == torch.bfloat16, spec.head_dim, spec.head_dim_v)
    return int(torch.ops.flash_attn_ck.block_size(phase, arch, *kind, *features.values()))


def explain_missing(phase: str, spec: AttentionSpec, arch: str, varlen: bool = False) -> str:
    """What no kernel in the library was compiled for."""
    asked = {
        "varlen": varlen,
        "pages": spec.kv_layout == "paged",
        "a mask": spec.window_left >= 0 or spec.window_right >= 0,
        "softcap": spec.softcap > 0,
        "ALiBi": spec.has_alibi,
        "dropout": spec.dropout_p > 0,
        "deterministic sums": phase == "backward" and spec.deterministic,
    }
    dtype = str(spec.dtype).removeprefix("torch.")
    words = [dtype, f"head_dim {spec.head_dim}", *(name for name, value in asked.items() if value)]
    dims = sorted({row["head_dim"] for row in instances() if arch in row["archs"] and row["phase"] == phase})
    built = f"head dims {', '.join(str(dim) for dim in dims)}" if dims else "none"
    return (
        f"no CK {phase} kernel was built for {arch} with {', '.join(words)} (built: {built}); GPU_ARCHS, OPT_DIM and "
        "FLASH_ATTENTION_CK_PRESET choose what is built"
    )
