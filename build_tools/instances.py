"""What the generators of both vendors share: an instance, its source, the dispatch table, and ``--list``.

An instance is one compiled kernel. csrc_ck and csrc_cuda say which there are; here they become C++ sources, one
translation unit each, and the tables that csrc_common/dispatch.h searches.
"""

from __future__ import annotations

import argparse
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, Protocol

Preset = Literal["minimal", "default", "full"]
Layout = Literal["dense", "varlen", "paged"]
PRESETS: tuple[Preset, ...] = ("minimal", "default", "full")
COMMON_DIMS = (64, 128)
HEAD_DIMS = (32, 64, 128, 256)
PHASES = ("forward", "backward", "split")
SEQUENCES: tuple[Layout, ...] = ("dense", "varlen")
CACHES: tuple[Layout, ...] = ("dense", "paged")
# Their names in DataType of csrc_common/params.h; fp8 is e4m3 as OCP has it, fp8fnuz as gfx942 has it.
DATA_TYPES = {"fp16": "kFloat16", "bf16": "kBFloat16", "fp8": "kFloat8E4M3", "fp8fnuz": "kFloat8E4M3Fnuz"}
TABLE = "dispatch_table.cpp"


@dataclass(frozen=True)
class Language:
    """How a vendor's sources are written."""

    namespace: str
    stream: str
    suffix: str


class Named(Protocol):
    """Architectures that share instances."""

    @property
    def name(self) -> str:
        """Its name in the names of instances."""


@dataclass(frozen=True)
class Instance(ABC):
    """A kernel of one phase: ``head_dim`` is the largest it takes, or the only one unless it takes smaller ones."""

    family: Named
    dtype: str
    head_dim: int
    layout: Layout
    masked: bool
    feature: str | None = None

    phase = ""

    @property
    @abstractmethod
    def language(self) -> Language:
        """How its source is written."""

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
    def header(self) -> str:
        """Header with its kernel."""
        return f"{self.phase}.h"

    @property
    def launcher(self) -> str:
        """C++ function template that launches it."""
        return f"launch_{self.phase}"

    @property
    def checks(self) -> str:
        """C++ assertions about it."""
        return ""

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
        namespace = f"flash_attn::{self.language.namespace}"
        return (
            f'#include "{self.header}"\n'
            f"namespace {namespace} {{\n"
            f"struct {self.name}\n    : {self.configuration} {{}};\n"
            f"{self.checks}"
            f"void launch_{self.name}(const {self.phase.capitalize()}Params& params, void* stream) {{\n"
            f"  {self.launcher}<{self.name}>(params, static_cast<{self.language.stream}>(stream));\n"
            "}\n"
            f"}}  // namespace {namespace}\n"
        )

    def describe(self, devices: Sequence[str]) -> dict[str, object]:
        """What the built library tells of it, as values that JSON can hold."""
        return {
            "name": self.name,
            "phase": self.phase,
            "archs": list(devices),
            "dtype": self.dtype,
            "head_dim": self.head_dim,
            "exact": not self.takes_smaller_head_dims,
            "layout": self.layout,
            "masked": self.masked,
            "feature": self.feature,
        }


@dataclass(frozen=True)
class Selection:
    """An instance, the architectures it is compiled for, and those of the devices that run what comes out."""

    instance: Instance
    archs: tuple[str, ...]
    devices: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Estimated CPU seconds to compile it."""
        return self.instance.seconds * len(self.archs)


Select = Callable[[Sequence[str], Sequence[int], Preset, Sequence[str]], list[Selection]]


def named(selections: Iterable[Selection], only: Sequence[str]) -> Iterator[Selection]:
    """Those of which the instance's name matches one of the patterns."""
    return (one for one in selections if any(fnmatchcase(one.instance.name, pattern) for pattern in only))


def dims_of(head_dims: Sequence[int], preset: Preset) -> list[int]:
    """Head dims of a preset among those asked for.

    ``minimal`` has the common ones, or all where none is common. ``default`` pads small ones to the least common one
    where that is asked for.
    """
    asked = set(head_dims)
    if preset == "minimal":
        return sorted(asked.intersection(COMMON_DIMS) or asked)
    least = min(COMMON_DIMS)
    padded = {dim for dim in asked if dim < least} if preset == "default" and least in asked else set()
    return sorted(asked - padded)


