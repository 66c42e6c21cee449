"""The name that vLLM looks for on RDNA; the kernels are in ``flash_attn.triton_amd``."""
