"""Attention in CUTLASS and CuTe for NVIDIA GPUs: kernels, and the generator of their instances."""
