"""The rows of ``configs/<architecture>.json``: reading, checking and writing them.

A file is ``{"architecture": ..., "rows": [...]}``; a row is

    {"kernel": "forward", "bits": 16, "block_d": 128, "banded": true,
     "config": {"block_m": 128, ...}, "provenance": {"tool": ..., "triton": ..., "figures": ...}}

A row without ``banded`` serves both kinds. Keys of ``config`` are the fields of :class:`KernelConfig`; one left out
has its default. ``provenance`` says how the row was chosen: the tool, Triton's version, and what was measured.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .kernel_config import BLOCK_DIMS, KERNELS, BackwardTile, ForwardConfig, KernelConfig, ProblemClass

CONFIGS = Path(__file__).parent / "configs"
_ROW_KEYS = ("kernel", "bits", "block_d", "banded", "config", "provenance")
_PROVENANCE_KEYS = ("tool", "triton", "figures")
_BITS = (8, 16, 32)


@dataclass(frozen=True)
class Row:
    """A configuration, the class of problems it serves (``banded`` of ``None``: both kinds), and how it was chosen."""

    kernel: str
    bits: int
    block_d: int
    banded: bool | None
    config: KernelConfig
    provenance: Mapping[str, Any]

    @property
    def classes(self) -> tuple[ProblemClass, ...]:
        """The classes that the row serves."""
        kinds = (False, True) if self.banded is None else (self.banded,)
        return tuple(ProblemClass(self.kernel, self.bits, self.block_d, banded) for banded in kinds)


def shipped_architectures() -> tuple[str, ...]:
    """Names of the architectures that have a file."""
    return tuple(sorted(path.stem for path in CONFIGS.glob("*.json")))


@cache
def rows_of(architecture: str) -> tuple[Row, ...]:
    """The rows of an architecture that has a file."""
    return read_rows(CONFIGS / f"{architecture}.json")


def read_rows(path: Path) -> tuple[Row, ...]:
    """The rows of a file; ``ValueError`` names the file, the row and the key of what is wrong."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.name}: not JSON: {error}") from error
    if not isinstance(content, dict) or set(content) != {"architecture", "rows"}:
        raise ValueError(f"{path.name}: an object with the keys architecture and rows is expected")
    if content["architecture"] != path.stem or not isinstance(content["rows"], list):
        raise ValueError(f"{path.name}: architecture must be {path.stem!r} and rows a list")
    rows: list[Row] = []
    seen: dict[ProblemClass, int] = {}
    for number, item in enumerate(content["rows"]):
        place = f"{path.name}, row {number}"
        row = _parse_row(item, place)
        rows.append(row)
        for group in row.classes:
            if group in seen:
                raise ValueError(f"{place}: serves the same class as row {seen[group]}: {group}")
            seen[group] = number
    return tuple(rows)


def write_rows(path: Path, new: Iterable[Row]) -> None:
    """Write rows into a file: they replace what it has for their classes, and the other rows stay."""
    rows = list(read_rows(path)) if path.exists() else []
    for row in new:
        rows = [left for old in rows for left in _without(old, row)] + [row]
    rows.sort(key=lambda row: (KERNELS.index(row.kernel), -row.bits, row.block_d, bool(row.banded)))
    lines = ",\n".join(f"    {json.dumps(_as_json(row))}" for row in rows)
    path.write_text(f'{{\n  "architecture": "{path.stem}",\n  "rows": [\n{lines}\n  ]\n}}\n', encoding="utf-8")


def parse_config(kernel: str, values: Any, place: str) -> KernelConfig:
    """A kernel's configuration from JSON values; ``ValueError`` starts with ``place`` and names the key."""
    kind = ForwardConfig if kernel == "forward" else BackwardTile
    accepted = kind.row_keys()
    if not isinstance(values, dict):
        raise ValueError(f"{place}: {values!r} is no object; accepted keys are {', '.join(accepted)}")
    for name in values:
        if name not in accepted:
            raise ValueError(f"{place}: unknown key {name!r}; accepted are {', '.join(accepted)}")
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _parse_row(item: Any, place: str) -> Row:
    if not isinstance(item, dict):
        raise ValueError(f"{place}: an object is expected, got {item!r}")
    for key in item:
        if key not in _ROW_KEYS:
            raise ValueError(f"{place}: unknown key {key!r}; accepted are {', '.join(_ROW_KEYS)}")
    for key in _ROW_KEYS:
        if key not in item and key != "banded":
            raise ValueError(f"{place}: key {key!r} is missing")
    _one_of(item, "kernel", KERNELS, place)
    _one_of(item, "bits", _BITS, place)
    _one_of(item, "block_d", BLOCK_DIMS, place)
    if "banded" in item and not isinstance(item["banded"], bool):
        raise ValueError(f"{place}: banded is {item['banded']!r}; accepted are true and false")
    provenance = item["provenance"]
    if not isinstance(provenance, dict) or set(provenance) != set(_PROVENANCE_KEYS):
        raise ValueError(f"{place}: provenance must be an object with the keys {', '.join(_PROVENANCE_KEYS)}")
    config = parse_config(item["kernel"], item["config"], f"{place}, config")
    return Row(item["kernel"], item["bits"], item["block_d"], item.get("banded"), config, provenance)


def _one_of(item: Mapping[str, Any], key: str, accepted: tuple[Any, ...], place: str) -> None:
    if isinstance(item[key], bool) or item[key] not in accepted:
        raise ValueError(f"{place}: {key} is {item[key]!r}; accepted are {', '.join(map(str, accepted))}")


def _without(old: Row, new: Row) -> tuple[Row, ...]:
    """What is left of a row when another takes the classes they share."""
    if (old.kernel, old.bits, old.block_d) != (new.kernel, new.bits, new.block_d):
        return (old,)
    if new.banded is None or old.banded == new.banded:
        return ()
    return (old,) if old.banded is not None else (dataclasses.replace(old, banded=not new.banded),)


def _as_json(row: Row) -> dict[str, Any]:
    kind = {} if row.banded is None else {"banded": row.banded}
    return {
        "kernel": row.kernel,
        "bits": row.bits,
        "block_d": row.block_d,
        **kind,
        "config": row.config.as_row(),
        "provenance": dict(row.provenance),
    }
