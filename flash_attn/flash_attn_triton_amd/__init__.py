"""The name that vLLM looks for on RDNA; kernels have their place in ``flash_attn.triton_amd``."""
