"""The issue-cycle estimate against costs worked out by hand and against the peaks that AMD publishes."""

from __future__ import annotations

import pytest
from assembler import run, wait_lds

from amdgpu_sim import TARGETS, estimate_cycles
from amdgpu_sim.matrix_rates import matrix_cycles, shares_vector_unit

REGISTERS = "\n".join(f"v_mov_b32_e32 v{n}, 0" for n in range(1, 9))

# (target, best instruction of a type, FLOPs of it, boost clock in GHz, published dense TFLOP/s). Clocks and peaks:
# AMD's data sheets of the MI250X (half of the card: one die), MI300X and MI355X, product pages of the RX 7900 XTX
# and RX 9070 XT.
PEAKS = [
    ("gfx90a", "v_mfma_f32_32x32x8f16", 2 * 32 * 32 * 8, 1.7, 383.0 / 2),
    ("gfx90a", "v_mfma_f32_16x16x16bf16_1k", 2 * 16**3, 1.7, 383.0 / 2),
    ("gfx90a", "v_mfma_i32_32x32x8i8", 2 * 32 * 32 * 8, 1.7, 383.0 / 2),
    ("gfx90a", "v_mfma_f32_32x32x2f32", 2 * 32 * 32 * 2, 1.7, 95.7 / 2),
    ("gfx90a", "v_mfma_f64_16x16x4f64", 2 * 16 * 16 * 4, 1.7, 95.7 / 2),
    ("gfx942", "v_mfma_f32_32x32x8_f16", 2 * 32 * 32 * 8, 2.1, 1307.4),
    ("gfx942", "v_mfma_f32_16x16x16_bf16", 2 * 16**3, 2.1, 1307.4),
    ("gfx942", "v_mfma_f32_32x32x16_fp8_fp8", 2 * 32 * 32 * 16, 2.1, 2614.9),
    ("gfx942", "v_mfma_i32_16x16x32_i8", 2 * 16 * 16 * 32, 2.1, 2614.9),
    ("gfx942", "v_mfma_f32_16x16x8_xf32", 2 * 16 * 16 * 8, 2.1, 653.7),
    ("gfx942", "v_mfma_f32_32x32x4_xf32", 2 * 32 * 32 * 4, 2.1, 653.7),
    ("gfx942", "v_mfma_f32_16x16x4_f32", 2 * 16 * 16 * 4, 2.1, 163.4),
    ("gfx942", "v_mfma_f64_16x16x4_f64", 2 * 16 * 16 * 4, 2.1, 163.4),
    ("gfx950", "v_mfma_f32_32x32x16_f16", 2 * 32 * 32 * 16, 2.4, 2516.6),
    ("gfx950", "v_mfma_f32_16x16x32_bf16", 2 * 16 * 16 * 32, 2.4, 2516.6),
    ("gfx950", "v_mfma_f32_32x32x64_f8f6f4", 2 * 32 * 32 * 64, 2.4, 5033.2),
    ("gfx950", "v_mfma_f32_16x16x128_f8f6f4", 2 * 16 * 16 * 128, 2.4, 5033.2),
    ("gfx950", "v_mfma_i32_16x16x64_i8", 2 * 16 * 16 * 64, 2.4, 5033.2),
    ("gfx950", "v_mfma_f32_32x32x2_f32", 2 * 32 * 32 * 2, 2.4, 157.3),
    ("gfx950", "v_mfma_f64_16x16x4_f64", 2 * 16 * 16 * 4, 2.4, 78.6),
    ("gfx1100", "v_wmma_f32_16x16x16_f16", 2 * 16**3, 2.5, 122.8),
    ("gfx1100", "v_wmma_i32_16x16x16_iu8", 2 * 16**3, 2.5, 122.8),
    ("gfx1201", "v_wmma_f32_16x16x16_bf16", 2 * 16**3, 2.97, 195.0),
    ("gfx1201", "v_wmma_f32_16x16x16_fp8_fp8", 2 * 16**3, 2.97, 389.0),
    ("gfx1201", "v_wmma_i32_16x16x16_iu8", 2 * 16**3, 2.97, 389.0),
]


@pytest.mark.parametrize(("name", "mnemonic", "flops", "clock", "peak"), PEAKS)
def test_rates_reach_the_published_peaks(name: str, mnemonic: str, flops: int, clock: float, peak: float) -> None:
    target = TARGETS[name]
    simds = target.compute_units * target.simds_sharing_lds
    # three digits are published
    assert flops / matrix_cycles(target, mnemonic) * simds * clock * 1e-3 == pytest.approx(peak, rel=5e-3)


