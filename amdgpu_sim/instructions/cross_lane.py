"""Instructions that move values between lanes: readlane, writelane, permlane, bpermute, swizzle."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from amdgpu_sim.decoding import Decoding, Execute, Span, instruction
from amdgpu_sim.instructions.access import count_lds
from amdgpu_sim.waves import Array, Waves


def _vector_source(d: Decoding, number: int) -> int:
    operand = d.operands[number]
    if operand.kind != "v" or operand.negate or operand.absolute:
        raise d.unsupported(f"vector register expected, got {operand.text!r}")
    return operand.index


@instruction("v_readfirstlane_b32")
def _(d: Decoding) -> Execute:
    d.parse_operands()
    source = _vector_source(d, 1)
    target = d.destination(0, 1, "s")
    d.instruction.wave_reads.append(Span("v", source))

    def first(w: Waves) -> Array:
        return np.where(w.active.any(1), w.active.argmax(1), 0)

    def execute(w: Waves) -> None:
        w.set_scalar(target, w.v[source][np.arange(w.count), first(w)][:, None])

    def propagate(w: Waves) -> None:
        shadow = w.v_undefined[source][np.arange(w.count), first(w)][:, None].copy()
        execute(w)
        w.define_scalar(target, shadow)

    d.instruction.propagate = propagate
    return execute


@instruction("v_readlane_b32")
def _(d: Decoding) -> Execute:
    d.parse_operands()
    source, lane = _vector_source(d, 1), d.source(2, "u32")
    target = d.destination(0, 1, "s")
    d.instruction.wave_reads.append(Span("v", source))
    d.sink(2, "lane number")

    def picked(w: Waves) -> Array:
        return np.broadcast_to(lane(w)[:, 0] & np.uint32(w.wave_size - 1), (w.count,))

    def execute(w: Waves) -> None:
        w.set_scalar(target, w.v[source][np.arange(w.count), picked(w)][:, None])

    def propagate(w: Waves) -> None:
        shadow = w.v_undefined[source][np.arange(w.count), picked(w)][:, None].copy()
        execute(w)
        w.define_scalar(target, shadow)

    d.instruction.propagate = propagate
    return execute


@instruction("v_writelane_b32")
def _(d: Decoding) -> Execute:
    d.parse_operands()
    value, lane = d.source(1, "u32"), d.source(2, "u32")
    value_span = d.span(1)
    target = d.destination(0, 1, "v")

    def picked(w: Waves) -> Array:
        return np.broadcast_to(lane(w)[:, 0] & np.uint32(w.wave_size - 1), (w.count,))

    def execute(w: Waves) -> None:
        w.v[target][np.arange(w.count), picked(w)] = np.broadcast_to(value(w)[:, 0], (w.count,))

    def propagate(w: Waves) -> None:
        shadow = w.v_undefined[target].copy()
        shadow[np.arange(w.count), picked(w)] = w.s_undefined[value_span.index][:, 0] if value_span else False
        execute(w)
        w.define_vector(target, shadow)

    d.instruction.propagate = propagate
    return execute


def _swap(d: Decoding, rows: int) -> Execute:
    """Exchange odd groups of ``rows`` lanes of operand 0 with even groups of operand 1."""
    d.parse_operands()
    a, b = _vector_source(d, 0), _vector_source(d, 1)
    for number in (0, 1):
        d.destination(number, 1, "v")
        d.source(number, "u32", whole_wave=True)

    def exchange(bank: Array) -> None:
        first = bank[a].reshape(bank.shape[1], -1, 2, rows)
        second = bank[b].reshape(bank.shape[1], -1, 2, rows)
        moved = first[:, :, 1].copy()
        first[:, :, 1] = second[:, :, 0]
        second[:, :, 0] = moved

    def execute(w: Waves) -> None:
        if not w.full:
            raise w.machine.unsupported_state("v_permlane_swap with inactive lanes")
        exchange(w.v)

    def propagate(w: Waves) -> None:
        execute(w)
        exchange(w.v_undefined)
        for register in (a, b):
            w.define_vector(register, w.v_undefined[register].copy())

    d.instruction.propagate = propagate
    return execute


@instruction("v_permlane16_swap_b32")
def _(d: Decoding) -> Execute:
    return _swap(d, 16)


@instruction("v_permlane32_swap_b32")
def _(d: Decoding) -> Execute:
    return _swap(d, 32)


@instruction("v_permlane16_b32", "v_permlanex16_b32")
def _(d: Decoding) -> Execute:
    d.parse_operands()
    source = _vector_source(d, 1)
    low, high = d.source(2, "u32"), d.source(3, "u32")
    d.source(1, "u32", whole_wave=True)
    target = d.destination(0, 1, "v")
    fetch_inactive, bound_control = list(d.modifier("op_sel", [0, 0]))[:2]
    other_row = 16 if "permlanex16" in d.mnemonic else 0
    lane = np.arange(d.target.wave_size)

    def source_lane(w: Waves) -> Array:
        select = (high(w).astype(np.uint64) << np.uint64(32)) | low(w)
        nibble = (select >> (4 * (lane & 15)).astype(np.uint64)) & np.uint64(15)
        return np.broadcast_to(((lane & 16) ^ other_row) + nibble.astype(np.int64), w.active.shape)

    def moved(w: Waves, bank: Array, missing: Array) -> Array:
        lanes = source_lane(w)
        value = np.take_along_axis(bank, lanes, 1)
        if fetch_inactive:
            return value
        return np.where(np.take_along_axis(w.active, lanes, 1), value, missing)

    def execute(w: Waves) -> None:
        w.set_vector(target, moved(w, w.v[source], np.zeros(1, np.uint32) if bound_control else w.v[target]))

    def propagate(w: Waves) -> None:
        shadow = moved(w, w.v_undefined[source], w.v_undefined[target] & (not bound_control))
        execute(w)
        w.define_vector(target, np.where(w.active, shadow, w.v_undefined[target]))

    d.instruction.propagate = propagate
    return execute


def _gather_lanes(d: Decoding, source: int, target: int, lanes_of: Callable[[Waves], Array]) -> Execute:
    """Set target[lane] = source[lanes_of(w)[lane]], 0 from inactive lanes, definedness alike."""

    def execute(w: Waves) -> None:
        lanes = lanes_of(w)
        value = np.take_along_axis(w.v[source], lanes, 1)
        w.set_vector(target, np.where(np.take_along_axis(w.active, lanes, 1), value, np.uint32(0)))

    def propagate(w: Waves) -> None:
        lanes = lanes_of(w)
        shadow = np.take_along_axis(w.v_undefined[source] & w.active, lanes, 1)
        execute(w)
        w.define_vector(target, np.where(w.active, shadow, w.v_undefined[target]))

    d.instruction.propagate = propagate
    return execute


@instruction("ds_bpermute_b32")
def _(d: Decoding) -> Execute:
    d.parse_operands()
    d.instruction.category = "lds_read"
    address, source = d.source(1, "u32"), _vector_source(d, 2)
    d.source(2, "u32", whole_wave=True)
    d.sink(1, "lane address")
    offset, size = np.uint32(d.modifier("offset", 0)), d.target.wave_size
    target = d.destination(0, 1, "v")
    count_lds(d)
    return _gather_lanes(
        d, source, target,
        lambda w: np.broadcast_to((address(w) + offset) >> np.uint32(2) & np.uint32(size - 1), w.active.shape)
        .astype(np.int64),
    )  # fmt: skip


def swizzle_lanes(pattern: int | str, lane: Array) -> Array | None:
    """Source lanes of a ds_swizzle offset, given as the number or as LLVM's macro; None if not understood."""
    row = lane & ~31
    if isinstance(pattern, str):
        match = re.fullmatch(r"swizzle\((\w+),(.*)\)", pattern)
        if not match:
            return None
        values = [int(v, 0) if v.strip().isdigit() else v.strip().strip('"') for v in match[2].split(",")]
        if match[1] == "SWAP" and isinstance(values[0], int):
            return lane ^ values[0]
        if match[1] == "REVERSE" and isinstance(values[0], int):
            return lane ^ (values[0] - 1)
        if match[1] == "BROADCAST":
            return (lane & ~(int(values[0]) - 1)) + int(values[1])
        if match[1] == "QUAD_PERM":
            return (lane & ~3) + np.array(values)[lane & 3]
        if match[1] == "BITMASK_PERM" and isinstance(values[0], str):
            bits = list(zip(range(4, -1, -1), values[0], strict=True))
            place = lane & 31
            result = np.zeros_like(lane)
            for bit, code in bits:
                own = place >> bit & 1
                result |= {"0": own * 0, "1": own * 0 + 1, "p": own, "i": own ^ 1}[code] << bit
            return row + result
        return None
    if pattern & 0x8000:
        return (lane & ~3) + (pattern >> (2 * (lane & 3)) & 3)
    place = ((lane & 31 & (pattern & 31)) | (pattern >> 5 & 31)) ^ (pattern >> 10 & 31)
    return row + place


@instruction("ds_swizzle_b32")
def _(d: Decoding) -> Execute:
    d.parse_operands()
    d.instruction.category = "lds_read"
    source = _vector_source(d, 1)
    d.source(1, "u32", whole_wave=True)
    target = d.destination(0, 1, "v")
    count_lds(d)
    lanes = swizzle_lanes(d.modifier("offset", 0), np.arange(d.target.wave_size))
    if lanes is None:
        raise d.unsupported("swizzle pattern")
    return _gather_lanes(d, source, target, lambda w: np.broadcast_to(lanes, w.active.shape))
