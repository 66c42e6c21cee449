"""Choose the Triton configurations that are shipped, from what the compiler makes of them; needs no GPU.

    python -m benchmarks.triton_rows gfx942 [--kernel forward] [--bits 16] [--block-d 128] [--tiles 3] [--write]
    python -m benchmarks.triton_rows gfx942 --estimate --missing --write

For every class of problems the candidates are compiled, larger tiles first, until ``--tiles`` sizes of tile compiled
without spills, and the cheapest is taken (see :func:`cost`). ``--estimate`` compiles nothing: it takes the first
candidate whose estimated registers leave a third to spare. ``--write`` puts the row into ``triton_amd/configs``,
with this command, Triton's version and the figures as its provenance.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import triton
from flash_attn.triton_amd.assembly_report import KernelReport, Loop
from flash_attn.triton_amd.candidates import candidates, lds_bytes, registers_per_lane
from flash_attn.triton_amd.compile_cases import Case, report_of_case
from flash_attn.triton_amd.config_rows import CONFIGS, Row, read_rows, write_rows
from flash_attn.triton_amd.kernel_config import BLOCK_DIMS, KERNELS, KernelConfig, ProblemClass

from flash_attn.architectures import ARCHITECTURES, Architecture

# Dense fp16 FLOPs of a SIMD in a cycle, from the peaks in architectures.py; half of it is multiply-adds.
_MATRIX_FLOPS = {"CDNA2": 256, "CDNA3": 512, "CDNA4": 1024, "RDNA3": 256, "RDNA3.5": 256, "RDNA4": 512}
_UNIT_FLOPS = 2 * 32 * 32 * 8
# LDS moves 128 bytes a cycle, a cache line of the L1 64 bytes: shared by the SIMDs of a unit.
_LDS_BYTES, _L1_BYTES = 128, 64


@dataclass(frozen=True)
class Choice:
    """A configuration, what its kernel costs, and the estimate that candidates are compared by."""

    config: KernelConfig
    report: KernelReport
    cost: float


def loop_cycles(loop: Loop, architecture: Architecture, bits: int) -> dict[str, float]:
    """Cycles of a SIMD that one turn of a loop occupies each unit for.

    A vector instruction takes 4 cycles on CDNA (16 lanes wide) and 1 on RDNA, a transcendental one four times that.
    fp32 products run at an eighth of the rate of fp16.
    """
    vector = 4 if architecture.matrix_kind == "mfma" else 1
    rate = _MATRIX_FLOPS[architecture.family] / (8 if bits == 32 else 1)
    wave, simds = architecture.wave_size, architecture.simds_per_unit
    loads: int = sum(width // 8 * count for width, count in loop.global_load_bits.items())
    return {
        "matrix": loop.matrix_units * _UNIT_FLOPS / rate,
        "vector": vector * (loop.valu + 3 * loop.transcendental),
        "lds": loop.lds_bytes * wave * simds / _LDS_BYTES / (1 if vector == 4 else 2),
        "memory": loads * wave * simds / _L1_BYTES / (1 if vector == 4 else 2),
    }


def cost(report: KernelReport, architecture: Architecture, bits: int) -> float:
    """Estimated cycles of a SIMD for one 32x32x8 of matrix work; infinite if no work group fits.

    1 where no hot loop was read (NVIDIA; fp32 without matrix instructions): of clean kernels the first is taken.

    The busiest unit sets the pace; of what the others do, each wave on the SIMD beyond a half hides more. A scratch
    access costs as much as ten vector instructions. A heuristic to compare candidates, no prediction.
    """
    loop = report.hot_loop
    if not report.waves_per_simd:
        return float("inf")
    if loop is None:
        return 1.0
    cycles = loop_cycles(loop, architecture, bits)
    bound: float = max(cycles.values())
    rest = sum(cycles.values()) - bound
    spilled = 10 * loop.scratch * (4 if architecture.matrix_kind == "mfma" else 1)
    per_unit: float = (bound + rest / (2 * min(report.waves_per_simd, 4)) + spilled) / loop.matrix_units
    return per_unit


def figures(report: KernelReport) -> dict[str, float]:
    """The figures that a row's provenance keeps."""
    loop = report.hot_loop
    kept: dict[str, float] = {
        "registers": report.vgprs,
        "spills": report.vgpr_spills,
        "hot_scratch": report.hot_scratch,
        "lds": report.lds_bytes,
        "waves_per_simd": report.waves_per_simd,
    }
    return kept | ({"valu_per_matrix_unit": round(loop.valu_per_matrix_unit, 2)} if loop else {})


