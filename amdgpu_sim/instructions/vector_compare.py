"""Vector comparisons (v_cmp, v_cmpx), class tests and conditional moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from amdgpu_sim.decoding import Decoding, Execute, instruction
from amdgpu_sim.instructions.sdwa import sdwa_reader, sdwa_writer
from amdgpu_sim.instructions.vector import result_writer, select_halves
from amdgpu_sim.waves import EXEC, VCC, Array, Waves

Comparison = Callable[[Array, Array], Any]


def _unordered(a: Array, b: Array) -> Array:
    return np.isnan(a) | np.isnan(b)


INTEGER: dict[str, Comparison] = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge":
    np.greater_equal,
}  # fmt: skip
FLOAT: dict[str, Comparison] = {
    "eq": np.equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "lg": lambda a, b: (a < b) | (a > b), "neq": np.not_equal,
    "o": lambda a, b: ~_unordered(a, b), "u": _unordered,
    "nlt": lambda a, b: ~(a < b), "nle": lambda a, b: ~(a <= b), "ngt": lambda a, b: ~(a > b),
    "nge": lambda a, b: ~(a >= b), "nlg": lambda a, b: ~((a < b) | (a > b)),
}  # fmt: skip


def _decode_compare(kind: str, compare: Comparison, to_exec: bool) -> Callable[[Decoding], Execute]:
    def decode(d: Decoding) -> Execute:
        d.parse_operands()
        words = d.target.wave_size // 32
        explicit = len(d.operands) == 3
        first = 1 if explicit else 0
        if len(d.operands) not in (2, 3):
            raise d.unsupported("two sources expected")
        if d.line.mnemonic.endswith("_sdwa"):
            # operand numbers and srcN_sel agree only where the destination is written out
            if not explicit:
                raise d.unsupported("SDWA comparison without a destination operand")
            a, b = sdwa_reader(d, 1, kind), sdwa_reader(d, 2, kind)
        else:
            halves = select_halves(d, 2) if kind.endswith("16") else [0, 0]
            a, b = d.source(first, kind, halves[0]), d.source(first + 1, kind, halves[1])
        d.ignore("clamp")
        if explicit:
            register = d.destination(0, words, "s")
        else:
            register = EXEC if to_exec and d.target.generation > 9 else VCC
            d.write_also("s", register, words)
        if to_exec and register != EXEC:
            d.write_also("s", EXEC, words)

        def execute(w: Waves) -> None:
            result = np.broadcast_to(compare(a(w), b(w)), w.active.shape)
            w.set_lane_mask(register, result)
            if to_exec and register != EXEC:
                w.set_lane_mask(EXEC, result)

        return execute

    return decode


for _prefix in ("v_cmp", "v_cmpx"):
    for _kind in ("u16", "i16", "u32", "i32", "u64", "i64"):
        for _name, _function in INTEGER.items():
            instruction(f"{_prefix}_{_name}_{_kind}")(_decode_compare(_kind, _function, _prefix == "v_cmpx"))
    for _kind in ("f16", "f32", "f64"):
        for _name, _function in FLOAT.items():
            instruction(f"{_prefix}_{_name}_{_kind}")(_decode_compare(_kind, _function, _prefix == "v_cmpx"))


def classify(value: Array, wanted: Array) -> Array:
    """v_cmp_class_f32: whether the class of each value is among the ``wanted`` bits (ISA order)."""
    sign, tiny = np.signbit(value), np.abs(value) < np.float32(2.0**-126)
    nan, infinite, zero = np.isnan(value), np.isinf(value), value == 0
    quiet = (value.view(np.uint32) >> np.uint32(22) & np.uint32(1)).astype(bool)
    normal = ~(nan | infinite | tiny)
    members = [
        nan & ~quiet, nan & quiet, infinite & sign, normal & sign, tiny & ~zero & sign, zero & sign,
        zero & ~sign, tiny & ~zero & ~sign, normal & ~sign, infinite & ~sign,
    ]  # fmt: skip
    result = np.zeros(np.broadcast_shapes(value.shape, wanted.shape), bool)
    for bit, member in enumerate(members):
        result |= member & (wanted >> np.uint32(bit) & np.uint32(1)).astype(bool)
    return result


@instruction("v_cmp_class_f32")
def _(d: Decoding) -> Execute:
    d.parse_operands()
    first = len(d.operands) - 2
    value, wanted = d.source(first, "f32"), d.source(first + 1, "u32")
    register, words = VCC, d.target.wave_size // 32
    if first:
        register = d.destination(0, words, "s")
    else:
        d.write_also("s", VCC, words)
    return lambda w: w.set_lane_mask(register, np.broadcast_to(classify(value(w), wanted(w)), w.active.shape))


@instruction("v_cndmask_b32", "v_cndmask_b16")
def _(d: Decoding) -> Execute:
    d.parse_operands()
    kind = "b32" if d.mnemonic.endswith("32") else "u16"
    words = d.target.wave_size // 32
    sdwa = d.line.mnemonic.endswith("_sdwa")
    if "dpp" in d.line.mnemonic:
        raise d.unsupported("DPP conditional move")
    halves = select_halves(d, 2) if kind == "u16" else [0, 0, 0]
    if sdwa:
        otherwise, chosen = sdwa_reader(d, 1, kind), sdwa_reader(d, 2, kind)
        write = sdwa_writer(d, kind)
    else:
        otherwise, chosen = d.source(1, kind, halves[0]), d.source(2, kind, halves[1])
        write = result_writer(d, 0, kind, halves[-1] or None)
    mask = d.operands[3].index if len(d.operands) > 3 else VCC
    spans = [d.span(1), d.span(2)]
    d.read_also("s", mask, words)
    target = d.instruction.writes[0].index

    def execute(w: Waves) -> None:
        write(w, np.where(w.lane_mask(mask), chosen(w), otherwise(w)))

    def propagate(w: Waves) -> None:
        picked = w.lane_mask(mask)
        shadow = np.broadcast_to(w.s_undefined[mask : mask + words].any(0), w.active.shape).copy()
        for span, where in zip(spans, (~picked, picked), strict=True):
            if span:
                shadow |= where & (w.v_undefined if span.kind == "v" else w.s_undefined)[span.index]
        active = w.active
        execute(w)
        w.define_vector(target, np.where(active, shadow, w.v_undefined[target]))

    d.instruction.propagate = propagate
    return execute
