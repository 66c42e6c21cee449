"""Memory of this process that kernels may touch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class HostRange:
    """``size`` bytes at ``address`` that kernels may touch; ``storage`` keeps them alive (None: not ours)."""

    address: int
    size: int
    name: str
    storage: np.ndarray[Any, Any] | None = None


def extent(buffer: Any, error: type[Exception], name: str = "buffer") -> tuple[int, int]:
    """(address, bytes) of the memory behind a torch tensor (its storage), a numpy array or a buffer.

    ``error``, with ``name`` in its message, for a tensor that is not in CPU memory.
    """
    if hasattr(buffer, "untyped_storage"):
        if buffer.device.type != "cpu":
            raise error(f"{name}: CPU tensor expected, got one on {buffer.device}")
        storage = buffer.untyped_storage()
        return storage.data_ptr(), storage.nbytes()
    if isinstance(buffer, np.ndarray):
        low, high = np.lib.array_utils.byte_bounds(buffer)
        return low, high - low
    data = np.frombuffer(buffer, np.uint8)
    return data.ctypes.data, data.nbytes
