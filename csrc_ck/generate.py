"""Writes the instances of a build and their dispatch table; ``python -m csrc_ck.generate --list`` prints them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from build_tools.instances import Preset, Selection, generate, named
from csrc_ck.families import FAMILIES
from csrc_ck.instances import LANGUAGE, instances


def select(
    archs: Sequence[str], head_dims: Sequence[int], preset: Preset, only: Sequence[str] = ("*",)
) -> list[Selection]:
    """The instances of a build whose names match a pattern in ``only``. An architecture of no family is ignored."""

    def chosen() -> Iterator[Selection]:
        for family in FAMILIES:
            for instance in instances(family, head_dims, preset):
                if served := tuple(dict.fromkeys(arch for arch in archs if _base_name(arch) in instance.archs)):
                    yield Selection(instance, served, tuple(dict.fromkeys(map(_base_name, served))))

    return list(named(chosen(), only))


def _base_name(arch: str) -> str:
    return arch.partition(":")[0]


def main(arguments: list[str] | None = None) -> None:
    """Print the instances of a build, or write them."""
    generate(arguments, "csrc_ck", LANGUAGE, select, [arch for family in FAMILIES for arch in family.archs])


if __name__ == "__main__":
    main()
