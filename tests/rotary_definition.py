"""Rotary embedding by its definition, complex multiplication in float64, and tables to try it with."""

import pytest
import torch
from torch import Tensor

F64 = torch.float64
both_layouts = pytest.mark.parametrize("interleaved", [False, True], ids=["halves", "interleaved"])
both_signs = pytest.mark.parametrize("conjugate", [False, True], ids=["forth", "back"])


def tables(rows: int, rotary_dim: int, dtype: torch.dtype = F64) -> tuple[Tensor, Tensor]:
    """Angles that differ in every entry, so that no mix-up of rows or columns goes unseen."""
    angles = torch.rand(rows, rotary_dim // 2, dtype=F64) * 6.28
    return angles.cos().to(dtype), angles.sin().to(dtype)


def expected(
    x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, interleaved: bool = False, conjugate: bool = False
) -> Tensor:
    """x (..., nheads, head_dim) times cos + i sin of each row's position, in complex128."""
    turn = torch.complex(cos.double(), sin.double())[positions].unsqueeze(-2)
    x = x.double()
    rotary_dim = 2 * cos.shape[-1]
    used, rest = x[..., :rotary_dim], x[..., rotary_dim:]
    layout = (*used.shape[:-1], rotary_dim // 2, 2) if interleaved else (*used.shape[:-1], 2, rotary_dim // 2)
    pairs = used.reshape(layout) if interleaved else used.reshape(layout).transpose(-1, -2)
    product = torch.complex(pairs[..., 0], pairs[..., 1]) * (turn.conj() if conjugate else turn)
    turned = torch.stack([product.real, product.imag], dim=-1)
    turned = turned if interleaved else turned.transpose(-1, -2)
    return torch.cat([turned.flatten(-2), rest], dim=-1)


def assert_equal_up_to_rounding(got: Tensor, want: Tensor) -> None:
    """float64 sums of two products below 6 in size: a few units of 2**-53 each."""
    torch.testing.assert_close(got.double(), want, rtol=0, atol=1e-13)
