"""Triton kernels for AMD and NVIDIA GPUs, installed as ``flash_attn.triton_amd``."""
