"""Reading a kernel's cost from small assembly texts whose counts are known."""

from __future__ import annotations

import pytest
from flash_attn.triton_amd.assembly_report import KernelReport, occupancy, read_amd_assembly
from flash_attn.triton_amd.nvidia_report import read_resource_usage

from flash_attn.architectures import ARCHITECTURES

# An outer loop around two inner ones; the second inner loop has no matrix instruction.
CDNA = """
kernel:                                 ; @kernel
; %bb.0:
	v_mov_b32_e32 v0, 0
	scratch_store_dword off, v1, off offset:4
.LBB0_1:                                ; =>This Loop Header: Depth=1
	s_mov_b32 s0, 0
.LBB0_2:                                ; =>  This Inner Loop Header: Depth=2
	buffer_load_dwordx4 v[0:3], v4, s[4:7], 0 offen
	buffer_load_dword v5, off, s[0:3], 0 ; 4-byte Folded Reload
	global_load_dwordx2 v[8:9], v10, s[2:3]
	global_load_ushort v11, v10, s[2:3]
	ds_read_b128 v[12:15], v16
	ds_read2st64_b64 v[20:23], v24 offset1:8
	v_exp_f32_e32 v0, v0
	v_pk_mul_f32 v[0:1], v[0:1], v[2:3]
	v_accvgpr_write_b32 a0, v0
	v_mfma_f32_32x32x8_bf16_1k a[0:15], v[0:1], v[2:3], a[0:15]
	v_mfma_f32_16x16x16_bf16_1k a[0:3], v[0:1], v[2:3], a[0:3]
	scratch_load_dword v1, off, off offset:4
	s_cbranch_scc1 .LBB0_2
; %bb.3:
.LBB0_4:
	v_add_u32_e32 v0, v0, v1
	s_cbranch_vccnz .LBB0_4
	s_cbranch_scc0 .LBB0_1
	s_endpgm
.Lfunc_end0:
	v_mfma_f32_32x32x8_bf16_1k a[0:15], v[0:1], v[2:3], a[0:15]
amdhsa.kernels:
  - .agpr_count:     16
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 8
    .sgpr_count:     30
    .sgpr_spill_count: 1
    .vgpr_count:     130
    .vgpr_spill_count: 3
"""

RDNA = """
.LBB0_1:
	v_wmma_f32_16x16x16_f16 v[0:7], v[8:15], v[16:23], v[0:7]
	v_mov_b32_e32 v0, v1
	v_mov_b32_e32 v1, v2
	v_mov_b32_e32 v2, v3
	s_cbranch_vccz .LBB0_1
.LBB0_2:
	v_wmma_f32_16x16x16_f16 v[0:7], v[8:15], v[16:23], v[0:7]
	v_dual_mul_f32 v0, v0, v1 :: v_dual_add_f32 v2, v2, v3
	global_load_b128 v[0:3], v4, s[0:1]
	s_cbranch_vccz .LBB0_2
"""


@pytest.fixture
def cdna() -> KernelReport:
    return read_amd_assembly(CDNA, ARCHITECTURES["gfx942"], num_warps=4, shared_bytes=32768)


def test_resources_are_those_of_the_metadata_and_the_launch(cdna: KernelReport) -> None:
    assert (cdna.vgprs, cdna.agprs, cdna.sgprs) == (130, 16, 30)
    assert (cdna.vgpr_spills, cdna.sgpr_spills, cdna.scratch_bytes) == (3, 1, 8)
    assert cdna.lds_bytes == 32768
    assert cdna.matrix_instructions == 2  # what follows the function does not count


def test_the_hot_loop_is_the_innermost_one_with_matrix_instructions(cdna: KernelReport) -> None:
    assert [loop.label for loop in cdna.loops] == [".LBB0_2"]
    hot = cdna.hot_loop
    assert hot is not None
    assert hot.matrix_shapes == {"32x32x8": 1, "16x16x16": 1}
    assert (hot.matrix_instructions, hot.matrix_units) == (2, 1.5)
    assert hot.valu == 3
    assert (hot.valu_per_matrix_instruction, hot.valu_per_matrix_unit) == (1.5, 2.0)
    assert (hot.transcendental, hot.accvgpr_moves, hot.lds_instructions) == (1, 1, 2)
    assert hot.lds_bytes == 16 + 2 * 8


def test_scratch_is_counted_by_mnemonic_and_through_a_buffer(cdna: KernelReport) -> None:
    assert cdna.hot_scratch == 2


def test_loads_are_counted_by_their_width_without_scratch(cdna: KernelReport) -> None:
    assert cdna.hot_loop is not None
    assert cdna.hot_loop.global_load_bits == {16: 1, 64: 1, 128: 1}


def test_of_equal_loops_the_shortest_comes_first_and_a_dual_instruction_is_one() -> None:
    report = read_amd_assembly(RDNA, ARCHITECTURES["gfx1100"], num_warps=4, shared_bytes=0)
    assert [loop.label for loop in report.loops] == [".LBB0_2", ".LBB0_1"]
    first = report.loops[0]
    assert (first.valu, first.matrix_units, first.global_load_bits) == (1, 0.5, {128: 1})


@pytest.mark.parametrize(
    ("arch", "registers", "lds", "num_warps", "expected"),
    [
        ("gfx942", 256, 32768, 4, (2, 2.0, 2.0)),
        ("gfx942", 257, 0, 4, (1, 8.0, 1.0)),
        ("gfx942", 128, 65536, 4, (4, 1.0, 1.0)),
        ("gfx950", 128, 65536, 4, (4, 2.0, 2.0)),
        ("gfx942", 256, 16384, 8, (2, 8.0, 2.0)),
        ("gfx1100", 192, 0, 4, (8, 16.0, 8.0)),
        ("gfx1100", 193, 0, 4, (7, 16.0, 7.0)),
        ("gfx1102", 256, 0, 4, (4, 16.0, 4.0)),
        ("gfx942", 64, 100000, 4, (8, 0.0, 0.0)),
        ("sm_90", 168, 100000, 8, (3, 4.0, 2.0)),
    ],
)
def test_waves_are_limited_by_registers_and_by_lds(
    arch: str, registers: int, lds: int, num_warps: int, expected: tuple[int, float, float]
) -> None:
    waves = occupancy(ARCHITECTURES[arch], registers, lds, num_warps)
    assert (waves.by_registers, waves.by_lds, waves.waves_per_simd) == expected


def test_resource_usage_of_a_cubin() -> None:
    text = "Resource usage:\n Common:\n  GLOBAL:0\n Function k:\n  REG:168 STACK:40 SHARED:16 LOCAL:0 CONSTANT[0]:900"
    assert read_resource_usage(text) == (168, 40, 16, 0)
    with pytest.raises(ValueError, match="named no kernel"):
        read_resource_usage("Fatbin elf code")
