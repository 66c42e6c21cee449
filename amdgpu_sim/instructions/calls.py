"""Instructions that leave the kernel's own code: calls and traps. They load, and fault where they are executed.

Optimised kernels are free of calls but for failed asserts, which never come back.
"""

from __future__ import annotations

from amdgpu_sim.decoding import Decoding, Execute, instruction
from amdgpu_sim.errors import UnsupportedStateError
from amdgpu_sim.waves import Waves

LEAVE = {
    "s_swappc_b64": "a function call is not modelled: the kernel may have failed an assert, or was not inlined",
    "s_trap": "the kernel ends itself by a trap",
}


@instruction(*LEAVE)
def _(d: Decoding) -> Execute:
    d.instruction.category = "branch"

    def execute(w: Waves) -> None:
        raise UnsupportedStateError(LEAVE[d.mnemonic])

    return execute
