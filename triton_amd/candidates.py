"""Configurations worth trying for a class of problems: a small grid, without what cannot run well.

What is left out, and why, follows from registers and LDS alone: see :func:`reason_against`. Values that only compiling
or timing can judge (the compiler's options) are all kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..architectures import Architecture
from .kernel_config import BackwardTile, ForwardConfig, KernelConfig, ProblemClass

# Registers of a lane that addresses, masks and the state of the softmax take.
_OTHER_REGISTERS = 40
# Without matrix instructions Triton unrolls a product over all of its elements: what still compiles in seconds.
_UNROLLED_PRODUCTS = 512
_SCHEDULERS = ("", "amdgpu-sched-strategy=iterative-ilp", "amdgpu-sched-strategy=iterative-minreg")
_DIES = {"gfx942": 8, "gfx950": 8}


def candidates(group: ProblemClass, architecture: Architecture) -> list[KernelConfig]:
    """Configurations for a class on an architecture, larger tiles first.

    Where all need too many registers, those that need the fewest of what fits into LDS: they spill, and they run.
    """
    room = architecture.shared_memory_per_block
    fitting = [config for config in _grid(group, architecture) if lds_bytes(config, group, architecture) <= room]
    good = [config for config in fitting if reason_against(config, group, architecture) is None]
    if good:
        return good
    needs = {config: registers_per_lane(config, group, architecture) for config in fitting}
    return [config for config in fitting if needs[config] == min(needs.values())]


def reason_against(config: KernelConfig, group: ProblemClass, architecture: Architecture) -> str | None:
    """Why a configuration cannot run well, or ``None``."""
    lds = lds_bytes(config, group, architecture)
    if lds > architecture.shared_memory_per_block:
        return f"{lds} bytes of shared memory, of {architecture.shared_memory_per_block}"
    if _lacks_matrix_unit(group, architecture):
        products = config.block_m * config.block_n * group.block_d // (config.num_warps * architecture.wave_size)
        return f"{products} products of a lane, unrolled" if products > _UNROLLED_PRODUCTS else None
    registers = registers_per_lane(config, group, architecture)
    waves = max(config.waves_per_eu, -(-config.num_warps // architecture.simds_per_unit))
    limit = min(architecture.max_registers_per_lane, architecture.registers_per_lane // waves)
    if registers > limit:
        return f"about {registers} registers, of {limit}"
    rows = config.block_n if group.kernel == "backward_dkdv" else config.block_m
    if rows < 16 * config.num_warps:
        return f"{config.num_warps} waves for {rows} rows: a wave works on 16 at least"
    return None


def lds_bytes(config: KernelConfig, group: ProblemClass, architecture: Architecture) -> int:
    """LDS that the operands of a tile need at least: moving ones each stage in its own copy.

    On NVIDIA GPUs the resting ones lie beside them; on AMD's they pass through the same room.
    """
    moving = config.block_m if group.kernel == "backward_dkdv" else config.block_n
    resting = config.block_n if group.kernel == "backward_dkdv" else config.block_m
    row = group.block_d * group.bits // 8
    pipelined = 2 * moving * row * max(1, config.num_stages - 1)
    if architecture.vendor == "amd":
        return max(resting * row, pipelined)
    return resting * row * (1 if group.kernel == "forward" else 2) + pipelined


def registers_per_lane(config: KernelConfig, group: ProblemClass, architecture: Architecture) -> int:
    """Registers of a lane for accumulators, scores and the operands that stay in registers."""
    lanes = config.num_warps * architecture.wave_size
    dkdv, dq = group.kernel == "backward_dkdv", group.kernel == "backward_dq"
    resting = config.block_n if dkdv else config.block_m
    moving = config.block_m if dkdv else config.block_n
    accumulators = resting * group.block_d * (2 if dkdv else 1)
    # The backward holds P and dS, and reads a moving operand in two layouts.
    scores = resting * moving * (3 if dkdv or dq else 1)
    # RDNA3 keeps every operand of a matrix instruction twice, once in each half of a wave.
    copies = 2 if architecture.family.startswith("RDNA3") else 1
    operands = copies * resting * group.block_d * (2 if dkdv or dq else 1) * group.bits // 32
    staged = (4 if dkdv or dq else 2) * moving * group.block_d * group.bits // 32
    if architecture.vendor == "nvidia":
        staged = 0  # copied into shared memory past the registers
    if architecture.matrix_kind in ("wgmma", "tcgen05"):
        operands = 0  # read from shared memory
    return (accumulators + scores + operands + staged) // lanes + _OTHER_REGISTERS


def _lacks_matrix_unit(group: ProblemClass, architecture: Architecture) -> bool:
    """Whether exact fp32 products are left to the vector units: on all but CDNA."""
    return group.bits == 32 and architecture.matrix_kind != "mfma"


def _grid(group: ProblemClass, architecture: Architecture) -> Iterator[KernelConfig]:
    kind = ForwardConfig if group.kernel == "forward" else BackwardTile
    for block_m, block_n, num_warps in _tiles(group, architecture):
        tile = kind(block_m=block_m, block_n=block_n, num_warps=num_warps)
        if architecture.vendor == "nvidia":
            depths = (1,) if _lacks_matrix_unit(group, architecture) else (3, 2, 1)
            yield from (replace(tile, num_stages=stages) for stages in depths)
        else:
            yield from _amd_variants(tile, group, architecture)


def _tiles(group: ProblemClass, architecture: Architecture) -> Iterator[tuple[int, int, int]]:
    """(block_m, block_n, num_warps), most work of a tile first."""
    smallest = (8,) if _lacks_matrix_unit(group, architecture) and group.kernel != "forward" else ()
    for rest in (128, 64, 32, 16, *smallest):
        for move in (128, 64, 32, 16) if architecture.matrix_kind in ("wgmma", "tcgen05") else (64, 32, 16):
            for num_warps in (4, 8) if _lacks_matrix_unit(group, architecture) else (8, 4, 2, 1):
                if _lacks_matrix_unit(group, architecture) or _rows_of_a_wave(rest, num_warps, architecture):
                    yield (move, rest, num_warps) if group.kernel == "backward_dkdv" else (rest, move, num_warps)


def _rows_of_a_wave(rows: int, num_warps: int, architecture: Architecture) -> bool:
    """Whether a wave gets one to four matrix instructions' worth of rows."""
    return rows // num_warps in ((16, 32, 64) if architecture.vendor == "amd" else (16, 32))


def _amd_variants(tile: KernelConfig, group: ProblemClass, architecture: Architecture) -> Iterator[KernelConfig]:
    tile = replace(tile, num_xcds=_DIES.get(architecture.name, 1))
    cdna = architecture.matrix_kind == "mfma"
    kpack = 2 if cdna and architecture.name != "gfx950" and group.bits <= 16 else 1
    # One wave alone on a SIMD of CDNA cannot hide the latency of memory; the backward of large heads has no choice.
    waves = ((2,) if group.kernel == "forward" and group.block_d <= 128 else (2, 1)) if cdna else (0,)
    for waves_per_eu in waves:
        for scheduler in _SCHEDULERS[:1] if _lacks_matrix_unit(group, architecture) else _SCHEDULERS:
            yield replace(tile, waves_per_eu=waves_per_eu, kpack=kpack, llvm_fn_attrs=scheduler)
