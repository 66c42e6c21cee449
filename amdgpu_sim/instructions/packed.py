"""Packed arithmetic (two 16-bit or two float32 values an instruction) and dot products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from amdgpu_sim.conversions import bf16_bits_to_float
from amdgpu_sim.decoding import Decoding, Execute, instruction
from amdgpu_sim.instructions.vector import result_writer, saturated
from amdgpu_sim.instructions.vector_float import fma, fma16
from amdgpu_sim.waves import Array, Waves

F16, F32, U32, U16 = np.float16, np.float32, np.uint32, np.uint16


_KIND = {U16: "u16", np.int16: "i16"}


def _bits(d: Decoding, name: str, default: int, count: int) -> list[int]:
    given = list(d.modifier(name, [default] * count))
    return given + [default] * (count - len(given))


def packed16(names: str, dtype: Any, sources: int, function: Callable[..., Any]) -> None:
    """Define instructions that work on the two 16-bit halves separately."""

    @instruction(*names.split())
    def _(d: Decoding) -> Execute:
        d.parse_operands()
        low, high = _bits(d, "op_sel", 0, sources), _bits(d, "op_sel_hi", 1, sources)
        negate_low, negate_high = _bits(d, "neg_lo", 0, sources), _bits(d, "neg_hi", 0, sources)
        readers = [d.source(n, "pk16" if dtype is F16 else "u32") for n in range(1, sources + 1)]
        write = result_writer(d, 0, "u32")
        clamp = bool(d.modifier("clamp"))
        compute = saturated(function, _KIND[dtype]) if clamp and dtype is not F16 else function

        def half(w: Waves, select: list[int], negate: list[int]) -> Array:
            values = []
            for read, picked, minus in zip(readers, select, negate, strict=True):
                word = read(w)
                value = (word >> U32(16) if picked else word).astype(U16).view(dtype)
                values.append(-value if minus else value)
            result = compute(*values)
            return (np.clip(result, 0, 1) if clamp and dtype is F16 else result).view(U16).astype(U32)

        return lambda w: write(w, half(w, low, negate_low) | (half(w, high, negate_high) << U32(16)))


packed16("v_pk_add_f16", F16, 2, np.add)
packed16("v_pk_mul_f16", F16, 2, np.multiply)
packed16("v_pk_fma_f16", F16, 3, fma16)
packed16("v_pk_max_f16 v_pk_max_num_f16", F16, 2, np.fmax)
packed16("v_pk_min_f16 v_pk_min_num_f16", F16, 2, np.fmin)
packed16("v_pk_add_u16", U16, 2, np.add)
packed16("v_pk_sub_u16", U16, 2, np.subtract)
packed16("v_pk_sub_i16", np.int16, 2, np.subtract)
packed16("v_pk_add_i16", np.int16, 2, np.add)
packed16("v_pk_mul_lo_u16", U16, 2, np.multiply)
packed16("v_pk_mad_u16", U16, 3, lambda a, b, c: a * b + c)
packed16("v_pk_max_u16", U16, 2, np.maximum)
packed16("v_pk_min_u16", U16, 2, np.minimum)
packed16("v_pk_max_i16", np.int16, 2, np.maximum)
packed16("v_pk_min_i16", np.int16, 2, np.minimum)
packed16("v_pk_lshlrev_b16", U16, 2, lambda n, x: x << (n & U16(15)))
packed16("v_pk_lshrrev_b16", U16, 2, lambda n, x: x >> (n & U16(15)))


def packed32(name: str, sources: int, function: Callable[..., Any]) -> None:
    """Define an instruction that works on two float32 registers a source."""

    @instruction(name)
    def _(d: Decoding) -> Execute:
        d.parse_operands()
        low, high = _bits(d, "op_sel", 0, sources), _bits(d, "op_sel_hi", 1, sources)
        negate_low, negate_high = _bits(d, "neg_lo", 0, sources), _bits(d, "neg_hi", 0, sources)
        pairs = [_register_pair(d, n, "f32", {low[n - 1], high[n - 1]}) for n in range(1, sources + 1)]
        register = d.destination(0, 2, "v")
        d.instruction.category = "valu_packed"

        def component(w: Waves, select: list[int], negate: list[int]) -> Array:
            values = [pair[picked](w) for pair, picked in zip(pairs, select, strict=True)]
            return function(*[-v if minus else v for v, minus in zip(values, negate, strict=True)]).view(U32)

        def execute(w: Waves) -> None:
            first, second = component(w, low, negate_low), component(w, high, negate_high)
            w.set_vector(register, first)
            w.set_vector(register + 1, second)

        return execute


def _register_pair(d: Decoding, number: int, kind: str, used: set[int]) -> dict[int, Callable[[Waves], Array]]:
    """Readers of the registers of operand ``number`` that are ``used`` (0 low, 1 high); a constant serves
    for both."""
    operand = d.operands[number]
    if operand.kind == "const":
        return dict.fromkeys(used, d.source(number, kind))
    readers = {}
    for part in used:
        operand.index += part
        readers[part] = d.source(number, kind)
        operand.index -= part
    return readers


packed32("v_pk_add_f32", 2, np.add)
packed32("v_pk_mul_f32", 2, np.multiply)
packed32("v_pk_fma_f32", 3, fma)


@instruction("v_pk_mov_b32")
def _(d: Decoding) -> Execute:
    d.parse_operands()
    selected, upper = _bits(d, "op_sel", 0, 2), _bits(d, "op_sel_hi", 1, 2)
    if upper != [1, 1] and upper != [0, 1]:
        raise d.unsupported(f"op_sel_hi:{upper}")
    a, b = (_register_pair(d, n, "u32", {selected[n - 1]})[selected[n - 1]] for n in (1, 2))
    register = d.destination(0, 2, "v")

    def execute(w: Waves) -> None:
        first, second = a(w).copy(), b(w).copy()
        w.set_vector(register, first)
        w.set_vector(register + 1, second)

    return execute


def _halves(word: Array, bfloat: bool) -> tuple[Array, Array]:
    low, high = word.astype(U16), (word >> U32(16)).astype(U16)
    if bfloat:
        return bf16_bits_to_float(low), bf16_bits_to_float(high)
    return low.view(F16).astype(F32), high.view(F16).astype(F32)


@instruction("v_dot2_f32_f16", "v_dot2_f32_bf16", "v_dot2c_f32_f16", "v_dot2acc_f32_f16", "v_dot2c_f32_bf16")
def _(d: Decoding) -> Execute:
    d.parse_operands()
    bfloat = d.mnemonic.endswith("bf16")
    accumulates = len(d.operands) == 3
    a, b = d.source(1, "pk16"), d.source(2, "pk16")
    c = d.source(0 if accumulates else 3, "f32")
    write = result_writer(d, 0, "f32")

    def execute(w: Waves) -> None:
        (a0, a1), (b0, b1) = _halves(a(w), bfloat), _halves(b(w), bfloat)
        total = a0.astype(np.float64) * b0 + a1.astype(np.float64) * b1 + c(w)
        write(w, total.astype(F32))

    return execute


@instruction("v_dot4_i32_i8", "v_dot4c_i32_i8", "v_dot4_u32_u8", "v_dot4_i32_iu8")
def _(d: Decoding) -> Execute:
    d.parse_operands()
    signs = d.modifier("neg_lo", [0, 0, 0]) if d.mnemonic.endswith("iu8") else [d.mnemonic.endswith("_i8")] * 2
    a, b = d.source(1, "u32"), d.source(2, "u32")
    c = d.source(0 if len(d.operands) == 3 else 3, "u32")
    write = result_writer(d, 0, "u32")

    def parts(word: Array, signed: bool) -> Array:
        raw = np.ascontiguousarray(word).view(np.int8 if signed else np.uint8)
        return raw.reshape(*word.shape, 4).astype(np.int64)

    def execute(w: Waves) -> None:
        x, y = parts(a(w), bool(signs[0])), parts(b(w), bool(signs[1]))
        write(w, ((x * y).sum(-1) + c(w)).astype(U32))

    return execute
