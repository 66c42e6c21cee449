"""Build-time detection, plan and packaging; imports neither torch nor flash_attn."""
