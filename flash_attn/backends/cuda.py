"""The cuda backend: CUTLASS kernels. This version has none, and the backend says so."""

from __future__ import annotations

from flash_attn.backends.base import NotBuiltBackend


class CUDABackend(NotBuiltBackend):
    """Adapter that answers every request with the reason why it cannot be met."""

    name = "cuda"
    reason = "this version of flash_attn has no CUTLASS kernels"
