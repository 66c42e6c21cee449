"""Tensors as compiled kernels read them."""

from __future__ import annotations

from torch import Tensor

from flash_attn.backends.base import AttentionInputs

_BYTES = 16  # of a load


def aligned(x: Tensor) -> Tensor:
    """``x`` itself, or a copy where rows do not begin at multiples of 16 bytes, which the kernels' loads take.

    That is the rare slice of a last dimension; everything else is read where it lies.
    """
    return x if is_aligned(x) else x.contiguous()


def is_aligned(x: Tensor) -> bool:
    """Whether rows begin at multiples of 16 bytes."""
    elements = _BYTES // x.element_size()
    strides = (stride for size, stride in zip(x.shape[:-1], x.stride()[:-1], strict=True) if size > 1)
    return x.data_ptr() % _BYTES == 0 and all(stride % elements == 0 for stride in strides)


def slopes(inputs: AttentionInputs) -> Tensor | None:
    """ALiBi slopes as the kernels read them."""
    return None if inputs.alibi_slopes is None else inputs.alibi_slopes.float().contiguous()