@pytest.mark.parametrize(
    ("name", "mnemonic", "cycles"),
    [
        ("gfx90a", "v_mfma_f32_4x4x4f16", 8), ("gfx90a", "v_mfma_f32_32x32x4f16", 64),
        ("gfx942", "v_mfma_f32_4x4x4_16b_f16", 8), ("gfx942", "v_mfma_f32_16x16x4_4b_f16", 32),
        ("gfx942", "v_mfma_f32_32x32x4_2b_bf16", 64), ("gfx942", "v_mfma_f32_32x32x1_2b_f32", 64),
        ("gfx942", "v_smfmac_f32_16x16x32_f16", 16), ("gfx942", "v_smfmac_f32_32x32x32_bf8_fp8", 32),
        ("gfx950", "v_mfma_f32_16x16x16_f16", 16), ("gfx950", "v_mfma_f32_32x32x16_fp8_fp8", 32),
    ],
)  # fmt: skip
def test_shapes_below_the_peak(name: str, mnemonic: str, cycles: int) -> None:
    """Old shapes keep the passes of their generation: on gfx950 they run at half of its rate."""
    assert matrix_cycles(TARGETS[name], mnemonic) == cycles


def test_a_vector_instruction_has_no_matrix_rate() -> None:
    with pytest.raises(ValueError, match="v_add_f32"):
        matrix_cycles(TARGETS["gfx942"], "v_add_f32")


@pytest.mark.parametrize(("target", "cycles"), [("gfx90a", 32), ("gfx942", 16), ("gfx950", 16)])
def test_matrix_and_vector_units_work_side_by_side(target: str, cycles: float) -> None:
    name = "v_mfma_f32_16x16x16f16" if target == "gfx90a" else "v_mfma_f32_16x16x16_f16"
    report = run(target, f"{REGISTERS}\n{name} v[1:4], v[5:6], v[7:8], v[1:4]")
    estimate = estimate_cycles(report)
    assert estimate.matrix == cycles
    assert estimate.vector == 8 * 4
    assert estimate.bound == 32
    assert estimate.matrix_share == cycles / 32
    assert report.matrix_flops == 2 * 16**3


def test_wmma_occupies_the_vector_unit() -> None:
    registers = "\n".join(f"v_mov_b32_e32 v{n}, 0" for n in range(1, 25))
    report = run("gfx1100", f"{registers}\nv_wmma_f32_16x16x16_f16 v[17:24], v[1:8], v[9:16], v[17:24]")
    estimate = estimate_cycles(report)
    assert (estimate.matrix, estimate.vector) == (32, 24 + 32)
    assert estimate.matrix_share == 32 / 56
    assert shares_vector_unit(TARGETS["gfx90a"], "v_mfma_f64_16x16x4f64")


def test_rates_of_vector_instructions() -> None:
    body = "v_mov_b32_e32 v1, 1.0\nv_exp_f32_e32 v2, v1\nv_mul_lo_u32 v3, v1, v1\nv_mov_b32_e32 v4, 0\n"
    body += "v_mov_b32_e32 v5, 0\nv_add_f64 v[4:5], v[4:5], v[4:5]"
    assert estimate_cycles(run("gfx942", body)).vector == 4 + 16 + 4 + 8 + 4
    assert estimate_cycles(run("gfx1100", body)).vector == 1 + 4 + 4 + 2 + 16


@pytest.mark.parametrize(("stride", "cycles"), [(2, 2), (5, 16)])
def test_bank_conflicts_cost_lds_cycles(stride: int, cycles: int) -> None:
    """A half-wave of four-byte stores 4 or 32 bytes apart; four SIMDs share the banks."""
    body = f"v_lshlrev_b32_e32 v1, {stride}, v0\nds_write_b32 v1, v0\n{wait_lds('gfx942')}"
    estimate = estimate_cycles(run("gfx942", body, lds=2048))
    assert estimate.lds == 4 * cycles
    assert estimate.bound == max(4 * cycles, estimate.scalar)


def test_counts_follow_loops_and_waves() -> None:
    body = "s_mov_b32 s10, 0\n.L:\nv_mov_b32_e32 v1, 0\n"
    body += "s_add_i32 s10, s10, 1\ns_cmp_lt_i32 s10, 5\ns_cbranch_scc1 .L"
    report = run("gfx942", body, items=256, groups=3)
    assert report.waves == 12
    assert report.by_category() == {"salu": 12 * 11, "valu": 12 * 5, "branch": 12 * 6}
    assert estimate_cycles(report, wave=7).vector == 4 * 5
    assert estimate_cycles(report).scalar == 12 * 4 * (11 + 6)
