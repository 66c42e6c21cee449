"""Tiles of the split-KV kernel for every architecture."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..architectures import find
from .problem import Problem
from .tuning import ForwardConfig, for_architecture


@dataclass(frozen=True)
class DecodeConfig(ForwardConfig):
    """Configuration of the split-KV kernel: ``block_m`` is the most rows of a tile; few rows get a smaller one.

    Attributes:
        programs_per_unit: work groups that a compute unit (an SM) should have at the same time.
    """

    programs_per_unit: int = 2


# Two blocks of keys in flight; the largest tiles that Triton 3.9 compiles without a spill at head dim 128
# (tests/triton/test_decode_compiled.py), as far as RDNA has registers for them.
_BY_MATRIX_KIND = {
    "mfma": DecodeConfig(block_m=64, block_n=32, num_warps=4, num_stages=2, programs_per_unit=4),
    "wmma": DecodeConfig(block_m=32, block_n=32, num_warps=4, num_stages=2, programs_per_unit=4),
}
_RDNA3 = DecodeConfig(block_m=16, block_n=16, num_warps=4, num_stages=2, programs_per_unit=4)
_NVIDIA = DecodeConfig(block_m=64, block_n=64, num_warps=4, num_stages=3, programs_per_unit=2)
_LONG_HEADS = 256


def decode_config(problem: Problem, arch_name: str) -> DecodeConfig:
    """Configuration of the split-KV kernel for a problem on an architecture, as PyTorch says it (``gfx942:xnack-``)."""
    architecture = find(arch_name)
    if architecture is None or architecture.family.startswith("RDNA3"):
        config = _RDNA3
    else:
        config = _BY_MATRIX_KIND.get(architecture.matrix_kind, _NVIDIA)
    if problem.depth >= _LONG_HEADS or problem.q.element_size() > 2:
        # Twice the registers and shared memory for a key.
        config = replace(config, block_m=16, block_n=16, num_warps=8, num_stages=1)
    filled = for_architecture(config, arch_name)
    assert isinstance(filled, DecodeConfig)
    return filled
