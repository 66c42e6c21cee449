"""Attention in Triton, for AMD GPUs first; installed as ``flash_attn.triton_amd``."""
