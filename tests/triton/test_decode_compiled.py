"""The shipped decode kernel compiled without a GPU: matrix instructions, 128-bit loads, no scratch in a loop."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from flash_attn.triton_amd.assembly_report import KernelReport, read_amd_assembly
from flash_attn.triton_amd.decode import decode_launches
from flash_attn.triton_amd.decode_config import decode_config
from flash_attn.triton_amd.offline import compiling_for
from flash_attn.triton_amd.problem import Problem

from flash_attn.architectures import find

CAPACITY = 131072
PAGE_SIZES = (0, 16, 256)


def _problem(page_size: int, seqlen_q: int) -> Problem:
    """One sequence, 32 query heads over 8, head dim 128, bf16, causal."""

    def empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    pages = CAPACITY // page_size if page_size else 0
    k, v = (empty(pages, page_size, 8, 128) if pages else empty(1, CAPACITY, 8, 128) for _ in "kv")
    problem = Problem(empty(1, seqlen_q, 32, 128), k, v, seqlen_q, CAPACITY, 0.1, window_right=0)
    table = empty(1, pages, dtype=torch.int32) if pages else None
    return dataclasses.replace(problem, seqused_k=empty(1, dtype=torch.int32), block_table=table)


def _report(arch: str, page_size: int, seqlen_q: int) -> KernelReport:
    architecture = find(arch)
    assert architecture is not None
    problem = _problem(page_size, seqlen_q)
    config = decode_config(problem, arch)
    with compiling_for(architecture):
        *_, launches = decode_launches(problem, config, 304)
        kernel = launches[0].compile()
    return read_amd_assembly(kernel.asm["amdgcn"], architecture, config.num_warps, kernel.metadata.shared)


def _every_case() -> list[object]:
    """gfx942 with one row over pages in every run of the tests, all others where slow tests are asked for."""
    cases: list[object] = []
    for arch in ("gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1201"):
        for page_size in PAGE_SIZES:
            for seqlen_q in (1, 16):
                quick = page_size == 16 and seqlen_q == 1 and arch in ("gfx942", "gfx1100")
                cases.append(pytest.param(arch, page_size, seqlen_q, marks=() if quick else pytest.mark.slow))
    return cases


@pytest.mark.parametrize(("arch", "page_size", "seqlen_q"), _every_case())
def test_loops_multiply_matrices_load_128_bits_and_spill_nothing(arch: str, page_size: int, seqlen_q: int) -> None:
    report = _report(arch, page_size, seqlen_q)
    loops = [loop for loop in report.loops if loop.matrix_instructions]
    assert len(loops) == 2  # without and with a mask
    for loop in loops:
        assert loop.scratch == 0
        keys_and_values = {bits: count for bits, count in loop.global_load_bits.items() if bits != 32}
        assert set(keys_and_values) == {128}
    assert report.vgpr_spills == 0
