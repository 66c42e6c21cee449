"""One table of the GPU architectures that kernels are written for, and lookup that also knows unlisted relatives.

Structure (wave size, LDS, registers, matrix instructions, fp8) is that of the instruction set:

- AMD: LLVM's "User Guide for AMDGPU Backend", the CDNA 2/3/4 and RDNA 3/3.5/4 ISA manuals, and ROCm's
  "GPU hardware specifications" table.
- NVIDIA: "Technical Specifications per Compute Capability" in the CUDA C++ Programming Guide, and the PTX ISA.

Peaks are those of one product, named in ``product``, at its boost clock, dense (no structured sparsity), with
fp32 accumulation, as the vendor publishes them:

- MI250X (one of its two dies, half of the card), MI300X, MI355X: AMD Instinct data sheets.
- Radeon RX 7600, 7800 XT, 7900 XTX, 9060 XT, 9070 XT: AMD's product pages.
- A100, H100 SXM, HGX B200: NVIDIA's data sheets; RTX 3090, 4090, 5090: NVIDIA's GA102, Ada and RTX Blackwell
  architecture white papers.

A peak that the vendor does not publish is ``None``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Vendor = Literal["amd", "nvidia"]
MatrixKind = Literal["mfma", "wmma", "mma", "wgmma", "tcgen05"]
Fp8Kind = Literal["fnuz", "ocp"]
KIB = 1024


@dataclass(frozen=True)
class Peaks:
    """Published dense peaks of ``product``; TFLOP/s with fp32 accumulation, GB/s of its memory."""

    product: str
    fp16_tflops: float | None = None
    fp8_tflops: float | None = None
    bandwidth_gbs: float | None = None


@dataclass(frozen=True)
class Architecture:
    """What a kernel has to know of a GPU.

    A unit is what shares one LDS or shared memory: a compute unit of CDNA, a work-group processor (two compute
    units) of RDNA, a streaming multiprocessor of NVIDIA.

    Attributes:
        name: LLVM's or NVIDIA's name, such as ``gfx942`` or ``sm_90``.
        vendor: ``amd`` or ``nvidia``.
        family: generation, such as ``CDNA3``.
        wave_size: lanes of a wave or warp as kernels use it.
        shared_memory_per_unit: bytes of LDS or shared memory in a unit.
        shared_memory_per_block: bytes of it that one work group or thread block can have.
        simds_per_unit: SIMDs or sub-partitions of a unit.
        registers_per_lane: 32-bit vector registers a SIMD has for each lane, shared by the waves on it
            (CDNA: with accumulation registers).
        max_registers_per_lane: of them, what one wave can have.
        matrix_kind: the family of matrix instructions.
        matrix_shapes: (m, n, k) of its dense fp16/bf16 instructions, the most efficient first.
        fp8: encoding that the matrix instructions multiply natively: ``fnuz``, ``ocp``, or ``None``.
        peaks: of a named product; ``None`` where nothing is published.
    """

    name: str
    vendor: Vendor
    family: str
    wave_size: int
    shared_memory_per_unit: int
    shared_memory_per_block: int
    simds_per_unit: int
    registers_per_lane: int
    max_registers_per_lane: int
    matrix_kind: MatrixKind
    matrix_shapes: tuple[tuple[int, int, int], ...]
    fp8: Fp8Kind | None
    peaks: Peaks | None = None

    @property
    def register_file_bytes(self) -> int:
        """Bytes of vector registers in a unit."""
        return self.simds_per_unit * self.wave_size * self.registers_per_lane * 4


def _cdna(
    name: str,
    family: str,
    lds: int,
    fp8: Fp8Kind | None,
    peaks: Peaks,
    shapes: tuple[tuple[int, int, int], ...] = ((32, 32, 8), (16, 16, 16)),
) -> Architecture:
    return Architecture(name, "amd", family, 64, lds, lds, 4, 512, 512, "mfma", shapes, fp8, peaks)


def _rdna(name: str, family: str, registers: int, fp8: Fp8Kind | None, peaks: Peaks | None) -> Architecture:
    shapes = ((16, 16, 16),)
    return Architecture(name, "amd", family, 32, 128 * KIB, 64 * KIB, 4, registers, 256, "wmma", shapes, fp8, peaks)


def _nvidia(
    name: str,
    family: str,
    shared: int,
    fp8: Fp8Kind | None,
    peaks: Peaks,
    kind: MatrixKind = "mma",
    shapes: tuple[tuple[int, int, int], ...] = ((16, 8, 16), (16, 8, 8)),
) -> Architecture:
    block = shared - KIB  # the runtime keeps 1 KiB of every block for itself
    return Architecture(name, "nvidia", family, 32, shared, block, 4, 512, 255, kind, shapes, fp8, peaks)


_ROWS = (
    _cdna("gfx90a", "CDNA2", 64 * KIB, None, Peaks("Instinct MI250X, one die", 191.5, None, 1638.4)),
    _cdna("gfx942", "CDNA3", 64 * KIB, "fnuz", Peaks("Instinct MI300X", 1307.4, 2614.9, 5300.0)),
    _cdna(
        "gfx950",
        "CDNA4",
        160 * KIB,
        "ocp",
        Peaks("Instinct MI355X", 2516.6, 5033.2, 8000.0),
        ((32, 32, 16), (16, 16, 32), (32, 32, 8), (16, 16, 16)),
    ),
    _rdna("gfx1100", "RDNA3", 1536, None, Peaks("Radeon RX 7900 XTX", 122.8, None, 960.0)),
    _rdna("gfx1101", "RDNA3", 1536, None, Peaks("Radeon RX 7800 XT", 74.65, None, 624.0)),
    _rdna("gfx1102", "RDNA3", 1024, None, Peaks("Radeon RX 7600", 43.5, None, 288.0)),
    _rdna("gfx1103", "RDNA3", 1024, None, None),
    _rdna("gfx1150", "RDNA3.5", 1024, None, None),
    _rdna("gfx1151", "RDNA3.5", 1536, None, Peaks("Radeon 8060S (Ryzen AI Max+ 395)", None, None, 256.0)),
    _rdna("gfx1200", "RDNA4", 1536, "ocp", Peaks("Radeon RX 9060 XT", 103.0, 205.0, 320.0)),
    _rdna("gfx1201", "RDNA4", 1536, "ocp", Peaks("Radeon RX 9070 XT", 195.0, 389.0, 640.0)),
    _nvidia("sm_80", "Ampere", 164 * KIB, None, Peaks("A100 SXM 80 GB", 312.0, None, 2039.0)),
    _nvidia("sm_86", "Ampere", 100 * KIB, None, Peaks("GeForce RTX 3090", 71.0, None, 936.0)),
    _nvidia("sm_89", "Ada", 100 * KIB, "ocp", Peaks("GeForce RTX 4090", 165.2, 330.3, 1008.0)),
    _nvidia(
        "sm_90",
        "Hopper",
        228 * KIB,
        "ocp",
        Peaks("H100 SXM", 989.4, 1978.9, 3350.0),
        "wgmma",
        tuple((64, n, 16) for n in (256, 128, 64)),
    ),
    _nvidia(
        "sm_100",
        "Blackwell",
        228 * KIB,
        "ocp",
        Peaks("HGX B200, one GPU", 2250.0, 4500.0, 8000.0),
        "tcgen05",
        ((128, 256, 16), (128, 128, 16)),
    ),
    _nvidia("sm_120", "Blackwell (RTX)", 100 * KIB, "ocp", Peaks("GeForce RTX 5090", 209.5, 419.0, 1792.0)),
)
ARCHITECTURES: dict[str, Architecture] = {row.name: row for row in _ROWS}

# The member with the fewest resources stands for a family's unlisted ones. Families are told by a prefix only where
# every name under it is one: gfx90c is no CDNA2, gfx1250 no RDNA4.
_FAMILY_PREFIXES = {
    "gfx94": "gfx942",
    "gfx95": "gfx950",
    "gfx110": "gfx1102",
    "gfx115": "gfx1150",
    "gfx120": "gfx1200",
    "sm_8": "sm_86",
    "sm_9": "sm_90",
    "sm_10": "sm_100",
    "sm_12": "sm_120",
}


def find(name: str) -> Architecture | None:
    """The architecture called ``name``, or what is known of its family when it is not in the table.

    Args:
        name: as PyTorch or a compiler says it: ``gfx942``, ``gfx942:sramecc+:xnack-``, ``sm_90``, ``sm_90a``.

    Returns:
        A row of :data:`ARCHITECTURES`; for an unlisted member of a known family (``gfx1152``, ``sm_121``) the
        family's smallest row under the name asked for and without peaks; ``None`` for an unknown family.
    """
    base = name.strip().lower().partition(":")[0]
    if base.startswith("sm_"):
        base = base.rstrip("af")
    listed = ARCHITECTURES.get(base)
    if listed is not None:
        return listed
    for prefix, relative in _FAMILY_PREFIXES.items():
        if base.startswith(prefix) and len(base) == len(relative):
            return replace(ARCHITECTURES[relative], name=base, peaks=None)
    return None
