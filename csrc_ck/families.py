"""Architectures that share instances, and the tiles and pipelines that each family's instances use.

A tile is (queries, keys, head-dim unroll, key unroll, waves, matrix instruction); the shapes are those for which
CK-tile defines the layouts. Which pipeline a family uses is decided by registers and spills, which
``python -m build_tools ck --report`` measures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Pipeline = Literal["QRKSVS", "QRKSVSAsync", "QRKSVSAsyncTrload"]


@dataclass(frozen=True)
class ForwardTile:
    """Block tile of the forward, its pipeline and the shape of the matrix instruction that its waves use."""

    pipeline: Pipeline
    queries: int
    keys: int
    unroll_qk: int
    unroll_pv: int
    waves: int
    instruction: tuple[int, int, int]
    blocks_per_cu: int = -1

    def __post_init__(self) -> None:
        """ValueError for unrolls of which CK-tile would load a part only."""
        if self.pipeline == "QRKSVSAsync" and self.unroll_qk != self.unroll_pv:
            raise ValueError(f"QRKSVSAsync loads K by the unroll of P.V, so {self.unroll_qk} must be {self.unroll_pv}")

    @property
    def pads(self) -> bool:
        """Whether smaller head dims cost nothing; other pipelines have a slower kernel for them."""
        return self.pipeline == "QRKSVSAsync"


@dataclass(frozen=True)
class Family:
    """Architectures whose instances have the same C++ source.

    ``forward`` has a row for each head dim that kernels are compiled for; a head dim between two rows is padded to
    the larger.
    """

    name: str
    archs: tuple[str, ...]
    forward: dict[int, ForwardTile]


_MFMA = (32, 32, 16)
_WMMA = (16, 16, 16)

FAMILIES = (
    Family(
        name="gfx9",
        archs=("gfx90a", "gfx942"),
        forward={
            32: ForwardTile("QRKSVSAsync", 128, 64, 32, 32, 4, _MFMA),
            64: ForwardTile("QRKSVSAsync", 128, 64, 32, 32, 4, _MFMA),
            128: ForwardTile("QRKSVSAsync", 128, 64, 32, 32, 4, _MFMA),
            256: ForwardTile("QRKSVS", 128, 128, 32, 32, 4, _MFMA),
        },
    ),
    Family(
        name="gfx950",
        archs=("gfx950",),
        forward={
            32: ForwardTile("QRKSVSAsync", 128, 64, 32, 32, 4, _MFMA),
            64: ForwardTile("QRKSVSAsync", 128, 64, 32, 32, 4, _MFMA),
            128: ForwardTile("QRKSVSAsync", 128, 64, 32, 32, 4, _MFMA),
            256: ForwardTile("QRKSVS", 128, 128, 32, 32, 4, _MFMA),
        },
    ),
    Family(
        name="gfx12",
        archs=("gfx1200", "gfx1201"),
        forward={
            32: ForwardTile("QRKSVS", 64, 64, 16, 32, 4, _WMMA),
            64: ForwardTile("QRKSVS", 64, 64, 32, 32, 4, _WMMA),
            128: ForwardTile("QRKSVS", 64, 64, 32, 32, 4, _WMMA),
            256: ForwardTile("QRKSVS", 64, 64, 32, 32, 4, _WMMA),
        },
    ),
)


def family_of(arch: str) -> Family | None:
    """The family of an architecture named as a compiler names it (``gfx942:xnack-``), or None."""
    base = arch.partition(":")[0]
    return next((family for family in FAMILIES if base in family.archs), None)
