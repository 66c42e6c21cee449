"""Launch configurations of the kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ForwardConfig:
    """Tile and compiler options of the forward kernel."""

    block_m: int = 64
    block_n: int = 64
    num_warps: int = 4
    num_stages: int = 1
    num_xcds: int = 1
    round_by_add: bool = True
    fp8: str | None = None
    amd_options: tuple[tuple[str, int | bool], ...] = ()

    def options(self) -> dict[str, Any]:
        """Options of Triton's launch."""
        return {"num_warps": self.num_warps, "num_stages": self.num_stages, **dict(self.amd_options)}


@dataclass(frozen=True)
class BackwardTile:
    """Tile and compiler options of one of the two large backward kernels."""

    block_m: int = 64
    block_n: int = 64
    num_warps: int = 4
    num_stages: int = 1
    amd_options: tuple[tuple[str, int | bool], ...] = ()

    def options(self) -> dict[str, Any]:
        """Options of Triton's launch."""
        return {"num_warps": self.num_warps, "num_stages": self.num_stages, **dict(self.amd_options)}


@dataclass(frozen=True)
class BackwardConfig:
    """Tiles of the kernels for dK and dV (a block of keys a program) and for dQ (a block of rows a program)."""

    dkdv: BackwardTile = BackwardTile()
    dq: BackwardTile = BackwardTile()
    num_xcds: int = 1
