"""The kernels that a build compiles: one :class:`ForwardInstance` a translation unit, chosen by preset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from csrc_ck.families import Family, ForwardTile

Preset = Literal["minimal", "default", "full"]
PRESETS: tuple[Preset, ...] = ("minimal", "default", "full")
ELEMENTS = {"fp16": "Float16", "bf16": "BFloat16"}
MINIMAL_DIMS = (64, 128)
FEATURES = ("softcap", "alibi", "dropout")

# CPU seconds of one translation unit for one architecture: parsing CK-tile for host and device, then the kernel.
PARSE_SECONDS = 14.0
FORWARD_SECONDS = {32: 10.0, 64: 12.0, 128: 16.0, 256: 40.0}


@dataclass(frozen=True)
class ForwardInstance:
    """A forward kernel: ``head_dim`` is the largest it takes, or the only one unless it is ``padded``."""

    family: Family
    dtype: str
    head_dim: int
    varlen: bool
    masked: bool
    feature: str | None = None
    padded: bool = False

    @property
    def name(self) -> str:
        """C++ name, also in the kernel's symbol: ``forward_gfx9_bf16_d128_varlen_masked``."""
        words = ["forward", self.family.name, self.dtype, f"d{self.head_dim}", "varlen" if self.varlen else "dense"]
        words += ["masked"] * self.masked + [self.feature] * bool(self.feature) + ["padded"] * (self.padded and not self.tile.pads)
        return "_".join(str(word) for word in words)

    @property
    def tile(self) -> ForwardTile:
        """Tile of its head dim."""
        return self.family.forward[self.head_dim]

    @property
    def seconds(self) -> float:
        """Estimated CPU seconds to compile it for one architecture."""
        return PARSE_SECONDS + FORWARD_SECONDS[self.head_dim]

    @property
    def source(self) -> str:
        """The translation unit."""
        tile, head_dim = self.tile, self.head_dim
        shape = ", ".join(
            str(number)
            for number in (tile.queries, tile.keys, tile.unroll_qk, head_dim, tile.unroll_pv, head_dim, tile.waves)
            + tile.instruction
        )
        set_fields = [f".{field} = true" for field, value in self._features().items() if value]
        set_fields += [f".blocks_per_cu = {tile.blocks_per_cu}"] * (tile.blocks_per_cu > 0)
        trload = str(tile.pipeline.endswith("Trload")).lower()
        return (
            '#include "forward.h"\n'
            "namespace flash_attn::ck {\n"
            f"struct {self.name}\n"
            f"    : Forward<{ELEMENTS[self.dtype]}, ForwardTile<{shape}>,\n"
            f"              ck_tile::BlockFmhaPipeline{tile.pipeline}, {trload},\n"
            f"              ForwardFeatures{{{', '.join(set_fields)}}}> {{}};\n"
            f"void launch_{self.name}(const ForwardParams& params, hipStream_t stream) {{\n"
            f"  launch_forward<{self.name}>(params, stream);\n"
            "}\n"
            "}  // namespace flash_attn::ck\n"
        )

    def _features(self) -> dict[str, bool]:
        features = {"varlen": self.varlen, "masked": self.masked}
        features |= {feature: self.feature == feature for feature in FEATURES}
        return features | {"padded_head_dim": self.padded}

    def describe(self, archs: Sequence[str]) -> dict[str, object]:
        """What the built library tells of it, as values that JSON can hold."""
        return {
            "name": self.name,
            "phase": "forward",
            "archs": list(archs),
            "dtype": self.dtype,
            "head_dim": self.head_dim,
            "exact": not self.padded,
            "varlen": self.varlen,
            "masked": self.masked,
            "feature": self.feature,
        }


def forward_instances(family: Family, head_dims: Sequence[int], preset: Preset) -> Iterator[ForwardInstance]:
    """Forward kernels of a preset, the cheaper of two that serve the same call first.

    ``minimal`` has one masked kernel (which serves any window, none included) for each dtype and layout of head dims
    64 and 128; ``default`` adds the other head dims, kernels without a mask, each feature, and padding for the head
    dims between; ``full`` adds padding and no mask to every feature.
    """
    dims = [dim for dim in sorted(family.forward) if dim in head_dims and (dim in MINIMAL_DIMS or preset != "minimal")]
    for dim in dims:
        for padded in _paddings(family.forward[dim], preset):
            for feature in (None, *FEATURES) if preset != "minimal" else (None,):
                for masked in (False, True):
                    only_full = feature is not None and (not masked or (padded and not family.forward[dim].pads))
                    if (preset == "minimal" and not masked) or (only_full and preset != "full"):
                        continue
                    for dtype in ELEMENTS:
                        for varlen in (False, True):
                            yield ForwardInstance(family, dtype, dim, varlen, masked, feature, padded)


def _paddings(tile: ForwardTile, preset: Preset) -> tuple[bool, ...]:
    if tile.pads:
        return (True,)
    return (False,) if preset == "minimal" else (False, True)
