"""The ck backend: composable_kernel kernels. This version has none, and the backend says so."""

from __future__ import annotations

from flash_attn.backends.base import NotBuiltBackend


class CKBackend(NotBuiltBackend):
    """Adapter that answers every request with the reason why it cannot be met."""

    name = "ck"
    reason = "this version of flash_attn has no composable_kernel kernels"
