"""Architectures that share instances, and the tiles and pipelines that each family's instances use.

A tile is (queries, keys, head-dim unroll, key unroll, waves, matrix instruction); the shapes are those for which
CK-tile defines the layouts. Which pipeline a family uses is decided by registers and spills, which
``python -m build_tools ck --report`` measures.

gfx950's pipeline that transposes V as it loads it (QRKSVSAsyncTrload, which needs -DNDEBUG, since its assertions call
the host) does not spill, but takes more registers, more than twice the LDS and more instructions for a tile of d128
than QRKSVSAsync, and has neither softcap, ALiBi nor dropout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Pipeline = Literal["QRKSVS", "QRKSVSAsync", "QRKSVSAsyncTrload"]


@dataclass(frozen=True)
class ForwardTile:
    """Block tile of the forward, its pipeline and the shape of the matrix instruction that its waves use.

    ``blocks_per_cu`` bounds the registers of a wave, and ``dropout_blocks_per_cu`` those of a kernel with dropout,
    which needs more of them; -1 leaves it to the pipeline. ``head_dim_v`` is that of V in registers where CK-tile has
    no layout for the row's own.
    """

    pipeline: Pipeline
    queries: int
    keys: int
    unroll_qk: int
    unroll_pv: int
    waves: int
    instruction: tuple[int, int, int]
    blocks_per_cu: int = -1
    dropout_blocks_per_cu: int = -1
    head_dim_v: int | None = None

    def __post_init__(self) -> None:
        """ValueError for unrolls of which CK-tile would load a part only."""
        if self.pipeline == "QRKSVSAsync" and self.unroll_qk != self.unroll_pv:
            raise ValueError(f"QRKSVSAsync loads K by the unroll of P.V, so {self.unroll_qk} must be {self.unroll_pv}")

    @property
    def pads(self) -> bool:
        """Whether smaller head dims cost nothing; other pipelines have a slower kernel for them."""
        return self.pipeline == "QRKSVSAsync"

    @property
    def always_pads(self) -> bool:
        """Whether there is no kernel for the exact head dim alone."""
        return self.pads or self.head_dim_v is not None


@dataclass(frozen=True)
class BackwardTile:
    """Block tile of the backward: ``unroll_dq`` keys at a time in dS * K, whose waves are ``dq_waves``.

    ``depth`` is that of the wide matrix instruction, 16 x 16 x depth.
    """

    queries: int
    keys: int
    unroll_dq: int
    dq_waves: tuple[int, int]
    depth: int


@dataclass(frozen=True)
class Fp8Forward:
    """The forward of 8-bit operands: the dtype that matrix instructions multiply, where they do, and the tiles."""

    dtype: Literal["fp8", "fp8fnuz"]
    archs: tuple[str, ...]
    tiles: dict[int, ForwardTile]


@dataclass(frozen=True)
class Family:
    """Architectures whose instances have the same C++ source.

    ``forward`` and ``backward`` have a row for each head dim that kernels are compiled for; a head dim between two
    rows is padded to the larger. ``split`` is for few queries over many keys, for exact head dims.
    """

    name: str
    archs: tuple[str, ...]
    forward: dict[int, ForwardTile]
    backward: dict[int, BackwardTile]
    split: dict[int, ForwardTile]
    fp8: Fp8Forward


_32X32X16 = (32, 32, 16)
_32X32X32 = (32, 32, 32)
_16X16X16 = (16, 16, 16)
_MFMA_BACKWARD = {
    32: BackwardTile(32, 128, 64, (2, 2), 32),
    64: BackwardTile(32, 128, 32, (1, 4), 32),
    96: BackwardTile(32, 128, 32, (2, 2), 32),
    128: BackwardTile(16, 128, 32, (1, 4), 32),
    192: BackwardTile(16, 64, 32, (1, 4), 32),
    256: BackwardTile(16, 64, 32, (1, 4), 32),
}
_MFMA_SPLIT = {
    64: ForwardTile("QRKSVS", 64, 64, 32, 32, 4, _16X16X16),
    128: ForwardTile("QRKSVS", 64, 128, 32, 32, 4, _16X16X16),
    256: ForwardTile("QRKSVS", 64, 128, 32, 32, 4, _16X16X16),
}
_MFMA_FP8 = {
    64: ForwardTile("QRKSVS", 128, 64, 32, 32, 4, _32X32X32),
    128: ForwardTile("QRKSVS", 128, 128, 32, 32, 4, _32X32X32),
    256: ForwardTile("QRKSVS", 128, 128, 32, 32, 4, _32X32X32),
}
_WMMA_FP8 = {
    64: ForwardTile("QRKSVS", 64, 64, 32, 32, 4, _16X16X16),
    128: ForwardTile("QRKSVS", 64, 64, 32, 32, 4, _16X16X16),
    256: ForwardTile("QRKSVS", 64, 32, 32, 32, 4, _16X16X16),
}
# larger head dims spill
_WMMA_SPLIT = {dim: ForwardTile("QRKSVS", 64, 64, 32, 32, 4, _16X16X16) for dim in (64, 128)}

FAMILIES = (
    Family(
        name="gfx9",
        archs=("gfx90a", "gfx942"),
        forward={
            32: ForwardTile("QRKSVSAsync", 128, 64, 32, 32, 4, _32X32X16),
            64: ForwardTile("QRKSVSAsync", 128, 64, 32, 32, 4, _32X32X16, dropout_blocks_per_cu=2),
            96: ForwardTile("QRKSVSAsync", 128, 64, 32, 32, 4, _32X32X16, head_dim_v=128),
            128: ForwardTile("QRKSVSAsync", 128, 64, 32, 32, 4, _32X32X16),
            192: ForwardTile("QRKSVSAsync", 128, 64, 32, 32, 4, _32X32X16, blocks_per_cu=1),
            256: ForwardTile("QRKSVS", 128, 128, 32, 32, 4, _32X32X16),
        },
        backward=_MFMA_BACKWARD,
        split=_MFMA_SPLIT,
        fp8=Fp8Forward("fp8fnuz", ("gfx942",), _MFMA_FP8),
    ),
    Family(
        name="gfx950",
        archs=("gfx950",),
        forward={
            32: ForwardTile("QRKSVSAsync", 128, 64, 32, 32, 4, _32X32X16),
            64: ForwardTile("QRKSVSAsync", 128, 64, 32, 32, 4, _32X32X16, dropout_blocks_per_cu=2),
            96: ForwardTile("QRKSVSAsync", 128, 64, 32, 32, 4, _32X32X16, head_dim_v=128),
            128: ForwardTile("QRKSVSAsync", 128, 64, 32, 32, 4, _32X32X16),
            192: ForwardTile("QRKSVSAsync", 128, 64, 32, 32, 4, _32X32X16, blocks_per_cu=1),
            256: ForwardTile("QRKSVS", 128, 128, 32, 32, 4, _32X32X16),
        },
        backward=_MFMA_BACKWARD,
        split=_MFMA_SPLIT,
        fp8=Fp8Forward("fp8", ("gfx950",), _MFMA_FP8),
    ),
    Family(
        name="gfx12",
        archs=("gfx1200", "gfx1201"),
        forward={
            32: ForwardTile("QRKSVS", 64, 64, 16, 32, 4, _16X16X16),
            64: ForwardTile("QRKSVS", 64, 64, 32, 32, 4, _16X16X16),
            96: ForwardTile("QRKSVS", 64, 64, 32, 32, 4, _16X16X16, head_dim_v=128),
            128: ForwardTile("QRKSVS", 64, 64, 32, 32, 4, _16X16X16),
        },  # larger head dims spill
        backward={},  # CK-tile's spills hundreds of registers here
        split=_WMMA_SPLIT,
        fp8=Fp8Forward("fp8", ("gfx1200", "gfx1201"), _WMMA_FP8),
    ),
)


def family_of(arch: str) -> Family | None:
    """The family of an architecture named as a compiler names it (``gfx942:xnack-``), or None."""
    base = arch.partition(":")[0]
    return next((family for family in FAMILIES if base in family.archs), None)
