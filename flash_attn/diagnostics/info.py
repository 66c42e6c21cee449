"""``python -m flash_attn info``: what is installed here, what can run and why the rest cannot.

A report is wanted most where something is broken, so nothing here raises: a section that fails shows its error.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import flash_attn
from flash_attn import architectures, build_metadata, dispatch, environment
from flash_attn.backends.gpu import architecture_name
from flash_attn.diagnostics import support

PACKAGE = Path(__file__).resolve().parents[1]
_TRITON_DISTRIBUTIONS = ("triton", "pytorch-triton-rocm", "triton-rocm", "pytorch-triton")


def collect() -> dict[str, Any]:
    """Every section of the report, ready for JSON. Never raises."""
    return {
        "versions": _section(_versions),
        "machine": _section(_machine),
        "devices": _section(_devices),
        "backend_requested": _section(dispatch.requested),
        "backends": {name: _section(_backend, name) for name in support.BACKENDS},
        "build": _section(build_metadata.read_build_metadata),
        "foreign_flash_attn": _section(_foreign),
        "environment": _section(environment.in_force),
    }


def render(info: dict[str, Any]) -> str:
    """The report as indented text."""
    return "\n".join(_lines(info, ""))


def _section(make: Callable[..., Any], *args: Any) -> Any:
    try:
        return make(*args)
    except Exception as error:  # whatever is broken here is what the report is for
        return {"error": f"{type(error).__name__}: {error}"}


def _versions() -> dict[str, Any]:
    installed = {name: _distribution_version(name) for name in _TRITON_DISTRIBUTIONS}
    return {
        "flash_attn": flash_attn.__version__,
        "location": str(PACKAGE),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "torch_hip": torch.version.hip,
        "triton": next((f"{name} {version}" for name, version in installed.items() if version), None),
    }


def _distribution_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _machine() -> dict[str, Any]:
    return {
        "os": platform.platform(),
        "cpu": _cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
    }


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _devices() -> list[Any]:
    if not torch.cuda.is_available():
        return []
    return [_section(_device, index) for index in range(torch.cuda.device_count())]


def _device(index: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(index)
    arch = architecture_name(index)
    known = architectures.find(arch)
    return {
        "index": index,
        "name": properties.name,
        "architecture": arch,
        "family": known.family if known else f"unknown: {arch} is in no family of flash_attn/architectures.py",
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "units": properties.multi_processor_count,
    }


def _backend(name: str) -> dict[str, Any]:
    backend = dispatch.backend(name)
    reasons = dispatch.reasons_against(name, support.PROBE.spec(), torch.device(backend.device_type))
    return {"available": not reasons, "reasons": reasons, **backend.details()}


def _foreign() -> list[str]:
    """Other owners of the name ``flash_attn``, of which Python may import one instead of this package."""
    found = []
    for name in sorted(set(importlib.metadata.packages_distributions().get("flash_attn", []))):
        version = importlib.metadata.version(name)
        if (name, version) != ("flash-attn", flash_attn.__version__):
            found.append(f"distribution {name} {version}")
    for entry in dict.fromkeys(sys.path):
        folder = Path(entry or ".").resolve() / "flash_attn"
        if folder.is_dir() and folder != PACKAGE:
            found.append(f"folder {folder}")
    return list(dict.fromkeys(found))


def _lines(value: Any, indent: str) -> list[str]:
    items = value.items() if isinstance(value, dict) else ((f"[{i}]", item) for i, item in enumerate(value))
    lines = []
    for key, item in items:
        if isinstance(item, dict | list) and item:
            lines += [f"{indent}{key}:", *_lines(item, indent + "  ")]
        else:
            lines.append(f"{indent}{key}: {_word(item)}")
    return lines


def _word(value: Any) -> str:
    if value is None or value in ({}, []):
        return "none"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
