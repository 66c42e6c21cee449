"""FlashAttention-3's package; its functions are in :mod:`flash_attn_3.flash_attn_interface`."""

__version__ = "3.0.0"
