"""The name under which other projects import upstream's compiled extension.

The functions answer with whichever backend of flash_attn serves the tensors; ``__backend__`` names it.
"""

from flash_attn import raw_functions
from flash_attn.raw_functions import bwd, fwd, fwd_kvcache, varlen_bwd, varlen_fwd

__all__ = ["bwd", "fwd", "fwd_kvcache", "varlen_bwd", "varlen_fwd"]


def __getattr__(name: str) -> object:
    return getattr(raw_functions, name)
