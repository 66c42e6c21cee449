"""Writes the instances of a build and their dispatch table; ``python -m csrc_cuda.generate --list`` prints them."""

from __future__ import annotations

from collections.abc import Sequence

from build_tools.instances import Preset, Selection, generate, named
from csrc_cuda import instances
from csrc_cuda.architectures import canonical

ARCHS = ("sm_80", "sm_90a", "sm_100", "sm_120")


def select(
    archs: Sequence[str], head_dims: Sequence[int], preset: Preset, only: Sequence[str] = ("*",)
) -> list[Selection]:
    """The instances of a build whose names match a pattern in ``only``; ValueError for what is no architecture."""
    canonical_archs = tuple(dict.fromkeys(canonical(arch) for arch in archs))
    return list(named(instances.select(canonical_archs, head_dims, preset), only))


def main(arguments: list[str] | None = None) -> None:
    """Print the instances of a build, or write them."""
    generate(arguments, "csrc_cuda", instances.LANGUAGE, select, ARCHS)


if __name__ == "__main__":
    main()
