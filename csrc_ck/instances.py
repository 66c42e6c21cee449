"""The kernels that a build compiles, one a translation unit, chosen by preset."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from csrc_ck.families import BackwardTile, Family, ForwardTile

Preset = Literal["minimal", "default", "full"]
Layout = Literal["dense", "varlen", "paged"]
PRESETS: tuple[Preset, ...] = ("minimal", "default", "full")
_SEQUENCES: tuple[Layout, ...] = ("dense", "varlen")
_CACHES: tuple[Layout, ...] = ("dense", "paged")
ELEMENTS = {"fp16": "Float16", "bf16": "BFloat16"}
COMMON_DIMS = (64, 128)
# A kernel has at most one of them.
FORWARD_FEATURES = ("softcap", "alibi", "dropout")
SPLIT_FEATURES = ("softcap", "alibi")
BACKWARD_FEATURES = ("alibi", "dropout", "deterministic")
_FEATURES = {"forward": FORWARD_FEATURES, "backward": BACKWARD_FEATURES, "split": SPLIT_FEATURES}

# CPU seconds of one translation unit for one architecture: parsing CK-tile for host and device, then the kernel.
PARSE_SECONDS = 14.0
FORWARD_SECONDS = {32: 8.0, 64: 8.0, 128: 13.0, 256: 18.0}
SPLIT_SECONDS = {64: 6.0, 128: 8.0, 256: 16.0}
BACKWARD_SECONDS = {32: 15.0, 64: 20.0, 128: 26.0, 256: 35.0}


@dataclass(frozen=True)
class Instance(ABC):
    """A kernel of one phase: ``head_dim`` is the largest it takes, or the only one unless it ``pads``."""

    family: Family
    dtype: str
    head_dim: int
    layout: Layout
    masked: bool
    feature: str | None = None

    phase = ""

    @property
    @abstractmethod
    def keys(self) -> int:
        """Keys of its tile."""

    @property
    @abstractmethod
    def seconds(self) -> float:
        """Estimated CPU seconds to compile it for one architecture."""

    @property
    @abstractmethod
    def configuration(self) -> str:
        """C++ base class of the instance."""

    @property
    def takes_smaller_head_dims(self) -> bool:
        """Whether head dims below ``head_dim`` run too."""
        return True

    @property
    def name(self) -> str:
        """C++ name, also in the kernel's symbol: ``forward_gfx9_bf16_d128_varlen_masked``."""
        words = [self.phase, self.family.name, self.dtype, f"d{self.head_dim}", self.layout]
        return "_".join(words + ["masked"] * self.masked + [self.feature or ""] * bool(self.feature))

    @property
    def source(self) -> str:
        """The translation unit."""
        params = f"{self.phase.capitalize()}Params"
        return (
            f'#include "{self.phase}.h"\n'
            "namespace flash_attn::ck {\n"
            f"struct {self.name}\n    : {self.configuration} {{}};\n"
            f"void launch_{self.name}(const {params}& params, hipStream_t stream) {{\n"
            f"  launch_{self.phase}<{self.name}>(params, stream);\n"
            "}\n"
            "}  // namespace flash_attn::ck\n"
        )

    def describe(self, archs: Sequence[str]) -> dict[str, object]:
        """What the built library tells of it, as values that JSON can hold."""
        return {
            "name": self.name,
            "phase": self.phase,
            "archs": list(archs),
            "dtype": self.dtype,
            "head_dim": self.head_dim,
            "exact": not self.takes_smaller_head_dims,
            "layout": self.layout,
            "masked": self.masked,
            "feature": self.feature,
        }


