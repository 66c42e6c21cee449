"""The place of the Triton kernels, installed as ``flash_attn.triton_amd``; this version has none."""
