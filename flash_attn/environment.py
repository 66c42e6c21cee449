"""The environment variables that the package reads at run time; nothing else in it reads ``os.environ``."""

from __future__ import annotations

import os
from dataclasses import dataclass

BACKEND_NAMES = ("auto", "ck", "cuda", "triton", "cpu", "reference")
SIMULATED_TARGETS = ("gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1201", "sm_80", "sm_90")
_TRUE = ("1", "true", "yes", "on")
_FALSE = ("", "0", "false", "no", "off")
_BOOLEAN = "1/true/yes/on or 0/false/no/off"


@dataclass(frozen=True)
class Variable:
    """One environment variable: its name, what it accepts, its default and what it does."""

    name: str
    accepts: str
    default: str
    doc: str


BACKEND = Variable(
    "FLASH_ATTENTION_BACKEND",
    " | ".join(BACKEND_NAMES),
    "auto",
    "Backend of every call; one asked for by name never falls back to another. Read at each call.",
)
TRITON_AMD_ENABLE = Variable(
    "FLASH_ATTENTION_TRITON_AMD_ENABLE",
    _BOOLEAN,
    "false",
    "Upstream's switch: the same as FLASH_ATTENTION_BACKEND=triton, which takes precedence.",
)
CHECK = Variable(
    "FLASH_ATTENTION_CHECK",
    _BOOLEAN,
    "false",
    "Check the values of cu_seqlens, block_table, cache_seqlens... on a GPU too (waits for the device).",
)
SIMULATE = Variable(
    "FLASH_ATTENTION_SIMULATE",
    " | ".join(SIMULATED_TARGETS),
    "none",
    "Run the triton backend, and ck or cuda, on CPU tensors as code of this architecture: AMD machine code in "
    "amdgpu_sim, PTX for NVIDIA in ptx_sim; auto then means triton for them. For tests, from a checkout. Read once, "
    "when a backend is first chosen.",
)
TRITON_AMD_AUTOTUNE = Variable(
    "FLASH_ATTENTION_TRITON_AMD_AUTOTUNE",
    _BOOLEAN,
    "false",
    "Time configurations of the Triton kernels on the GPU at the first call of each class of problems. Read once.",
)
TRITON_AMD_FORWARD_CONFIG = Variable(
    "FLASH_ATTENTION_FWD_TRITON_AMD_CONFIG_JSON",
    'a JSON object such as {"BLOCK_M": 128, "BLOCK_N": 64, "num_warps": 4}',
    "",
    "Configuration of the Triton forward kernel, in place of the shipped one; ignored while autotuning. Read once.",
)
VARIABLES = (BACKEND, TRITON_AMD_ENABLE, CHECK, SIMULATE, TRITON_AMD_AUTOTUNE, TRITON_AMD_FORWARD_CONFIG)


def parse_backend(value: object, source: str) -> str:
    """Return a known backend name, or raise ``ValueError`` naming ``source``."""
    name = value.strip().lower() if isinstance(value, str) else None
    if name is None or name not in BACKEND_NAMES:
        raise ValueError(f"{source} is {value!r}; accepted are {', '.join(BACKEND_NAMES)}")
    return name


def _boolean(variable: Variable) -> bool:
    """Value of a variable that is off unless it is set."""
    value = os.environ.get(variable.name)
    if value is None:
        return False
    lowered = value.strip().lower()
    if lowered not in _TRUE and lowered not in _FALSE:
        raise ValueError(f"{variable.name} is {value!r}; accepted are 1, true, yes, on, 0, false, no, off")
    return lowered in _TRUE


def backend() -> str:
    """Name of the backend that the environment asks for."""
    # Read at every call: a failing lookup is cheaper than a failing get.
    try:
        value = os.environ[BACKEND.name]
    except KeyError:
        value = ""
    if value:
        return parse_backend(value, BACKEND.name)
    try:
        os.environ[TRITON_AMD_ENABLE.name]
    except KeyError:
        return BACKEND.default
    return "triton" if _boolean(TRITON_AMD_ENABLE) else BACKEND.default


def check_device_values() -> bool:
    """Whether values that live on a GPU are checked."""
    return _boolean(CHECK)


def simulated_target() -> str | None:
    """Architecture that backends are simulated as, or ``None``."""
    value = os.environ.get(SIMULATE.name, "")
    name = value.strip().lower()
    if name and name not in SIMULATED_TARGETS:
        raise ValueError(f"{SIMULATE.name} is {value!r}; accepted are {', '.join(SIMULATED_TARGETS)}")
    return name or None


def triton_autotune() -> bool:
    """Whether configurations of the Triton kernels are timed."""
    return _boolean(TRITON_AMD_AUTOTUNE)


def triton_forward_config() -> str | None:
    """JSON of the Triton forward configuration to use; ``None`` where none is set."""
    return os.environ.get(TRITON_AMD_FORWARD_CONFIG.name) or None


def check_values() -> None:
    """Raise ``ValueError`` naming a variable whose value is not accepted."""
    for read in (backend, check_device_values, simulated_target, triton_autotune):
        read()


def in_force() -> dict[str, str]:
    """The variables that are set, with their raw values."""
    return {v.name: os.environ[v.name] for v in VARIABLES if v.name in os.environ}