def compile_all(group: ProblemClass, architecture: Architecture, tiles: int, most: int) -> Iterator[Choice]:
    """Compile candidates until ``tiles`` sizes of tile were clean: no spills and room for two waves on a SIMD
    (where two cannot be had, one).

    The variants of a tile, which differ by what the compiler's scheduler minds, are tried until one is clean.
    """
    clean: set[tuple[int, int, int]] = set()
    for config in candidates(group, architecture)[:most]:
        tile = (config.block_m, config.block_n, config.num_warps)
        if tile in clean:
            continue
        if len(clean) >= tiles:
            return
        report = report_of_case(Case(group), config, architecture)
        if report.lds_bytes > architecture.shared_memory_per_block or not report.waves_per_simd:
            continue
        if group.bits <= 16 and not report.matrix_instructions:
            continue
        yield Choice(config, report, cost(report, architecture, group.bits))
        if report.vgpr_spills == 0 and report.waves_per_simd >= min(2, config.waves_per_eu or 2):
            clean.add(tile)


def choose(group: ProblemClass, architecture: Architecture, tiles: int, most: int) -> Choice | None:
    """The best candidate: none with scratch in a hot loop if another has none, then the lowest cost."""
    best: Choice | None = None
    for choice in compile_all(group, architecture, tiles, most):
        config, report = choice.config, choice.report
        print(
            f"  {config.block_m}x{config.block_n} {config.num_warps} waves {config.llvm_fn_attrs.rpartition('=')[2]:17}"
            f" waves_per_eu {config.waves_per_eu} cost {choice.cost:6.1f} {figures(report)}",
            flush=True,
        )
        if best is None or _rank(choice) < _rank(best):
            best = choice
    return best


def estimate(group: ProblemClass, architecture: Architecture) -> tuple[KernelConfig, dict[str, float]]:
    """The first candidate whose estimated registers leave a third to spare, or the one that needs the fewest."""
    needs = {config: registers_per_lane(config, group, architecture) for config in candidates(group, architecture)}
    limit = 2 / 3 * min(architecture.max_registers_per_lane, architecture.registers_per_lane // 2)
    config = next((config for config in needs if needs[config] <= limit), min(needs, key=lambda key: needs[key]))
    return config, {"estimated_registers": needs[config], "estimated_lds": lds_bytes(config, group, architecture)}


def _rank(choice: Choice) -> tuple[int, float]:
    report = choice.report
    # Spills outside of the loop are paid once a program: a hundredth each.
    return report.hot_scratch, choice.cost * (1 + report.vgpr_spills / 100)


def main() -> None:
    """Read the command line and search."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.triton_rows", description=__doc__.splitlines()[0])
    parser.add_argument("architectures", nargs="+", choices=sorted(ARCHITECTURES))
    parser.add_argument("--kernel", nargs="+", choices=KERNELS, default=list(KERNELS))
    parser.add_argument("--bits", nargs="+", type=int, choices=(8, 16, 32), default=[16, 32])
    parser.add_argument("--block-d", nargs="+", type=int, choices=BLOCK_DIMS, default=list(BLOCK_DIMS))
    parser.add_argument("--tiles", type=int, default=2, help="sizes of tile to compare (default 2)")
    parser.add_argument("--most", type=int, default=24, help="candidates to compile for a class (default 24)")
    parser.add_argument("--also", nargs="*", choices=sorted(ARCHITECTURES), default=[], help="relatives to write too")
    parser.add_argument("--estimate", action="store_true", help="compile nothing, trust the estimate of registers")
    parser.add_argument("--missing", action="store_true", help="only classes that have no row")
    parser.add_argument("--write", action="store_true", help="write the rows into triton_amd/configs")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="triton")
    command = f"python -m benchmarks.triton_rows --tiles {options.tiles} --most {options.most}"
    if options.estimate:
        command = "python -m benchmarks.triton_rows --estimate"
    for name in options.architectures:
        architecture = ARCHITECTURES[name]
        for group in _classes(options, name):
            print(f"{name} {group}", flush=True)
            if options.estimate:
                config, kept = estimate(group, architecture)
            else:
                choice = choose(group, architecture, options.tiles, options.most)
                if choice is None:
                    print("  no candidate fits", flush=True)
                    continue
                config, kept = choice.config, figures(choice.report)
            print(f"  -> {config.as_row()}", flush=True)
            if options.write:
                for target in (name, *options.also):
                    source = command if target == name else f"{command} {name}"
                    provenance = {"tool": source, "triton": triton.__version__, "figures": kept}
                    row = Row(group.kernel, group.bits, group.block_d, None, config, provenance)
                    write_rows(CONFIGS / f"{target}.json", [row])


def _classes(options: argparse.Namespace, name: str) -> list[ProblemClass]:
    path = CONFIGS / f"{name}.json"
    present = {group for row in read_rows(path) for group in row.classes} if path.exists() else set()
    wanted = [
        ProblemClass(kernel, bits, block_d, True)
        for kernel in options.kernel
        for bits in options.bits
        for block_d in options.block_d
    ]
    return [group for group in wanted if not (options.missing and group in present)]


if __name__ == "__main__":
    main()
