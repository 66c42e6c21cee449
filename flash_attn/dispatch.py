"""Choice of the backend for a spec; knows every reason why a backend was not chosen."""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from flash_attn import environment
from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends.base import Backend

_logger = logging.getLogger("flash_attn")
_BACKENDS = {
    "ck": "CKBackend",
    "cuda": "CUDABackend",
    "triton": "TritonBackend",
    "cpu": "CpuBackend",
    "reference": "ReferenceBackend",
}
# Of the architectures that a vendor's own backend can be simulated as.
_PREFIXES = {"ck": "gfx", "cuda": "sm_"}
_selected: dict[tuple[AttentionSpec, torch.device, str], Backend] = {}
_MAX_SELECTED = 4096


class _Override(threading.local):
    """What ``use_backend`` asks for in this thread."""

    name: str | None = None


_override = _Override()


class UnsupportedError(RuntimeError):
    """No backend, or not the one asked for, supports a request."""


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Use backend ``name`` inside the block, in this thread, whatever the environment says.

    Args:
        name: ``auto``, ``ck``, ``cuda``, ``triton``, ``cpu`` or ``reference``. A backend asked for by name
            never falls back: an unsupported request raises.

    Raises:
        ValueError: ``name`` is not a backend.
    """
    outer = _override.name
    _override.name = environment.parse_backend(name, "backend name")
    try:
        yield
    finally:
        _override.name = outer


def requested() -> str:
    """Name that ``use_backend`` or else the environment asks for; ``auto`` by default."""
    return _override.name or environment.backend()


@cache
def simulated_target() -> str | None:
    """Architecture that backends are simulated as; the environment is asked once."""
    return environment.simulated_target()


@cache
def backend(name: str) -> Backend:
    """The backend called ``name``; its module is imported on first use."""
    kind = getattr(importlib.import_module(f"flash_attn.backends.{name}"), _BACKENDS[name])
    options: tuple[object, ...] = ()
    if name in _PREFIXES:
        target = simulated_target()
        options = (target if target and target.startswith(_PREFIXES[name]) else None,)
    elif name == "triton":
        options = (simulated_target(), environment.triton_forward_config(), environment.triton_autotune())
    instance: Backend = kind(*options)
    return instance


def candidates(device: torch.device) -> tuple[str, ...]:
    """Backends that ``auto`` tries for tensors on ``device``, fastest first.

    Under ``FLASH_ATTENTION_SIMULATE`` that is triton alone for CPU tensors: another backend would simulate nothing.
    """
    if device.type == "cpu":
        return ("triton",) if simulated_target() else ("cpu",)
    return ("ck", "triton", "cpu") if torch.version.hip else ("cuda", "triton", "cpu")


def reasons_against(name: str, spec: AttentionSpec, device: torch.device) -> list[str]:
    """Why backend ``name`` cannot answer ``spec`` for tensors on ``device`` of this machine; empty when it can."""
    asked = backend(name)
    against = [*asked.unsupported_reasons(spec, device), *asked.machine_reasons(device)]
    return against or asked.build_reasons(spec, device)


def reasons(spec: AttentionSpec, device: torch.device) -> dict[str, list[str]]:
    """For every backend, why it cannot answer ``spec`` on ``device``; an empty list where it can."""
    return {name: reasons_against(name, spec, device) for name in _BACKENDS}


def select(spec: AttentionSpec, device: torch.device, request: str) -> Backend:
    """The backend that answers ``spec`` for tensors on ``device``.

    Args:
        spec: what is asked.
        device: where the tensors are.
        request: a backend's name, or ``auto`` for the first of ``candidates`` without reasons against it.

    Raises:
        UnsupportedError: lists the request and, for every backend, why not.
    """
    key = (spec, device, request)
    chosen = _selected.get(key)
    if chosen is None:
        chosen = _choose(spec, device, request)
        if len(_selected) >= _MAX_SELECTED:
            _selected.clear()
        _selected[key] = chosen
    return chosen


def _choose(spec: AttentionSpec, device: torch.device, request: str) -> Backend:
    request = environment.parse_backend(request, "backend")
    for name in candidates(device) if request == "auto" else (request,):
        against = reasons_against(name, spec, device)
        if not against:
            return backend(name)
        if request == "auto":
            _log_passed_over(name, tuple(against))
    raise UnsupportedError(_explain(spec, device, request))


@cache
def _log_passed_over(name: str, against: tuple[str, ...]) -> None:
    """Say once why a faster backend was passed over."""
    _logger.info("backend %s passed over: %s", name, "; ".join(against))


def _explain(spec: AttentionSpec, device: torch.device, request: str) -> str:
    defaults = spec._field_defaults
    asked = ", ".join(
        f"{field}={value}" for field, value in spec._asdict().items() if defaults.get(field, ...) != value
    )
    who = "no backend" if request == "auto" else f"backend {request!r} does not"
    verb = "supports" if request == "auto" else "support"
    lines = [f"{who} {verb} this request on {device}: {asked}"]
    for name, against in reasons(spec, device).items():
        lines.append(f"  {name}: {'; '.join(against) if against else 'supports it'}")
    return "\n".join(lines)
