"""The kernels that a build compiles, one a translation unit, chosen by preset."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from build_tools.instances import (
    CACHES,
    SEQUENCES,
    Instance,
    Language,
    Preset,
    dims_of,
    listed,
    true_fields,
    variants,
)
from csrc_ck.families import BackwardTile, Family, ForwardTile

LANGUAGE = Language(namespace="ck", stream="hipStream_t", suffix=".hip")
DTYPES = ("fp16", "bf16")
ELEMENTS = {"fp16": "Float16", "bf16": "BFloat16", "fp8": "Float8", "fp8fnuz": "Float8"}
# A kernel has at most one of them.
FORWARD_FEATURES = ("softcap", "alibi", "dropout")
FP8_FEATURES = ("softcap",)
SPLIT_FEATURES = ("softcap", "alibi")
BACKWARD_FEATURES = ("alibi", "dropout", "deterministic")

# CPU seconds of one translation unit for one architecture: parsing CK-tile for host and device, then the kernel.
PARSE_SECONDS = 14.0
FORWARD_SECONDS = {32: 8.0, 64: 8.0, 96: 12.0, 128: 13.0, 192: 16.0, 256: 18.0}
SPLIT_SECONDS = {64: 6.0, 128: 8.0, 256: 16.0}
BACKWARD_SECONDS = {32: 15.0, 64: 20.0, 96: 40.0, 128: 26.0, 192: 38.0, 256: 35.0}


@dataclass(frozen=True)
class CkInstance(Instance):
    """A kernel of CK-tile."""

    family: Family

    @property
    def language(self) -> Language:
        """How its source is written."""
        return LANGUAGE

    @property
    def archs(self) -> tuple[str, ...]:
        """Architectures that run it."""
        return self.family.archs


@dataclass(frozen=True)
class ForwardInstance(CkInstance):
    """A forward kernel. ``padded`` ones take smaller head dims where the pipeline does not by itself."""

    padded: bool = False

    phase = "forward"

    @property
    def tile(self) -> ForwardTile:
        """Tile of its head dim."""
        return (self.family.fp8.tiles if self._is_fp8 else self.family.forward)[self.head_dim]

    @property
    def archs(self) -> tuple[str, ...]:
        """Architectures that run it."""
        return self.family.fp8.archs if self._is_fp8 else self.family.archs

    @property
    def _is_fp8(self) -> bool:
        return self.dtype == self.family.fp8.dtype

    @property
    def keys(self) -> int:
        """Keys of its tile."""
        return self.tile.keys

    @property
    def seconds(self) -> float:
        """Estimated CPU seconds to compile it for one architecture."""
        return PARSE_SECONDS + FORWARD_SECONDS[self.head_dim]

    @property
    def takes_smaller_head_dims(self) -> bool:
        """Whether head dims below ``head_dim`` run too."""
        return self.padded or self.tile.always_pads

    @property
    def name(self) -> str:
        """C++ name, also in the kernel's symbol."""
        return super().name + "_padded" * self.padded

    @property
    def configuration(self) -> str:
        """C++ base class of the instance."""
        tile, head_dim = self.tile, self.head_dim
        head_dim_v = tile.head_dim_v or head_dim
        numbers = (tile.queries, tile.keys, tile.unroll_qk, head_dim_v, tile.unroll_pv, head_dim, tile.waves)
        fields = {"varlen": self.layout == "varlen", "masked": self.masked} | {
            name: self.feature == name for name in FORWARD_FEATURES
        }
        fields["padded_head_dim"] = self.takes_smaller_head_dims
        trload = str(tile.pipeline.endswith("Trload")).lower()
        per_cu = tile.dropout_blocks_per_cu if self.feature == "dropout" else tile.blocks_per_cu
        blocks = [f".blocks_per_cu = {per_cu}"] * (per_cu > 0)
        return (
            f"Forward<{ELEMENTS[self.dtype]}, ForwardTile<{listed(*numbers, *tile.instruction)}>,\n"
            f"              ck_tile::BlockFmhaPipeline{tile.pipeline}, {trload},\n"
            f"              ForwardFeatures{{{listed(*true_fields(fields), *blocks)}}}>"
        )


