"""Rotary position embedding under its known import path."""

from flash_attn.rotary_embedding import apply_rotary

__all__ = ["apply_rotary"]
