"""The kernels that a build compiles, one a translation unit, chosen by preset."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from build_tools.instances import (
    PHASES,
    Instance,
    Language,
    Layout,
    Preset,
    Selection,
    dims_of,
    listed,
    true_fields,
    variants,
)
from csrc_cuda.architectures import SHARED_KIB, devices_of
from csrc_cuda.families import FAMILIES, Family, Tile

LANGUAGE = Language(namespace="cuda", stream="cudaStream_t", suffix=".cu")
ELEMENTS = {"fp16": "cutlass::half_t", "bf16": "cutlass::bfloat16_t", "fp8": "cutlass::float_e4m3_t"}
# CPU seconds of one translation unit for one architecture: parsing CuTe for host and device, then the kernel.
PARSE_SECONDS = 12.0
KERNEL_SECONDS = {"forward": 5.0, "backward": 8.0, "split": 5.0}


@dataclass(frozen=True)
class CudaInstance(Instance):
    """A kernel of csrc_cuda, for any head dim up to its own."""

    family: Family
    phase: str = ""

    @property
    def language(self) -> Language:
        """How its source is written."""
        return LANGUAGE

    @property
    def header(self) -> str:
        """Header with its kernel."""
        return f"{self.family.name}/{self.family.variant}{'_' * bool(self.family.variant)}{self.phase}.h"

    @property
    def launcher(self) -> str:
        """C++ function template that launches it."""
        return f"{self.family.name}::launch_{self.phase}"

    @property
    def tile(self) -> Tile:
        """Tile of its head dim."""
        return self.family.phases[self.phase].tiles[self.head_dim]

    @property
    def keys(self) -> int:
        """Keys of its tile."""
        return self.tile.keys

    @property
    def seconds(self) -> float:
        """Estimated CPU seconds to compile it for one architecture."""
        return PARSE_SECONDS + KERNEL_SECONDS[self.phase] * max(1.0, self.head_dim / 64)

    @property
    def configuration(self) -> str:
        """C++ base class of the instance."""
        scope, phase = f"{self.family.name}::", self.phase.capitalize()
        kind, tile = self.family.variant.capitalize() + phase, f"{scope}{phase}Tile<{listed(*self.tile.numbers)}>"
        fields = {"varlen": self.layout == "varlen", "paged": self.layout == "paged", "masked": self.masked}
        features = listed(*true_fields(fields), *([f".{self.feature} = true"] if self.feature else ()))
        return (
            f"{scope}{kind}<{ELEMENTS[self.dtype]}, {tile}, {self.head_dim},\n"
            f"      {scope}{phase}Features{{{features}}}>"
        )

    @property
    def checks(self) -> str:
        """What must hold for what is said of the instance outside of C++."""
        return f"static_assert({self.name}::kSharedBytes <= {self.tile.shared_kib} * 1024);\n"


def select(archs: Sequence[str], head_dims: Sequence[int], preset: Preset) -> Iterator[Selection]:
    """Kernels of a preset, the cheaper of two that serve the same call first.

    Presets are those of build_tools/instances.py; ``minimal`` is without fp8. An architecture whose devices have too
    little shared memory for a tile goes without it.
    """
    dtypes = [dtype for dtype in ELEMENTS if preset != "minimal" or dtype != "fp8"]
    for phase, head_dim in itertools.product(PHASES, dims_of(head_dims, preset)):
        features = tuple(dict.fromkeys(name for family in FAMILIES for name in _features(family, phase)))
        for masked, feature in variants(phase, features, head_dim, preset):
            for dtype, layout in itertools.product(dtypes, _layouts(phase)):
                asked = (phase, dtype, head_dim, layout, feature)
                for family in FAMILIES:
                    served = [arch for arch in archs if _family_of(arch, *asked) is family]
                    if served:
                        instance = CudaInstance(family, dtype, head_dim, layout, masked, feature, phase)
                        yield from _fitting(instance, served)


def _features(family: Family, phase: str) -> tuple[str, ...]:
    return family.phases[phase].features if phase in family.phases else ()


def _layouts(phase: str) -> tuple[Layout, ...]:
    layouts = (family.phases[phase].layouts for family in FAMILIES if phase in family.phases)
    return tuple(dict.fromkeys(itertools.chain.from_iterable(layouts)))


def _family_of(arch: str, phase: str, dtype: str, head_dim: int, layout: Layout, feature: str | None) -> Family | None:
    return next((family for family in FAMILIES if family.has(arch, phase, dtype, head_dim, layout, feature)), None)


def _fitting(instance: CudaInstance, archs: Sequence[str]) -> Iterator[Selection]:
    """The selection of those architectures that have devices with enough shared memory, if any have."""
    runs_on = {
        arch: [name for name in devices_of(arch) if SHARED_KIB[name] >= instance.tile.shared_kib] for arch in archs
    }
    fitting = tuple(arch for arch, devices in runs_on.items() if devices)
    if fitting:
        yield Selection(instance, fitting, tuple(dict.fromkeys(itertools.chain.from_iterable(runs_on.values()))))