@dataclass(frozen=True)
class ForwardInstance(Instance):
    """A forward kernel. ``padded`` ones take smaller head dims where the pipeline does not by itself."""

    padded: bool = False

    phase = "forward"

    @property
    def tile(self) -> ForwardTile:
        """Tile of its head dim."""
        return self.family.forward[self.head_dim]

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
        return self.padded or self.tile.pads

    @property
    def name(self) -> str:
        """C++ name, also in the kernel's symbol."""
        return super().name + "_padded" * self.padded

    @property
    def configuration(self) -> str:
        """C++ base class of the instance."""
        tile, head_dim = self.tile, self.head_dim
        numbers = (tile.queries, tile.keys, tile.unroll_qk, head_dim, tile.unroll_pv, head_dim, tile.waves)
        fields = {"varlen": self.layout == "varlen", "masked": self.masked} | {
            name: self.feature == name for name in FORWARD_FEATURES
        }
        fields["padded_head_dim"] = self.takes_smaller_head_dims
        trload = str(tile.pipeline.endswith("Trload")).lower()
        per_cu = tile.dropout_blocks_per_cu if self.feature == "dropout" else tile.blocks_per_cu
        blocks = [f".blocks_per_cu = {per_cu}"] * (per_cu > 0)
        return (
            f"Forward<{ELEMENTS[self.dtype]}, ForwardTile<{_listed(*numbers, *tile.instruction)}>,\n"
            f"              ck_tile::BlockFmhaPipeline{tile.pipeline}, {trload},\n"
            f"              ForwardFeatures{{{_listed(*_true_fields(fields), *blocks)}}}>"
        )


@dataclass(frozen=True)
class BackwardInstance(Instance):
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
        numbers = _listed(tile.queries, tile.keys, tile.unroll_dq, self.head_dim, *tile.dq_waves, tile.depth)
        fields = {"varlen": self.layout == "varlen", "masked": self.masked}
        fields |= {name: self.feature == name for name in BACKWARD_FEATURES}
        return (
            f"Backward<{ELEMENTS[self.dtype]}, BackwardTile<{numbers}>,\n"
            f"               BackwardFeatures{{{_listed(*_true_fields(fields))}}}>"
        )


@dataclass(frozen=True)
class SplitInstance(Instance):
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
            f"Split<{ELEMENTS[self.dtype]}, SplitTile<{_listed(*numbers, *tile.instruction)}>,\n"
            f"            SplitFeatures{{{_listed(*_true_fields(fields))}}}>"
        )


def _listed(*items: object) -> str:
    return ", ".join(str(item) for item in items)


def _true_fields(fields: Mapping[str, bool]) -> list[str]:
    return [f".{name} = true" for name, value in fields.items() if value]


def instances(family: Family, head_dims: Sequence[int], preset: Preset) -> Iterator[Instance]:
    """Kernels of a preset, the cheaper of two that serve the same call first.

    A masked kernel serves any window, none included. ``minimal`` has one for each phase, dtype and layout of head dims
    64 and 128. ``default`` adds to them a forward without a mask and each feature (ALiBi in the forward alone), and one
    masked kernel for every larger head dim and those between; smaller ones are padded to 64. ``full`` has every
    combination.
    """
    dims = sorted(dim for dim in set(head_dims) if _wanted(dim, preset))
    for dim in (dim for dim in dims if dim in family.forward):
        for padded in (False,) if preset == "minimal" or family.forward[dim].pads else (False, True):
            for masked, feature in _variants("forward", dim, preset, padded):
                for dtype, layout in itertools.product(ELEMENTS, _SEQUENCES):
                    yield ForwardInstance(family, dtype, dim, layout, masked, feature, padded)
    for dim in (dim for dim in dims if dim in family.backward):
        for masked, feature in _variants("backward", dim, preset):
            for dtype, layout in itertools.product(ELEMENTS, _SEQUENCES):
                yield BackwardInstance(family, dtype, dim, layout, masked, feature)
    for dim in (dim for dim in dims if dim in family.split):
        for masked, feature in _variants("split", dim, preset):
            for dtype, layout in itertools.product(ELEMENTS, _CACHES):
                yield SplitInstance(family, dtype, dim, layout, masked, feature)


def _wanted(head_dim: int, preset: Preset) -> bool:
    """Whether a preset has kernels of ``head_dim``."""
    return preset == "full" or head_dim in COMMON_DIMS or (preset == "default" and head_dim > min(COMMON_DIMS))


def _variants(phase: str, head_dim: int, preset: Preset, padded: bool = False) -> Iterator[tuple[bool, str | None]]:
    """(masked, feature) of a preset."""
    if preset == "full":
        yield from itertools.product((False, True), (None, *_FEATURES[phase]))
        return
    common = preset == "default" and head_dim in COMMON_DIMS and not padded
    if common and phase == "forward":
        yield False, None
    yield True, None
    if common:
        yield from ((True, feature) for feature in _FEATURES[phase] if feature != "alibi" or phase == "forward")
