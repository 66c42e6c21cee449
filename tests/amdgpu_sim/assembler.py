"""Wraps hand-written instructions into a kernel text that the simulator loads."""

from __future__ import annotations

from typing import Any

import numpy as np

from amdgpu_sim import Program, RunReport
from amdgpu_sim.targets import TARGETS

_TEXT = """
\t.amdgcn_target "amdgcn-amd-amdhsa--{target}"
probe:
{body}
\ts_endpgm
.Lfunc_end0:
\t.amdhsa_kernel probe
\t\t.amdhsa_group_segment_fixed_size {lds}
\t\t.amdhsa_private_segment_fixed_size {scratch}
\t\t.amdhsa_user_sgpr_count 2
\t\t.amdhsa_user_sgpr_kernarg_segment_ptr 1
\t\t.amdhsa_system_sgpr_workgroup_id_x 1
{directives}\t.end_amdhsa_kernel
amdhsa.kernels:
  - .args:
{arguments}
    .name:           probe
    .kernarg_segment_size: {size}
"""


def assemble(
    target: str, body: str, arguments: int = 2, lds: int = 0, scratch: int = 0, directives: str = ""
) -> Program:
    """A kernel of ``arguments`` pointers; s[0:1] is the kernarg pointer, s2 the work-group (not on gfx12)."""
    entries = "\n".join(
        f"      - .offset: {8 * n}\n        .size: 8\n        .value_kind: global_buffer" for n in range(arguments)
    )
    text = _TEXT.format(
        target=target, body=body, lds=lds, scratch=scratch, arguments=entries, size=8 * arguments, directives=directives
    )
    return Program(text)


def run(target: str, body: str, *arrays: np.ndarray[Any, Any], items: int | None = None, **options: Any) -> RunReport:
    """Run ``body`` as one work-group (default: one wave) on ``arrays``."""
    memory = {key: options.pop(key) for key in ("lds", "scratch") if key in options}
    program = assemble(target, body, len(arrays), **memory)
    return program.launch((options.pop("groups", 1),), (items or TARGETS[target].wave_size,), arrays, **options)


def prologue(target: str, pointers: int = 2) -> str:
    """Load the pointers to s[4:5], s[6:7], ... and leave 4 * work-item in v1."""
    load, wait = ("s_load_b64", "s_wait_kmcnt 0x0") if target == "gfx1201" else ("s_load_b64", "s_waitcnt lgkmcnt(0)")
    if target.startswith("gfx9"):
        load = "s_load_dwordx2"
    loads = [f"{load} s[{4 + 2 * n}:{5 + 2 * n}], s[0:1], {hex(8 * n)}" for n in range(pointers)]
    return "\n".join([*loads, "v_lshlrev_b32_e32 v1, 2, v0", wait])


def wait_loads(target: str) -> str:
    """Wait for every vector memory load."""
    return "s_wait_loadcnt 0x0" if target == "gfx1201" else "s_waitcnt vmcnt(0)"


def wait_lds(target: str) -> str:
    """Wait for every LDS operation."""
    return "s_wait_dscnt 0x0" if target == "gfx1201" else "s_waitcnt lgkmcnt(0)"


def compute(
    target: str, code: str, *inputs: np.ndarray[Any, Any], outputs: int = 1, **options: Any
) -> np.ndarray[Any, Any]:
    """Execute ``code`` on one wave with ``inputs`` in v10...; returns v20... as (outputs, lanes) uint32.

    Inputs are arrays of 32-bit items, one a lane.
    """
    lanes = TARGETS[target].wave_size
    dword = "dword" if target.startswith("gfx9") else "b32"
    table = np.ascontiguousarray(np.stack([np.ascontiguousarray(x).view(np.uint32) for x in inputs]))
    assert table.shape == (len(inputs), lanes)
    result = np.zeros((outputs, lanes), np.uint32)
    body = [prologue(target)]
    body += [f"global_load_{dword} v{10 + n}, v1, s[4:5] offset:{n * lanes * 4}" for n in range(len(inputs))]
    body += [wait_loads(target), code]
    body += [f"global_store_{dword} v1, v{20 + n}, s[6:7] offset:{n * lanes * 4}" for n in range(outputs)]
    run(target, "\n".join(body), table, result, **options)
    return result
