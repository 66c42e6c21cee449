"""The NVIDIA architectures that launches may be simulated for, and their limits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """``shared_bytes`` is the most that one block may have, ``processors`` the streaming multiprocessors."""

    name: str
    shared_bytes: int
    shared_bytes_per_processor: int
    processors: int
    threads_per_processor: int

    @property
    def capability(self) -> tuple[int, int]:
        """Compute capability (major, minor)."""
        number = int(self.name.removeprefix("sm_"))
        return number // 10, number % 10


TARGETS = {
    target.name: target
    for target in (
        Target("sm_80", 163 << 10, 164 << 10, 108, 2048),
        Target("sm_86", 99 << 10, 100 << 10, 84, 1536),
        Target("sm_89", 99 << 10, 100 << 10, 128, 1536),
        Target("sm_90", 227 << 10, 228 << 10, 132, 2048),
    )
}


def find_target(name: str) -> Target:
    """The target of a name; ValueError that lists them all if there is none."""
    if name not in TARGETS:
        raise ValueError(f"unknown target {name!r}; known are {', '.join(TARGETS)}")
    return TARGETS[name]
