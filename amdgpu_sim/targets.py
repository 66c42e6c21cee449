"""The simulated processors and the few facts in which they differ."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One AMD processor.

    ``generation`` is the major ISA version (9, 11, 12); ``wave_size`` is in lanes and ``lds_bytes`` per
    work-group; ``compute_units`` are those of the MI250X (one die), MI300X, MI355X, RX 7900 XTX and RX 9070 XT;
    ``fp8`` is "fnuz", "ocp" or "none"; ``split_counters`` tells gfx12's separate wait counters
    from the older vmcnt/lgkmcnt/vscnt.
    """

    name: str
    generation: int
    wave_size: int
    lds_bytes: int
    fp8: str
    compute_units: int

    @property
    def split_counters(self) -> bool:
        """Whether waits use loadcnt/storecnt/dscnt/kmcnt."""
        return self.generation >= 12

    @property
    def stores_share_load_counter(self) -> bool:
        """gfx9 counts stores in vmcnt; later generations have a counter of their own."""
        return self.generation == 9

    @property
    def simds_sharing_lds(self) -> int:
        """SIMDs of a compute unit, which share its LDS banks."""
        return 4 if self.generation == 9 else 2


TARGETS = {
    target.name: target
    for target in (
        Target("gfx90a", 9, 64, 65536, "none", 110),
        Target("gfx942", 9, 64, 65536, "fnuz", 304),
        Target("gfx950", 9, 64, 163840, "ocp", 256),
        Target("gfx1100", 11, 32, 65536, "none", 96),
        Target("gfx1201", 12, 32, 65536, "ocp", 64),
    )
}


def find_target(name: str) -> Target:
    """Return the target called ``name``; ValueError lists the known ones."""
    if name not in TARGETS:
        raise ValueError(f"target {name!r} is not simulated; known targets: {', '.join(TARGETS)}")
    return TARGETS[name]