def variants(
    phase: str, features: Sequence[str], head_dim: int, preset: Preset, padded: bool = False
) -> Iterator[tuple[bool, str | None]]:
    """(masked, feature) of a preset for one head dim, the cheaper of two that serve the same call first.

    A masked kernel serves any window, none included. ``minimal`` has it alone. ``default`` adds, for the common head
    dims, a forward without a mask and each feature (ALiBi in the forward alone). ``full`` has every combination.
    """
    if preset == "full":
        yield from itertools.product((False, True), (None, *features))
        return
    common = preset == "default" and head_dim in COMMON_DIMS and not padded
    if common and phase == "forward":
        yield False, None
    yield True, None
    if common:
        yield from ((True, feature) for feature in features if feature != "alibi" or phase == "forward")


def listed(*items: object) -> str:
    """C++ arguments."""
    return ", ".join(str(item) for item in items)


def true_fields(fields: Mapping[str, bool]) -> list[str]:
    """C++ designated initialisers of the fields that are true."""
    return [f".{name} = true" for name, value in fields.items() if value]


def dispatch_table(selections: Sequence[Selection], namespace: str) -> str:
    """C++ that defines the tables of csrc_common/dispatch.h; the launchers are in ``flash_attn::namespace``."""
    described = json.dumps([one.instance.describe(one.devices) for one in selections])
    lines = ['#include "dispatch.h"', "namespace flash_attn {"]
    for phase in PHASES:
        params = f"{phase.capitalize()}Params"
        of_phase = [one for one in selections if one.instance.phase == phase]
        lines += [f"namespace {namespace} {{"]
        lines += [f"void launch_{one.instance.name}(const {params}&, void*);" for one in of_phase]
        lines += ["}", f"const Instance<{params}> k{phase.capitalize()}Instances[] = {{"]
        lines += [*(_row(one, namespace) for one in of_phase), "    {}};"]
    return "\n".join((*lines, *_c_string("kInstancesJson", described), "}  // namespace flash_attn", ""))


def _row(selection: Selection, namespace: str) -> str:
    instance = selection.instance
    features = [f"DataType::{DATA_TYPES[instance.dtype]}", instance.head_dim, instance.head_dim]
    features += [_cpp(flag) for flag in (instance.layout == "varlen", instance.layout == "paged", instance.masked)]
    features += [_cpp(instance.feature == name) for name in ("softcap", "alibi", "dropout", "deterministic")]
    cells = [f'"{instance.name}"', f'"{" ".join(selection.devices)}"', f"{{{listed(*features)}}}"]
    cells += [_cpp(not instance.takes_smaller_head_dims), str(instance.keys), f"&{namespace}::launch_{instance.name}"]
    return f"    {{{', '.join(cells)}}},"


def _cpp(flag: bool) -> str:
    return str(flag).lower()


def _c_string(name: str, text: str) -> list[str]:
    """A C string in pieces, since compilers limit the length of one literal."""
    pieces = [text[start : start + 100] for start in range(0, len(text), 100)]
    return [f"const char {name}[] =", *(f"    {json.dumps(piece)}" for piece in pieces), "    ;"]


def write(selections: Sequence[Selection], folder: Path, language: Language) -> list[Path]:
    """Write a source for each instance, then the table; files whose content stays keep their time.

    Returns the instances' files in the order of ``selections``, then the table's. What an earlier selection left in
    the folder is removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    contents = {folder / f"{one.instance.name}{language.suffix}": one.instance.source for one in selections}
    contents[folder / TABLE] = dispatch_table(selections, language.namespace)
    for stale in set(folder.glob(f"*{language.suffix}")) - set(contents):
        stale.unlink()
    for path, content in contents.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != content:
            path.write_text(content, encoding="utf-8")
    return list(contents)


def generate(
    arguments: list[str] | None, folder: str, language: Language, select: Select, archs: Sequence[str]
) -> None:
    """The command of a vendor's generator: print the instances of a build, or write them."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {folder}.generate", description="Print the instances of a build, or write them."
    )
    parser.add_argument("--arch", action="append", metavar="ARCH", help=f"architecture; {', '.join(archs)} by default")
    parser.add_argument("--head-dim", action="append", type=int, metavar="N", help=f"{listed(*HEAD_DIMS)} by default")
    parser.add_argument("--preset", choices=PRESETS, default="default")
    parser.add_argument("--only", action="append", metavar="PATTERN", help="those whose name matches, as '*_bf16_*'")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--list", action="store_true", help="print the instances and their estimated compile time")
    action.add_argument("--out", type=Path, metavar="FOLDER", help="write the instances and the table there")
    options = parser.parse_args(arguments)
    selections = select(options.arch or archs, options.head_dim or HEAD_DIMS, options.preset, options.only or ("*",))
    if options.out:
        write(selections, options.out, language)
        return
    for one in selections:
        print(f"{one.seconds:6.0f} s  {one.instance.name}  {' '.join(one.archs)}")
    total = sum(one.seconds for one in selections)
    print(f"{total:6.0f} s  of one core for {len(selections)} instances")
