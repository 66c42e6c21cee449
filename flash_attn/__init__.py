"""Fast, exact attention for PyTorch: one API over AMD, NVIDIA and CPU backends."""

from pkgutil import extend_path

# flash-attn-4 installs flash_attn.cute as a distribution of its own.
__path__ = extend_path(__path__, __name__)
__version__ = "2.8.3+mb0.1.0"

from flash_attn.dispatch import UnsupportedError, use_backend
from flash_attn.flash_attn_interface import (
    flash_attn_func,
    flash_attn_kvpacked_func,
    flash_attn_qkvpacked_func,
    flash_attn_varlen_func,
    flash_attn_varlen_kvpacked_func,
    flash_attn_varlen_qkvpacked_func,
    flash_attn_with_kvcache,
)

__all__ = [
    "UnsupportedError",
    "flash_attn_func",
    "flash_attn_kvpacked_func",
    "flash_attn_qkvpacked_func",
    "flash_attn_varlen_func",
    "flash_attn_varlen_kvpacked_func",
    "flash_attn_varlen_qkvpacked_func",
    "flash_attn_with_kvcache",
    "use_backend",
]
