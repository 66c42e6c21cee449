"""NVIDIA architectures as nvcc compiles for them, and the devices that run what it compiled.

Machine code of sm_XY runs on devices of the same X and no smaller Y; with the suffix ``a``, on XY alone. Limits of
shared memory are those of NVIDIA's CUDA C++ Programming Guide, table "Technical Specifications per Compute Capability".
"""

from __future__ import annotations

import re

# Shared memory that a block can have.
SHARED_KIB = {
    "sm_80": 163,
    "sm_86": 99,
    "sm_87": 163,
    "sm_89": 99,
    "sm_90": 227,
    "sm_100": 227,
    "sm_103": 227,
    "sm_110": 227,
    "sm_120": 99,
    "sm_121": 99,
}
_PATTERN = re.compile(r"(?:sm_)?([0-9]{2,3})([af]?)")


def canonical(arch: str) -> str:
    """``90`` or ``sm_90`` as ``sm_90a``: Hopper's own instructions need the suffix, and no other card runs sm_90."""
    number, suffix = _parts(arch)
    return "sm_90a" if number == 90 else f"sm_{number}{suffix}"


def devices_of(arch: str) -> tuple[str, ...]:
    """Devices that run machine code of ``arch``, as the runtime's compute capability names them."""
    number, suffix = _parts(arch)
    named = {name: int(name.removeprefix("sm_")) for name in SHARED_KIB}
    if suffix == "a":
        return tuple(name for name, other in named.items() if other == number)
    return tuple(name for name, other in named.items() if other // 10 == number // 10 and other >= number)


def gencode(arch: str, *, ptx: bool) -> str:
    """nvcc's flag for machine code of ``arch``, or for its PTX alone."""
    name = arch.removeprefix("sm_")
    return f"-gencode=arch=compute_{name},code={'compute' if ptx else 'sm'}_{name}"


def _parts(arch: str) -> tuple[int, str]:
    match = _PATTERN.fullmatch(arch)
    if match is None:
        raise ValueError(f"{arch} is no NVIDIA architecture such as sm_80 or 90a")
    return int(match.group(1)), match.group(2)
