"""Which configuration a problem runs with: the row of its class, a relative's, or what the caller says."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import TypeVar

from ..architectures import ARCHITECTURES, Architecture, find
from .config_rows import parse_config, rows_of, shipped_architectures
from .kernel_config import (
    BackwardConfig,
    BackwardTile,
    ForwardConfig,
    KernelConfig,
    ProblemClass,
    problem_class,
)
from .problem import Problem

__all__ = [
    "BackwardConfig",
    "BackwardTile",
    "ForwardConfig",
    "ProblemClass",
    "backward_config",
    "for_architecture",
    "forward_config",
    "parse_override",
    "problem_class",
    "relative_with_rows",
]

_Config = TypeVar("_Config", bound=KernelConfig)
OVERRIDE_SOURCE = "FLASH_ATTENTION_FWD_TRITON_AMD_CONFIG_JSON"
# Upstream's names of tile sizes; its PRE_LOAD_V is accepted and changes nothing: the compiler places the loads of V.
_UPSTREAM_KEYS = {"BLOCK_M": "block_m", "BLOCK_N": "block_n"}
_WITHOUT_EFFECT = ("PRE_LOAD_V",)
# Stands for a GPU that is in no table: each is the vendor's with the least shared memory.
_STAND_IN = {"gfx": "gfx1200", "sm_": "sm_89"}


def forward_config(problem: Problem, arch_name: str, override: str | None = None) -> ForwardConfig:
    """Configuration of the forward kernel for a problem on an architecture.

    Args:
        problem: what is computed.
        arch_name: as PyTorch says it, such as ``gfx942:sramecc+:xnack-`` or ``sm_90``.
        override: JSON that takes the place of the row, in the form of :func:`parse_override`.

    Returns:
        The override; else the row of the problem's class. A width without rows of its own has those of 16 bits, an
        architecture without a file those of :func:`relative_with_rows`.

    Raises:
        ValueError: for an override that cannot be read.
    """
    if override:
        return for_architecture(parse_override(override), arch_name)
    return _forward_row(problem_class(problem, "forward"), arch_name)


def backward_config(problem: Problem, arch_name: str) -> BackwardConfig:
    """Configurations of the backward kernels for a problem; arguments and fallbacks as for :func:`forward_config`."""
    dkdv = _row_config(problem_class(problem, "backward_dkdv"), arch_name)
    dq = _row_config(problem_class(problem, "backward_dq"), arch_name)
    assert isinstance(dkdv, BackwardTile)
    assert isinstance(dq, BackwardTile)
    return BackwardConfig(for_architecture(dkdv, arch_name), for_architecture(dq, arch_name), dkdv.num_xcds)


def for_architecture(config: _Config, arch_name: str) -> _Config:
    """A configuration with what the architecture decides filled in."""
    architecture = find(arch_name)
    if architecture is None:
        return config
    converts = architecture.vendor == "nvidia" or architecture.family == "CDNA4"
    config = replace(config, round_by_add=not converts)
    return replace(config, fp8=architecture.fp8) if isinstance(config, ForwardConfig) else config


@cache
def parse_override(text: str) -> ForwardConfig:
    """A forward configuration from JSON such as ``{"BLOCK_M": 128, "BLOCK_N": 64, "waves_per_eu": 1}``.

    Keys are the fields of :class:`ForwardConfig`; ``BLOCK_M``, ``BLOCK_N`` and ``PRE_LOAD_V`` are upstream's.
    ``ValueError`` names the key that is wrong and what is accepted.
    """
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{OVERRIDE_SOURCE}: not JSON: {error}") from error
    if isinstance(values, dict):
        if not isinstance(values.pop("PRE_LOAD_V", False), bool):
            raise ValueError(f"{OVERRIDE_SOURCE}: PRE_LOAD_V must be true or false; it changes nothing here")
        for name, ours in _UPSTREAM_KEYS.items():
            if name in values and ours in values:
                raise ValueError(f"{OVERRIDE_SOURCE}: {name} and {ours} are the same key")
        values = {_UPSTREAM_KEYS.get(name, name): value for name, value in values.items()}
    config = parse_config("forward", values, OVERRIDE_SOURCE)
    assert isinstance(config, ForwardConfig)
    return config


@cache
def _forward_row(group: ProblemClass, arch_name: str) -> ForwardConfig:
    config = _row_config(group, arch_name)
    assert isinstance(config, ForwardConfig)
    return for_architecture(config, arch_name)


@cache
def _row_config(group: ProblemClass, arch_name: str) -> KernelConfig:
    rows = {served: row.config for row in rows_of(relative_with_rows(arch_name)) for served in row.classes}
    for bits in (group.bits, 16):
        config = rows.get(ProblemClass(group.kernel, bits, group.block_d, group.banded))
        if config is not None:
            return config
    raise ValueError(f"no configuration for {group} on {arch_name}; accepted are head dims up to 512")


@cache
def relative_with_rows(arch_name: str) -> str:
    """Name of the architecture whose rows ``arch_name`` uses: its own, or the closest relative's.

    The closest is, of the same vendor and kind of matrix instruction and with no more shared memory for a work
    group, first one of the same family, then the one with the most shared memory. A GPU that is in no table has the
    rows of its vendor's smallest.
    """
    shipped = shipped_architectures()
    architecture = find(arch_name)
    if architecture is None:
        return _STAND_IN.get(arch_name[:3], _STAND_IN["gfx"])
    if architecture.name in shipped:
        return architecture.name

    def fits(other: Architecture) -> bool:
        return (
            other.vendor == architecture.vendor
            and other.matrix_kind == architecture.matrix_kind
            and other.shared_memory_per_block <= architecture.shared_memory_per_block
        )

    relatives = [ARCHITECTURES[name] for name in shipped if fits(ARCHITECTURES[name])]
    relatives.sort(key=lambda other: (other.family != architecture.family, -other.shared_memory_per_block, other.name))
    return relatives[0].name
