"""Calls and traps load, and fault only where a wave executes them."""

from __future__ import annotations

import pytest
from assembler import run

import amdgpu_sim

BODY = """
s_cmp_{compare}_u32 s2, 0
s_cbranch_scc1 .Lleave
s_endpgm
.Lleave:
{leave}"""


@pytest.mark.parametrize("leave", ["s_swappc_b64 s[30:31], s[0:1]", "s_trap 2"])
def test_leaving_the_kernel(leave: str) -> None:
    assert run("gfx942", BODY.format(compare="lg", leave=leave)).instructions == 3
    with pytest.raises(amdgpu_sim.UnsupportedStateError, match=r"(call|trap)[\s\S]*line \d+: `s_(swappc|trap)"):
        run("gfx942", BODY.format(compare="eq", leave=leave))


def test_program_counter_needs_addresses() -> None:
    with pytest.raises(amdgpu_sim.UnsupportedInstructionError, match="load the code object"):
        run("gfx942", "s_getpc_b64 s[4:5]")
