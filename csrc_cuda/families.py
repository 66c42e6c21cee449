"""The kernels of csrc_cuda/sm80 and csrc_cuda/sm90: which there are, for which head dims, and with what tiles.

Registers and spills, which ``python -m build_tools cuda --report`` measures, decide the tiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from build_tools.instances import CACHES, SEQUENCES, Layout


@dataclass(frozen=True)
class Tile:
    """C++ arguments of a kernel's tile, of which the second is its keys.

    A block takes at most ``shared_kib`` KiB of shared memory, which the compiler compares with ``kSharedBytes``.
    """

    numbers: tuple[int, ...]
    shared_kib: int

    @property
    def keys(self) -> int:
        """Keys of the tile."""
        return self.numbers[1]


@dataclass(frozen=True)
class Phase:
    """The kernels of a phase: a tile for each head dim, layouts, and features, of which a kernel has at most one."""

    tiles: Mapping[int, Tile]
    layouts: tuple[Layout, ...]
    features: tuple[str, ...]


@dataclass(frozen=True)
class Family:
    """A folder of kernels; ``archs`` are all it compiles for, None for every one.

    ``variant`` begins the names of headers and C++ classes that are not those of the folder's other kernels.
    """

    name: str
    archs: tuple[str, ...] | None
    phases: Mapping[str, Phase]
    dtypes: tuple[str, ...] = ("fp16", "bf16")
    variant: str = ""

    def has(self, arch: str, phase: str, dtype: str, head_dim: int, layout: Layout, feature: str | None) -> bool:
        """Whether there is such a kernel for an architecture."""
        kernels = self.phases.get(phase)
        return (
            (self.archs is None or arch in self.archs)
            and dtype in self.dtypes
            and kernels is not None
            and head_dim in kernels.tiles
            and layout in kernels.layouts
            and (feature is None or feature in kernels.features)
        )


SM80 = Family(
    name="sm80",
    archs=None,
    phases={
        "forward": Phase(
            tiles={
                32: Tile((128, 64, 4), 16),
                64: Tile((128, 64, 4), 32),
                96: Tile((128, 64, 4), 48),
                128: Tile((128, 32, 4), 48),
                192: Tile((64, 64, 4), 72),
                256: Tile((64, 64, 4), 96),
            },
            layouts=SEQUENCES,
            features=("softcap", "alibi", "dropout"),
        ),
        "backward": Phase(
            tiles={
                32: Tile((64, 128, 8), 43),
                64: Tile((64, 128, 8), 67),
                96: Tile((64, 64, 4), 58),
                128: Tile((64, 64, 4), 74),
                192: Tile((64, 32, 4), 78),
                256: Tile((32, 32, 4), 67),
            },
            layouts=SEQUENCES,
            features=("softcap", "alibi", "dropout", "deterministic"),
        ),
        "split": Phase(
            tiles={
                32: Tile((64, 64, 4), 12),
                64: Tile((64, 64, 4), 24),
                96: Tile((64, 64, 4), 36),
                128: Tile((64, 64, 4), 48),
                192: Tile((64, 64, 4), 72),
                256: Tile((64, 64, 4), 96),
            },
            layouts=CACHES,
            features=("softcap", "alibi"),
        ),
    },
)
SM90 = Family(
    name="sm90",
    archs=("sm_90a",),
    phases={
        "forward": Phase(
            tiles={
                64: Tile((192, 128, 2), 89),
                128: Tile((128, 128, 2), 161),
                256: Tile((128, 64, 2), 193),
            },
            layouts=SEQUENCES,
            features=("softcap", "alibi"),
        ),
        "backward": Phase(
            tiles={
                64: Tile((128, 128, 2), 197),
                128: Tile((64, 128, 2), 195),
            },
            layouts=SEQUENCES,
            features=("softcap", "alibi", "dropout", "deterministic"),
        ),
        "split": Phase(
            tiles={
                64: Tile((64, 128, 6), 105),
                128: Tile((64, 64, 6), 113),
                256: Tile((64, 64, 6), 225),
            },
            layouts=CACHES,
            features=("softcap", "alibi"),
        ),
    },
)
SM90_FP8 = Family(
    name="sm90",
    archs=("sm_90a",),
    dtypes=("fp8",),
    variant="fp8",
    phases={
        "forward": Phase(
            tiles={
                64: Tile((192, 128, 2), 62),
                128: Tile((128, 128, 2), 114),
                256: Tile((128, 128, 2), 226),
            },
            layouts=SEQUENCES,
            features=("softcap", "alibi"),
        ),
    },
)
# An architecture has the first family's kernel where there is one.
FAMILIES = (SM90_FP8, SM90, SM80)
