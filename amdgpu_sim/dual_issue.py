"""Dual-issue pairs (``v_dual_x :: v_dual_y``): both halves read their sources before either writes."""

from __future__ import annotations

from amdgpu_sim.assembly import AsmLine, parse_instruction
from amdgpu_sim.decoding import Execute, Instruction, KernelFacts, decode
from amdgpu_sim.targets import Target
from amdgpu_sim.waves import Waves


def decode_dual(line: AsmLine, target: Target, facts: KernelFacts) -> Instruction:
    """Decode a ``::`` pair into one instruction."""
    first, second = (
        decode(parse_instruction(part, line.number, line.source), target, facts) for part in line.text.split(" :: ")
    )
    pair = Instruction(line, _sequence(line, first, second), category="valu_dual")
    pair.lane_reads = first.lane_reads + second.lane_reads
    pair.writes = first.writes + second.writes
    pair.propagate = None
    return pair.seal()


def _sequence(line: AsmLine, first: Instruction, second: Instruction) -> Execute:
    run_first, run_second = first.execute, second.execute
    if not first.write_bits & second.read_bits:

        def in_order(w: Waves) -> None:
            run_first(w)
            run_second(w)

        return in_order
    if not second.write_bits & first.read_bits:

        def reversed_order(w: Waves) -> None:
            run_second(w)
            run_first(w)

        return reversed_order
    if len(first.writes) != 1 or first.writes[0].kind != "v":
        raise line.unsupported("dual-issue pair with a scalar result that the other half reads")
    register = first.writes[0].index

    def exchange(w: Waves) -> None:
        old = w.v[register].copy()
        run_first(w)
        new = w.v[register].copy()
        w.v[register] = old
        run_second(w)
        w.v[register] = new

    return exchange
