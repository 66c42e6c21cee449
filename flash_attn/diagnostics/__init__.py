"""What ``python -m flash_attn`` answers: ``info``, ``check``, ``bench`` and ``support``."""
