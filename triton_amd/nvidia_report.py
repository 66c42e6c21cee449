"""What a kernel that was compiled for NVIDIA costs: registers and stack from its binary, matrix instructions from PTX.

Registers and stack are what ``cuobjdump -res-usage`` prints; Triton ships that program beside its ``ptxas``.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from triton import knobs

from ..architectures import Architecture
from .assembly_report import KernelReport, occupancy

_MATRIX = re.compile(r"^\s*(?:@%?\w+\s+)?(?:mma\.sync|wgmma\.mma_async|tcgen05\.mma)\b", re.MULTILINE)
_USAGE = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")


def read_nvidia_kernel(
    assembly: Mapping[str, Any], architecture: Architecture, num_warps: int, shared_bytes: int
) -> KernelReport:
    """Report of Triton's ``asm`` of a kernel; its loops are not read."""
    registers, stack, static_shared, local = read_resource_usage(_resource_usage(assembly["cubin"]))
    shared = shared_bytes + static_shared
    return KernelReport(
        vgprs=registers,
        agprs=0,
        sgprs=0,
        vgpr_spills=-(-(stack + local) // 4),
        sgpr_spills=0,
        scratch_bytes=stack + local,
        lds_bytes=shared,
        occupancy=occupancy(architecture, registers, shared, num_warps),
        matrix_instructions=len(_MATRIX.findall(assembly["ptx"])),
        loops=(),
    )


def read_resource_usage(text: str) -> tuple[int, int, int, int]:
    """(registers, stack bytes, shared bytes, local bytes) of the last kernel that ``cuobjdump -res-usage`` lists."""
    found = _USAGE.findall(text)
    if not found:
        raise ValueError(f"cuobjdump -res-usage named no kernel: {text!r}")
    registers, stack, shared, local = map(int, found[-1])
    return registers, stack, shared, local


def _resource_usage(cubin: bytes) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        command = [knobs.nvidia.cuobjdump.path, "-res-usage", str(path)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
