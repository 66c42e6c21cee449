"""Follows values that nothing wrote, lane by lane, until they would reach memory, an address or a branch."""

from __future__ import annotations

import numpy as np

from amdgpu_sim.decoding import Instruction, Span
from amdgpu_sim.errors import UninitialisedReadError
from amdgpu_sim.waves import EXEC, Array, Waves


def _shadow(w: Waves, span: Span) -> Array:
    bank = w.v_undefined if span.kind == "v" else w.s_undefined
    return np.asarray(bank[span.index : span.index + span.count].any(0))


def check_sinks(w: Waves, instruction: Instruction) -> None:
    """Raise UninitialisedReadError if a register that must be defined is not, in an active lane."""
    for span, role in instruction.sinks:
        if not w.undefined & span.bits:
            continue
        bad = _shadow(w, span)
        if span.kind == "v":
            bad = bad & w.active
        if bad.any():
            slot, lane = (int(x[0]) for x in np.nonzero(bad))
            name = f"{span.kind}{span.index}" + (f"..{span.index + span.count - 1}" if span.count > 1 else "")
            raise UninitialisedReadError(
                f"{role} (register {name}) was never written", slot, lane if span.kind == "v" else None
            )


def execute_checked(w: Waves, instruction: Instruction) -> None:
    """Execute with propagation of definedness from sources to destinations."""
    if not w.undefined & instruction.touched:
        instruction.execute(w)
        return
    check_sinks(w, instruction)
    if instruction.propagate:
        instruction.propagate(w)
        return
    shadow: Array = np.zeros((w.count, 1), bool)
    for span in instruction.lane_reads:
        if w.undefined & span.bits:
            shadow = shadow | _shadow(w, span)
    for span in instruction.wave_reads:
        if w.undefined & span.bits:
            part = _shadow(w, span)
            shadow = shadow | (part & w.active).any(1, keepdims=True) if span.kind == "v" else shadow | part
    low = shadow
    if instruction.upward:
        low = np.zeros((w.count, 1), bool)
        for span in instruction.lane_reads:
            low = low | _shadow(w, Span(span.kind, span.index))
    active = w.active
    instruction.execute(w)
    for span in instruction.writes:
        _record(w, span, low, shadow, active)


def _record(w: Waves, span: Span, low: Array, high: Array, active: Array) -> None:
    for index in range(span.index, span.index + span.count):
        shadow = low if index == span.index else high
        if span.kind == "v":
            w.define_vector(index, np.where(active, shadow, w.v_undefined[index]))
            continue
        reached = (shadow & active).any(1, keepdims=True) if shadow.shape[1] > 1 else shadow
        if index in (EXEC, EXEC + 1) and reached.any():
            raise UninitialisedReadError(
                "EXEC would be written from a value that was never written", int(reached.argmax())
            )
        w.define_scalar(index, reached)
