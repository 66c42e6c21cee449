"""Writes the instances of a build and their dispatch table; ``python -m csrc_ck.generate --list`` prints them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from csrc_ck.families import FAMILIES, Family, family_of
from csrc_ck.instances import PRESETS, Instance, Preset, instances

DATA_TYPES = {"fp16": "kFloat16", "bf16": "kBFloat16"}


@dataclass(frozen=True)
class Selection:
    """An instance and the architectures of its family that it is compiled for."""

    instance: Instance
    archs: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Estimated CPU seconds to compile it."""
        return self.instance.seconds * len(self.archs)


def select(
    archs: Sequence[str], head_dims: Sequence[int], preset: Preset, only: Sequence[str] = ("*",)
) -> list[Selection]:
    """The instances of a build whose names match a pattern in ``only``. An architecture of no family is ignored."""

    def chosen() -> Iterator[Selection]:
        for family in FAMILIES:
            served = _served(family, archs)
            if served:
                for instance in instances(family, head_dims, preset):
                    if any(fnmatchcase(instance.name, pattern) for pattern in only):
                        yield Selection(instance, served)

    return list(chosen())


def _served(family: Family, archs: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(arch for arch in archs if family_of(arch) is family))


def dispatch_table(selections: Sequence[Selection]) -> str:
    """C++ that defines the tables of ``dispatch.h``."""
    rows = [(selection.instance, _base_names(selection.archs)) for selection in selections]
    described = json.dumps([instance.describe(archs) for instance, archs in rows])
    lines = ['#include "dispatch.h"', "namespace flash_attn::ck {"]
    for phase in ("forward", "backward", "split"):
        params = f"{phase.capitalize()}Params"
        of_phase = [(instance, archs) for instance, archs in rows if instance.phase == phase]
        lines += [f"void launch_{instance.name}(const {params}&, hipStream_t);" for instance, _ in of_phase]
        lines += [f"const Instance<{params}> k{phase.capitalize()}Instances[] = {{"]
        lines += [*(_row(instance, archs) for instance, archs in of_phase), "    {}};"]
    return "\n".join((*lines, *_c_string("kInstancesJson", described), "}  // namespace flash_attn::ck", ""))


def _base_names(archs: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(arch.partition(":")[0] for arch in archs))


def _row(instance: Instance, archs: Sequence[str]) -> str:
    features = [f"DataType::{DATA_TYPES[instance.dtype]}", instance.head_dim, instance.head_dim]
    features += [_cpp(flag) for flag in (instance.layout == "varlen", instance.layout == "paged", instance.masked)]
    features += [_cpp(instance.feature == name) for name in ("softcap", "alibi", "dropout", "deterministic")]
    cells = [f'"{instance.name}"', f'"{" ".join(archs)}"', f"{{{', '.join(str(cell) for cell in features)}}}"]
    cells += [_cpp(not instance.takes_smaller_head_dims), str(instance.keys), f"&launch_{instance.name}"]
    return f"    {{{', '.join(cells)}}},"


def _cpp(flag: bool) -> str:
    return str(flag).lower()


def _c_string(name: str, text: str) -> list[str]:
    """A C string in pieces, since compilers limit the length of one literal."""
    pieces = [text[start : start + 100] for start in range(0, len(text), 100)]
    return [f"const char {name}[] =", *(f"    {json.dumps(piece)}" for piece in pieces), "    ;"]


def write(selections: Sequence[Selection], folder: Path) -> list[Path]:
    """Write a source for each instance, then the table; files whose content stays keep their time.

    Returns the instances' files in the order of ``selections``, then the table's. What an earlier selection left in
    the folder is removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    contents = {folder / f"{selection.instance.name}.hip": selection.instance.source for selection in selections}
    contents[folder / "dispatch_table.cpp"] = dispatch_table(selections)
    for stale in set(folder.glob("*.hip")) - set(contents):
        stale.unlink()
    for path, content in contents.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != content:
            path.write_text(content, encoding="utf-8")
    return list(contents)


def main(arguments: list[str] | None = None) -> None:
    """Print the instances of a build, or write them."""
    parser = argparse.ArgumentParser(prog="python -m csrc_ck.generate", description=__doc__)
    parser.add_argument("--arch", action="append", metavar="GFX", help="architecture; all that CK serves by default")
    parser.add_argument("--head-dim", action="append", type=int, metavar="N", help="32, 64, 128, 256 by default")
    parser.add_argument("--preset", choices=PRESETS, default="default")
    parser.add_argument("--only", action="append", metavar="PATTERN", help="those whose name matches, as '*_bf16_*'")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--list", action="store_true", help="print the instances and their estimated compile time")
    action.add_argument("--out", type=Path, metavar="FOLDER", help="write the instances and the table there")
    options = parser.parse_args(arguments)
    archs = options.arch or [arch for family in FAMILIES for arch in family.archs]
    selections = select(archs, options.head_dim or (32, 64, 128, 256), options.preset, options.only or ("*",))
    if options.out:
        write(selections, options.out)
        return
    for selection in selections:
        print(f"{selection.seconds:6.0f} s  {selection.instance.name}  {' '.join(selection.archs)}")
    total = sum(selection.seconds for selection in selections)
    print(f"{total:6.0f} s  of one core for {len(selections)} instances")


if __name__ == "__main__":
    main()
