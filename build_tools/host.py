"""The machine that builds: compiler, ninja, cores, memory."""

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from .programs import Program, find, probe

GIB = 1024**3


@dataclass(frozen=True)
class Host:
    """What the build runs on. ``memory_gib`` is free memory in GiB, None where the system does not tell."""

    system: str
    python: str
    compiler: Program | None
    ninja: Program | None
    cores: int
    memory_gib: float | None


def detect_host(search_path: str, meminfo: Path, cgroup: Path) -> Host:
    """Look at this machine; ``meminfo`` and ``cgroup`` are /proc/meminfo and /sys/fs/cgroup."""
    compilers = (find(name, search_path) for name in ("g++", "clang++", "c++"))
    compiler = next((path for path in compilers if path), None)
    ninja = find("ninja", search_path)
    return Host(
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        compiler=probe(compiler, r"(\d+\.\d+(?:\.\d+)?)") if compiler else None,
        ninja=probe(ninja, r"(\d+\.\d+(?:\.\d+)?)") if ninja else None,
        cores=usable_cores(),
        memory_gib=available_memory_gib(meminfo, cgroup),
    )


def usable_cores() -> int:
    """Return the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_memory_gib(meminfo: Path, cgroup: Path) -> float | None:
    """Return free memory in GiB, at most what the container (cgroup v2, else v1) allows; None if unknown."""
    amounts: list[int] = []
    if meminfo.is_file():
        match = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.MULTILINE)
        if match:
            amounts.append(int(match.group(1)) * 1024)
    for limit in (cgroup / "memory.max", cgroup / "memory" / "memory.limit_in_bytes"):
        if limit.is_file() and limit.read_text().strip().isdigit():
            amounts.append(int(limit.read_text()))
    return round(min(amounts) / GIB, 2) if amounts else None
