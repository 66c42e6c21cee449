"""The instruction that reads the program counter, from which code objects reach their data."""

from __future__ import annotations

import numpy as np

from amdgpu_sim.decoding import Decoding, Execute, instruction
from amdgpu_sim.instructions.scalar import scalar_writer

_ENCODED_BYTES = 4


@instruction("s_getpc_b64")
def _(d: Decoding) -> Execute:
    d.parse_operands()
    d.instruction.category = "salu"
    if d.line.address is None:
        raise d.unsupported("assembly text has no addresses; load the code object instead")
    write = scalar_writer(d, 0, "u64")
    following = np.array([[d.line.address + _ENCODED_BYTES]], np.uint64)
    return lambda w: write(w, following)
