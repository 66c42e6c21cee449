"""Branches, barriers, waits, mode changes and the instructions that only guide the hardware's scheduler."""

from __future__ import annotations

import re

import numpy as np

from amdgpu_sim.decoding import Decoding, Execute, Span, instruction
from amdgpu_sim.float_mode import sets_mode
from amdgpu_sim.waves import EXEC, SCC, VCC, Array, Waves

BRANCHES = ("s_branch", "s_cbranch_scc0", "s_cbranch_scc1", "s_cbranch_vccz", "s_cbranch_vccnz",
            "s_cbranch_execz",
            "s_cbranch_execnz")  # fmt: skip
BARRIERS = ("s_barrier", "s_barrier_wait")


def _nothing(w: Waves) -> None:
    return None


@instruction(
    "s_nop", "v_nop", "s_delay_alu", "s_clause", "s_setprio", "s_sleep", "s_sched_barrier", "s_wait_alu",
    "s_waitcnt_depctr", "s_set_inst_prefetch_distance", "s_inst_prefetch", "s_icache_inv", "s_dcache_inv",
    "s_dcache_wb", "s_sethalt", "s_code_end", "s_wait_idle", "s_barrier_signal", "s_wait_expcnt",
    "s_waitcnt_expcnt", "s_ttracedata", "s_prefetch_inst", "s_prefetch_data", "s_set_gpr_idx_off",
)  # fmt: skip
def _(d: Decoding) -> Execute:
    d.instruction.category = "schedule"
    return _nothing


@instruction("buffer_gl0_inv", "buffer_gl1_inv", "buffer_inv", "buffer_wbinvl1", "buffer_wbinvl1_vol", "buffer_wbl2")
def _(d: Decoding) -> Execute:
    d.ignore("sc0", "sc1", "nt")
    d.instruction.category = "cache"
    return _nothing


@instruction("global_inv", "global_wb", "global_wbinv")
def _(d: Decoding) -> Execute:
    d.ignore("scope")
    d.instruction.category = "cache"
    d.instruction.counters = ("load",) if d.mnemonic == "global_inv" else ("store",)
    return _nothing


@instruction("s_sendmsg")
def _(d: Decoding) -> Execute:
    if "MSG_DEALLOC_VGPRS" not in d.line.text:
        raise d.unsupported("only MSG_DEALLOC_VGPRS is modelled")
    d.instruction.category = "schedule"
    return _nothing


@instruction("s_setreg_imm32_b32", "s_denorm_mode", "s_round_mode")
def _(d: Decoding) -> Execute:
    # bit 23 of MODE (gfx11: allow DX10 clamp / replay; gfx12: scheduling) does not change results
    if not sets_mode(d.line) and not re.search(r"HW_REG_(WAVE_)?(MODE, 23, 1|SCHED_MODE, 0, 2)\)", d.line.text):
        raise d.unsupported("only MODE bit 23 and its float fields may be set")
    d.instruction.category = "salu"
    return _nothing


@instruction("s_barrier", "s_barrier_wait", "s_endpgm")
def _(d: Decoding) -> Execute:
    d.instruction.category = "barrier" if "barrier" in d.mnemonic else "branch"
    d.instruction.ends_block = True
    return _nothing


@instruction(*BRANCHES)
def _(d: Decoding) -> Execute:
    d.instruction.category = "branch"
    d.instruction.ends_block = True
    d.instruction.target_label = d.line.operands[0]
    words = d.target.wave_size // 32
    if "scc" in d.mnemonic:
        d.instruction.sinks.append((Span("s", SCC), "branch condition"))
    elif "vcc" in d.mnemonic:
        d.instruction.sinks.append((Span("s", VCC, words), "branch condition"))
    return _nothing


def branch_taken(mnemonic: str, w: Waves) -> Array:
    """Per wave, whether the branch is taken; shape (waves,)."""
    if mnemonic == "s_branch":
        return np.ones(w.count, bool)
    what = mnemonic.removeprefix("s_cbranch_")
    if what.startswith("scc"):
        return w.scc[:, 0] == (what == "scc1")
    words = w.wave_size // 32
    register = VCC if what.startswith("vcc") else EXEC
    zero = ~w.s[register : register + words, :, 0].any(0)
    return zero if what in ("vccz", "execz") else ~zero


_COUNTERS = {"vmcnt": "load", "lgkmcnt": "lgkm", "vscnt": "store", "expcnt": "export"}


@instruction("s_waitcnt")
def _(d: Decoding) -> Execute:
    d.instruction.category = "wait"
    text = d.line.text.partition(" ")[2]
    found = re.findall(r"(\w+)\((\d+)\)", text)
    if re.sub(r"\w+\(\d+\)|[&\s,]", "", text) or any(name not in _COUNTERS for name, _ in found):
        if text != "0":
            raise d.unsupported("named counters expected")
        found = [(name, "0") for name in _COUNTERS]
    d.instruction.waits = {_COUNTERS[name]: int(value) for name, value in found}
    return _nothing


@instruction("s_waitcnt_vscnt", "s_waitcnt_vmcnt", "s_waitcnt_lgkmcnt")
def _(d: Decoding) -> Execute:
    d.instruction.category = "wait"
    d.instruction.waits = {_COUNTERS[d.mnemonic.removeprefix("s_waitcnt_")]: int(d.line.operands[1], 0)}
    return _nothing


_SPLIT = {
    "loadcnt": "load",
    "storecnt": "store",
    "dscnt": "ds",
    "kmcnt": "km",
    "samplecnt": "sample",
    "bvhcnt": "bvh",
}


@instruction(*(f"s_wait_{name}" for name in _SPLIT))
def _(d: Decoding) -> Execute:
    d.instruction.category = "wait"
    d.instruction.waits = {_SPLIT[d.mnemonic.removeprefix("s_wait_")]: int(d.line.operands[0], 0)}
    return _nothing


@instruction("s_wait_loadcnt_dscnt", "s_wait_storecnt_dscnt")
def _(d: Decoding) -> Execute:
    d.instruction.category = "wait"
    packed = int(d.line.operands[0], 0)
    first = "load" if "load" in d.mnemonic else "store"
    d.instruction.waits = {first: packed >> 8, "ds": packed & 0xFF}
    return _nothing