@dataclass(frozen=True)
class BackwardInstance(CkInstance):
    """A backward kernel, for any head dim up to its own."""

    phase = "backward"

    @property
    def tile(self) -> BackwardTile:
        """Tile of its head dim."""
        return self.family.backward[self.head_dim]

    @property
    def keys(self) -> int:
        """Keys of its tile."""
        return self.tile.keys

    @property
    def seconds(self) -> float:
        """Estimated CPU seconds to compile it for one architecture."""
        return PARSE_SECONDS + BACKWARD_SECONDS[self.head_dim]

    @property
    def configuration(self) -> str:
        """C++ base class of the instance."""
        tile = self.tile
        numbers = listed(tile.queries, tile.keys, tile.unroll_dq, self.head_dim, *tile.dq_waves, tile.depth)
        fields = {"varlen": self.layout == "varlen", "masked": self.masked}
        fields |= {name: self.feature == name for name in BACKWARD_FEATURES}
        return (
            f"Backward<{ELEMENTS[self.dtype]}, BackwardTile<{numbers}>,\n"
            f"               BackwardFeatures{{{listed(*true_fields(fields))}}}>"
        )


@dataclass(frozen=True)
class SplitInstance(CkInstance):
    """A forward kernel that splits the keys, which lie in caches (``dense``) or in pages."""

    phase = "split"

    @property
    def tile(self) -> ForwardTile:
        """Tile of its head dim."""
        return self.family.split[self.head_dim]

    @property
    def keys(self) -> int:
        """Keys of its tile; pages are made of whole tiles."""
        return self.tile.keys

    @property
    def seconds(self) -> float:
        """Estimated CPU seconds to compile it for one architecture."""
        return PARSE_SECONDS + SPLIT_SECONDS[self.head_dim]

    @property
    def takes_smaller_head_dims(self) -> bool:
        """Whether head dims below ``head_dim`` run too."""
        return False

    @property
    def configuration(self) -> str:
        """C++ base class of the instance."""
        tile, head_dim = self.tile, self.head_dim
        numbers = (tile.queries, tile.keys, tile.unroll_qk, head_dim, tile.unroll_pv, head_dim, tile.waves)
        fields = {"paged": self.layout == "paged", "masked": self.masked}
        fields |= {name: self.feature == name for name in SPLIT_FEATURES}
        return (
            f"Split<{ELEMENTS[self.dtype]}, SplitTile<{listed(*numbers, *tile.instruction)}>,\n"
            f"            SplitFeatures{{{listed(*true_fields(fields))}}}>"
        )


def instances(family: Family, head_dims: Sequence[int], preset: Preset) -> Iterator[CkInstance]:
    """Kernels of a preset, the cheaper of two that serve the same call first.

    A masked kernel serves any window, none included. ``minimal`` has one for each phase, dtype and layout of head dims
    64 and 128. ``default`` adds to them a forward without a mask and each feature (ALiBi in the forward alone), and one
    masked kernel for every larger head dim and those between; smaller ones are padded to 64. It has the forward of fp8
    with a mask alone, and for exact head dims. ``full`` has every combination.
    """
    dims = dims_of(head_dims, preset)
    for dim in (dim for dim in dims if dim in family.forward):
        for padded in (False,) if preset == "minimal" or family.forward[dim].always_pads else (False, True):
            for masked, feature in variants("forward", FORWARD_FEATURES, dim, preset, padded):
                for dtype, layout in itertools.product(DTYPES, SEQUENCES):
                    yield ForwardInstance(family, dtype, dim, layout, masked, feature, padded)
    for dim in (dim for dim in dims if dim in family.fp8.tiles and preset != "minimal"):
        for padded in (False, True) if preset == "full" else (False,):
            for masked, feature in variants("forward", FP8_FEATURES, dim, "full" if preset == "full" else "minimal"):
                for layout in SEQUENCES:
                    yield ForwardInstance(family, family.fp8.dtype, dim, layout, masked, feature, padded)
    for dim in (dim for dim in dims if dim in family.backward):
        for masked, feature in variants("backward", BACKWARD_FEATURES, dim, preset):
            for dtype, layout in itertools.product(DTYPES, SEQUENCES):
                yield BackwardInstance(family, dtype, dim, layout, masked, feature)
    for dim in (dim for dim in dims if dim in family.split):
        for masked, feature in variants("split", SPLIT_FEATURES, dim, preset):
            for dtype, layout in itertools.product(DTYPES, CACHES):
                yield SplitInstance(family, dtype, dim, layout, masked, feature)
