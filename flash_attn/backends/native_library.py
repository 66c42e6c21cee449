"""The compiled kernels of a vendor: one library beside the package, loaded on first use, and what it says of itself."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends import simulation

PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, eq=False)
class NativeLibrary:
    """A library of kernels, by the words in which messages speak of it.

    ``platform`` is what its kernels run on, ``torch_version`` the name in ``torch.version`` of a PyTorch built for it,
    ``runtime`` the vendor's library that the loader needs; ``settings`` choose what is built. ``tiled_pages``: the
    pages of a cache are made of whole tiles; ``packed_heads``: those of queries hold all query heads of a KV head where
    keys are split. ``fp8_dtypes``: those that its forward kernels take. ``simulated`` is an architecture to simulate on
    CPU tensors, or ``None``.
    """

    backend: str
    kernels: str
    platform: str
    torch_version: str
    runtime: str
    settings: str
    path: Path
    tiled_pages: bool
    packed_heads: bool
    fp8_dtypes: tuple[torch.dtype, ...] = ()
    simulated: str | None = None

    @property
    def operators(self) -> Any:
        """Its operators, once it is loaded."""
        return getattr(torch.ops, f"flash_attn_{self.backend}")

    def launching(self, tensors: Iterable[Tensor | None]) -> AbstractContextManager[None]:
        """Within it kernels run: simulated ones may touch these tensors alone."""
        return simulation.launching(self.simulated, tensors)


@cache
def loading_reasons(library: NativeLibrary) -> tuple[str, ...]:
    """Why there are no such kernels in this process; empty when there are. Loads them."""
    if not library.path.is_file():
        return (f"this flash_attn was built without {library.kernels} kernels; python -m flash_attn info says why",)
    if library.simulated is not None:
        if reasons := simulation.reasons(library.simulated):
            return tuple(reasons)
        simulation.native_device(library.simulated)
    try:
        torch.ops.load_library(str(library.path))
    except OSError as error:
        missing = library.runtime in str(error)
        why = (
            f"no {library.platform} device: no {library.runtime}"
            if missing
            else f"{library.kernels} kernels do not load"
        )
        return (f"{why} ({error})",)
    return ()


@cache
def architecture(library: NativeLibrary, index: int) -> str:
    """Name of the architecture of device ``index``; RuntimeError with the runtime's words if there is none."""
    return str(library.operators.device_architecture(index))


@cache
def instances(library: NativeLibrary) -> list[dict[str, Any]]:
    """The kernels in the library, as build_tools/instances.py describes them."""
    described: list[dict[str, Any]] = json.loads(library.operators.instances())
    return described


def built_architectures(library: NativeLibrary) -> list[str]:
    """Architectures of the devices that run its kernels."""
    return sorted({arch for row in instances(library) for arch in row["archs"]})


def block_size(library: NativeLibrary, phase: str, spec: AttentionSpec, arch: str, varlen: bool = False) -> int:
    """Keys of a block of the kernel for ``phase`` (forward, backward, split) that serves ``spec``; 0 if none does."""
    kind = (spec.dtype, spec.head_dim, spec.head_dim_v)
    return int(library.operators.block_size(phase, arch, *kind, *_features(phase, spec, varlen).values()))


def explain_missing(library: NativeLibrary, phase: str, spec: AttentionSpec, arch: str, varlen: bool = False) -> str:
    """What no kernel in the library was compiled for."""
    dtype = str(spec.dtype).removeprefix("torch.")
    asked = [name for name, value in _features(phase, spec, varlen).items() if value]
    words = [dtype, f"head_dim {spec.head_dim}", *asked]
    rows = [row for row in instances(library) if arch in row["archs"] and row["phase"] == phase]
    dims = sorted({row["head_dim"] for row in rows})
    built = f"head dims {', '.join(str(dim) for dim in dims)}" if dims else "none"
    return (
        f"no {library.kernels} {phase} kernel was built for {arch} with {', '.join(words)} (built: {built}); "
        f"{library.settings} choose what is built"
    )


def _features(phase: str, spec: AttentionSpec, varlen: bool) -> dict[str, bool]:
    """Features that select a kernel, in the order of the operator ``block_size``."""
    return {
        "varlen": varlen,
        "pages": spec.kv_layout == "paged",
        "a mask": spec.window_left >= 0 or spec.window_right >= 0,
        "softcap": spec.softcap > 0,
        "ALiBi": spec.has_alibi,
        "dropout": spec.dropout_p > 0,
        "deterministic sums": phase == "backward" and spec.deterministic,
    }
