"""The name under which other projects import FlashAttention-3's functions."""

from flash_attn.compatibility_v3 import _flash_attn_backward, _flash_attn_forward
from flash_attn.flash_attn_3_interface import (
    flash_attn_combine,
    flash_attn_func,
    flash_attn_qkvpacked_func,
    flash_attn_varlen_func,
    flash_attn_with_kvcache,
    get_scheduler_metadata,
)
from flash_attn.flash_attn_interface import maybe_contiguous, round_multiple

__all__ = [
    "_flash_attn_backward",
    "_flash_attn_forward",
    "flash_attn_combine",
    "flash_attn_func",
    "flash_attn_qkvpacked_func",
    "flash_attn_varlen_func",
    "flash_attn_with_kvcache",
    "get_scheduler_metadata",
    "maybe_contiguous",
    "round_multiple",
]
