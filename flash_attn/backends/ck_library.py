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


def missing_instance(spec: AttentionSpec, arch: str, varlen: bool) -> str | None:
    """What no kernel in the library was compiled for, or None if one serves the forward of ``spec``."""
    masked = spec.window_left >= 0 or spec.window_right >= 0
    features = {"softcap": spec.softcap > 0, "alibi": spec.has_alibi, "dropout": spec.dropout_p > 0}
    if torch.ops.flash_attn_ck.supports_forward(
        arch, spec.dtype == torch.bfloat16, spec.head_dim, spec.head_dim_v, varlen, masked, *features.values()
    ):
        return None
    asked = [str(spec.dtype).removeprefix("torch."), f"head_dim {spec.head_dim}", "varlen" if varlen else "dense"]
    asked += ["masked"] * masked + [name for name, value in features.items() if value]
    built = sorted({row["head_dim"] for row in instances() if arch in row["archs"]})
    served = f"head dims {', '.join(str(dim) for dim in built)}" if built else "none"
    return (
        f"no CK kernel was built for {arch} with {', '.join(asked)} (built: {served}); GPU_ARCHS, OPT_DIM and "
        "FLASH_ATTENTION_CK_PRESET choose what is built"
    )
