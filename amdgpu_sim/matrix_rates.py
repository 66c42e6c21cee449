"""Cycles for which a matrix instruction occupies the matrix unit of a SIMD.

CDNA: passes of four cycles, as the CDNA 2, 3 and 4 ISA manuals state them with each instruction and LLVM's
scheduling model (SISchedule.td) repeats them; AMD's matrix instruction calculator gives the same figures in
cycles. RDNA: AMD's calculator (32 cycles for every 16-bit or 8-bit 16x16x16 product of RDNA 3) and, for
RDNA 4, the FLOPs per clock and compute unit of "Using the Matrix Cores of AMD RDNA 4 architecture GPUs".
"""

from __future__ import annotations

import re

from amdgpu_sim.targets import Target

_MFMA = re.compile(r"v_s?mfmac?_\w\d\d_(\d+)x\d+x(\d+)_?(?:\d+b_?)?(\w+)")
_CYCLES_A_PASS = 4


def _passes(target: Target, mnemonic: str) -> int:
    match = _MFMA.match(mnemonic)
    if match is None:
        raise ValueError(f"{mnemonic}: no matrix instruction of CDNA")
    size, depth, element = int(match[1]), int(match[2]), match[3]
    if element == "f64":
        return 4 if size == 4 else 16 if target.name == "gfx950" else 8
    if size == 4:
        return 2
    full = 8 if size == 16 else 16
    if target.name == "gfx90a":
        return full
    if element.startswith("f8f6f4"):
        return full
    # the shapes that CDNA 2 does not have, or has with a quarter of the depth, run at twice its rate
    slow = depth <= 4 and element != "xf32"
    return full if slow else full // 2


def matrix_cycles(target: Target, mnemonic: str) -> int:
    """Cycles of one matrix instruction (f8f6f4: with 8-bit operands)."""
    if target.generation == 9:
        return _CYCLES_A_PASS * _passes(target, mnemonic)
    if target.generation == 11:
        return 16 if mnemonic.endswith("iu4") else 32
    return 8 if mnemonic.endswith(("fp8", "bf8", "iu8")) else 4 if mnemonic.endswith("iu4") else 16


def shares_vector_unit(target: Target, mnemonic: str) -> bool:
    """Whether vector instructions of other waves have to wait while the instruction runs."""
    # the calculator denies co-execution to RDNA 3's WMMA and to CDNA 2's float64; assumption: RDNA 4, CDNA 3, 4 alike
    return target.generation > 9 or mnemonic.startswith("v_mfma_f64")
