"""The issue-cycle estimate against costs worked out by hand."""

from __future__ import annotations

import pytest
from assembler import run

from amdgpu_sim import estimate_cycles

REGISTERS = "\n".join(f"v_mov_b32_e32 v{n}, 0" for n in range(1, 9))


@pytest.mark.parametrize(("target", "cycles"), [("gfx90a", 32), ("gfx942", 16), ("gfx950", 8)])
def test_matrix_cycles(target: str, cycles: float) -> None:
    """16x16x16 of float16 is 8 passes of four cycles on CDNA2 and half of that on each later generation."""
    name = "v_mfma_f32_16x16x16f16" if target == "gfx90a" else "v_mfma_f32_16x16x16_f16"
    report = run(target, f"{REGISTERS}\n{name} v[1:4], v[5:6], v[7:8], v[1:4]")
    estimate = estimate_cycles(report)
    assert estimate.matrix == cycles
    assert estimate.vector == 8 * 4
    assert estimate.bound == 32
    assert estimate.matrix_share == cycles / 32
    assert report.matrix_flops == 2 * 16**3


def test_rates_of_vector_instructions() -> None:
    body = "v_mov_b32_e32 v1, 1.0\nv_exp_f32_e32 v2, v1\nv_mul_lo_u32 v3, v1, v1"
    assert estimate_cycles(run("gfx942", body)).vector == 4 + 16 + 16
    assert estimate_cycles(run("gfx1100", body)).vector == 1 + 4 + 4


def test_counts_follow_loops_and_waves() -> None:
    body = "s_mov_b32 s10, 0\n.L:\nv_mov_b32_e32 v1, 0\n"
    body += "s_add_i32 s10, s10, 1\ns_cmp_lt_i32 s10, 5\ns_cbranch_scc1 .L"
    report = run("gfx942", body, items=256, groups=3)
    assert report.waves == 12
    assert report.by_category() == {"salu": 12 * 11, "valu": 12 * 5, "branch": 12 * 6}
