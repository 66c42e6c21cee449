"""An estimate of issue cycles from the counts of a run: which unit of a SIMD the kernel keeps busy.

Every instruction occupies its unit for a fixed number of cycles, and the units of one SIMD work
side by side, as the waves that share it allow. Memory latency, bank conflicts, dependencies and
occupancy are left out, so the result is a lower bound in the shape of the instruction mix, not a
prediction of time.

Costs: CDNA executes a wave64 vector instruction in 4 cycles (16 lanes wide) and RDNA a wave32 one
in 1; quarter-rate instructions take four times that. Matrix rates follow from the dense peaks that
AMD publishes for the MI250X, MI300X, MI355X, RX 7900 XTX and RX 9070 XT: FLOPs per compute unit and
cycle, divided over the SIMDs of the unit.
"""

from __future__ import annotations

from dataclasses import dataclass

from amdgpu_sim.report import RunReport

# dense FLOPs per cycle and SIMD of the matrix unit, by input width in bits (19: the reduced-precision xf32)
_MATRIX_RATE = {
    "gfx90a": {64: 64, 32: 64, 16: 256, 8: 256},
    "gfx942": {64: 64, 32: 64, 19: 256, 16: 512, 8: 1024},
    "gfx950": {64: 32, 32: 64, 16: 1024, 8: 2048},
    "gfx1100": {16: 256, 8: 256},
    "gfx1201": {16: 512, 8: 1024},
}
_QUARTER = ("transcendental", "valu_quarter", "valu_double")
_VECTOR = ("valu", "valu_packed", "valu_dual", *_QUARTER)
_MEMORY = (
    "lds_read",
    "lds_write",
    "global_load",
    "global_store",
    "global_atomic",
    "scratch_load",
    "scratch_store",
)


@dataclass(frozen=True)
class CycleEstimate:
    """Issue cycles of all waves together on one SIMD, by unit."""

    matrix: float
    vector: float
    scalar: float
    memory: float

    @property
    def bound(self) -> float:
        """Cycles of the busiest unit: no schedule can need fewer."""
        return max(self.matrix, self.vector, self.scalar, self.memory)

    @property
    def matrix_share(self) -> float:
        """Share of the bound in which the matrix unit is busy, 0 to 1."""
        return self.matrix / self.bound if self.bound else 0.0


def input_bits(mnemonic: str) -> int:
    """Width of the inputs of a matrix instruction, from its name."""
    kind = mnemonic.rpartition("x")[2]
    if "f64" in kind:
        return 64
    if "f16" in kind:
        return 16
    if "xf32" in mnemonic:
        return 19
    if any(name in kind for name in ("fp8", "bf8", "i8", "iu8", "f8f6f4")):
        return 8
    return 32


def estimate_cycles(report: RunReport) -> CycleEstimate:
    """Estimate the issue cycles of a run (see the module's text for what is left out)."""
    target = report.program.target
    vector_cycles = 4.0 if target.generation == 9 else 1.0
    matrix = vector = scalar = memory = 0.0
    for instruction, times in report.executed():
        category = instruction.category
        if category == "matrix":
            rate = _MATRIX_RATE[target.name][input_bits(instruction.line.mnemonic)]
            matrix += times * instruction.flops / rate
        elif category in _VECTOR:
            vector += times * vector_cycles * (4 if category in _QUARTER else 1)
        elif category in _MEMORY:
            memory += times * vector_cycles
        else:
            scalar += times
    return CycleEstimate(matrix, vector, scalar, memory)
