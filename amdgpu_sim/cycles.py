"""An estimate of issue cycles from the counts of a run: which unit of a SIMD the kernel keeps busy.

Every instruction occupies its unit for a fixed number of cycles, and the units of one SIMD work side by side,
as the waves that share it allow. Memory latency, caches, dependencies and occupancy are left out, so the
result says which unit bounds the instruction mix; it does not predict time.

Costs in cycles of a SIMD: matrix instructions as in :mod:`amdgpu_sim.matrix_rates`. Vector instructions: 4 on
CDNA (64 lanes on 16 lanes of hardware), 1 on RDNA (32 lanes on 32); four times that for transcendentals and,
on RDNA, 32-bit integer products ("quarter rate" in the ISA manuals and in LLVM's SISchedule.td, which has
integer products and float64 at full rate for CDNA 2 on), sixteen times for RDNA's float64 (its published
float64 peak is that fraction). LDS: the cycles of :mod:`amdgpu_sim.bank_conflicts`, times the SIMDs that share
it. Scalar instructions, waits, branches and barriers: one issue slot each, of the SIMD's turn (one cycle in
four on CDNA).
"""

from __future__ import annotations

from dataclasses import dataclass

from amdgpu_sim.matrix_rates import matrix_cycles, shares_vector_unit
from amdgpu_sim.report import RunReport
from amdgpu_sim.targets import Target

_VECTOR = ("valu", "valu_packed", "valu_dual", "valu_quarter", "valu_double", "transcendental")
_GLOBAL = ("global_load", "global_store", "global_atomic", "scratch_load", "scratch_store")
_LDS = ("lds_read", "lds_write", "lds_atomic")


@dataclass(frozen=True)
class CycleEstimate:
    """Issue cycles of all waves together on one SIMD, by unit.

    ``matrix``: the matrix unit; ``vector``: the vector unit, with what of the matrix instructions it cannot
    overlap; ``scalar``: scalar instructions, waits, branches, barriers; ``memory``: issue of global and scratch
    instructions; ``lds``: LDS banks, conflicts included.
    """

    matrix: float
    vector: float
    scalar: float
    memory: float
    lds: float

    @property
    def bound(self) -> float:
        """Cycles of the busiest unit, all others working beside it: enough waves that never wait."""
        return max(self.matrix, self.vector, self.scalar, self.memory, self.lds)

    @property
    def matrix_share(self) -> float:
        """Share of :attr:`bound` in which the matrix unit is busy, 0 to 1."""
        return self.matrix / self.bound if self.bound else 0.0


def vector_cycles(target: Target, category: str) -> int:
    """Cycles for which one instruction of a vector class occupies the vector unit."""
    if target.generation == 9:
        return 16 if category == "transcendental" else 4
    return {"transcendental": 4, "valu_quarter": 4, "valu_double": 16}.get(category, 1)


def estimate_cycles(report: RunReport, wave: int | None = None) -> CycleEstimate:
    """Estimate the issue cycles of a run, or of one wave of it (see the module's text for what is left out)."""
    target = report.program.target
    slot = 4 if target.generation == 9 else 1
    matrix = vector = scalar = memory = 0
    for instruction, times in report.executed(wave):
        category, mnemonic = instruction.category, instruction.line.mnemonic
        if category == "matrix":
            cycles = times * matrix_cycles(target, mnemonic)
            matrix += cycles
            vector += cycles if shares_vector_unit(target, mnemonic) else 0
        elif category in _VECTOR:
            vector += times * vector_cycles(target, category)
        elif category in _GLOBAL:
            memory += times * slot
        elif category not in _LDS:
            scalar += times * slot
    lds = sum(report.lds_cycles(category, wave) for category in _LDS) * target.simds_sharing_lds
    return CycleEstimate(matrix, vector, scalar, memory, lds)
