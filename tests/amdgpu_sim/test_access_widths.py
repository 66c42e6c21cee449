"""Every width of load, store and atomic, in every memory, against numpy views of the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from assembler import prologue, run

import amdgpu_sim

Array = np.ndarray[Any, Any]
WAIT = {
    "gfx942": "s_waitcnt vmcnt(0) lgkmcnt(0)",
    "gfx1100": "s_waitcnt vmcnt(0) lgkmcnt(0)\ns_waitcnt_vscnt null, 0x0",
    "gfx1201": "s_wait_loadcnt_dscnt 0x0\ns_wait_storecnt 0x0",
}
BYTES = np.random.default_rng(0).integers(0, 256, 64 * 16, dtype=np.uint8)
OLD = 0xA1B2C3D4

# gfx9's name, that of gfx11 and gfx12, bytes, type of the loaded number, half of the register it goes to
LOADS = [
    ("ubyte", "u8", 1, np.uint8, None), ("sbyte", "i8", 1, np.int8, None), ("ushort", "u16", 2, np.uint16, None),
    ("sshort", "i16", 2, np.int16, None), ("ubyte_d16", "d16_u8", 1, np.uint8, 0),
    ("ubyte_d16_hi", "d16_hi_u8", 1, np.uint8, 1), ("sbyte_d16", "d16_i8", 1, np.int8, 0),
    ("sbyte_d16_hi", "d16_hi_i8", 1, np.int8, 1), ("short_d16", "d16_b16", 2, np.uint16, 0),
    ("short_d16_hi", "d16_hi_b16", 2, np.uint16, 1), ("dword", "b32", 4, np.uint32, None),
    ("dwordx2", "b64", 8, np.uint32, None), ("dwordx3", "b96", 12, np.uint32, None),
    ("dwordx4", "b128", 16, np.uint32, None),
]  # fmt: skip
STORES = [
    ("byte", "b8", 1, 0), ("short", "b16", 2, 0), ("byte_d16_hi", "d16_hi_b8", 1, 1),
    ("short_d16_hi", "d16_hi_b16", 2, 1),
    ("dword", "b32", 4, None), ("dwordx2", "b64", 8, None), ("dwordx3", "b96", 12, None), ("dwordx4", "b128", 16, None),
]  # fmt: skip


def setup(target: str) -> str:
    """Pointers in s[4:7]; v1 = 4 * lane, v2 = 16 * lane; s[8:11] a buffer and v[24:25] a flat address of argument 0."""
    vcc, carry = ("vcc", "v_addc_co_u32_e32") if target == "gfx942" else ("vcc_lo", "v_add_co_ci_u32_e32")
    return f"""{prologue(target)}
    v_lshlrev_b32_e32 v2, 4, v0
    v_mov_b32_e32 v25, s5
    v_mov_b32_e32 v9, 0
    v_add_co_u32 v24, {vcc}, s4, v2
    {carry} v25, {vcc}, v9, v25, {vcc}
    s_mov_b32 s8, s4
    s_mov_b32 s9, s5
    s_movk_i32 s10, 0x400
    s_mov_b32 s11, 0x27000"""


def address(space: str, target: str) -> str:
    """Operands of 16 * lane in argument 0, after the data for stores and loads."""
    zero = "null" if target == "gfx1201" else "0"
    return {"global": "v2, s[4:5]", "buffer": f"v2, s[8:11], {zero} offen", "flat": "v[24:25]"}[space]


def load(space: str, name: str, target: str, register: str) -> str:
    return f"{space}_load_{name} {register}, {address(space, target)}"


def store(space: str, name: str, target: str, register: str) -> str:
    if space == "global":
        return f"global_store_{name} v2, {register}, s[4:5]"
    if space == "buffer":
        return f"buffer_store_{name} {register}, {address(space, target)}"
    return f"flat_store_{name} v[24:25], {register}"


def registers(size: int) -> str:
    count = -(-size // 4)
    return "v4" if count == 1 else f"v[4:{3 + count}]"


def into_register(row: Array, dtype: Any, half: int | None) -> list[int]:
    words = [int(x) & 0xFFFFFFFF for x in row.view(dtype)]
    if half is None:
        return words
    return [OLD & 0xFFFF0000 | words[0] & 0xFFFF if half == 0 else OLD & 0xFFFF | (words[0] & 0xFFFF) << 16]


@pytest.mark.parametrize("space", ["global", "buffer", "flat", "scratch", "lds"])
@pytest.mark.parametrize("target", ["gfx942", "gfx1100", "gfx1201"])
def test_loads(target: str, space: str) -> None:
    gfx9, lanes = target == "gfx942", amdgpu_sim.TARGETS[target].wave_size
    wide = "dwordx4" if gfx9 else "b128"
    for old_name, new_name, size, dtype, half in LOADS:
        name = old_name if gfx9 else new_name
        count = -(-size // 4)
        body = [setup(target), *(f"v_mov_b32_e32 v{n}, {OLD:#x}" for n in range(4, 8))]
        if space == "lds":
            ds = {"dword": "b32", "dwordx2": "b64", "dwordx3": "b96", "dwordx4": "b128"}.get(old_name, new_name)
            if half is not None:
                kind = "u16" if size == 2 else new_name[-2:]
                ds = f"{kind}_d16{'_hi' if half else ''}"
            verbs = ("read", "write") if gfx9 else ("load", "store")
            body += [f"global_load_{wide} v[12:15], v2, s[4:5]", WAIT[target], f"ds_{verbs[1]}_b128 v2, v[12:15]"]
            body.append(f"ds_{verbs[0]}_{ds} {registers(size)}, v2")
        elif space == "scratch":
            body += [
                f"global_load_{wide} v[12:15], v2, s[4:5]",
                WAIT[target],
                f"scratch_store_{wide} off, v[12:15], off offset:4",
            ]
            body += [WAIT[target], f"scratch_load_{name} {registers(size)}, off, off offset:4"]
        else:
            body.append(load(space, name, target, registers(size)))
        narrow = "dword" if gfx9 else "b32"
        body += [
            WAIT[target],
            *(f"global_store_{narrow} v1, v{4 + n}, s[6:7] offset:{4 * lanes * n}" for n in range(count)),
        ]
        result = np.zeros((count, lanes), np.uint32)
        report = run(target, "\n".join(body), BYTES, result, lds=1024, scratch=32)
        rows = BYTES.reshape(64, 16)[:lanes, :size]
        assert result.T.tolist() == [into_register(np.ascontiguousarray(row), dtype, half) for row in rows], name
        category = {"lds": "lds_read", "scratch": "scratch_load"}.get(space, "global_load")
        assert size in report.access_widths(category)


@pytest.mark.parametrize("space", ["global", "buffer", "flat", "scratch", "lds"])
@pytest.mark.parametrize("target", ["gfx942", "gfx1100", "gfx1201"])
def test_stores(target: str, space: str) -> None:
    gfx9, lanes = target == "gfx942", amdgpu_sim.TARGETS[target].wave_size
    wide = "dwordx4" if gfx9 else "b128"
    for old_name, new_name, size, half in STORES:
        name = old_name if gfx9 else new_name
        memory, background = np.zeros(64 * 16, np.uint8), np.full(4, 0x5A5A5A5A, np.uint32)
        body = [setup(target), f"global_load_{wide} v[4:7], v2, s[6:7]"]
        body += [f"v_mov_b32_e32 v{n}, 0x5a5a5a5a" for n in range(12, 16)]
        body.append(WAIT[target])
        if space in ("lds", "scratch"):
            ds = {"dword": "b32", "dwordx2": "b64", "dwordx3": "b96", "dwordx4": "b128"}.get(old_name, f"b{8 * size}")
            ds += "_d16_hi" if half else ""
            verbs = ("write", "read") if gfx9 else ("store", "load")
            if space == "lds":
                body += [f"ds_{verbs[0]}_b128 v2, v[12:15]", f"ds_{verbs[0]}_{ds} v2, {registers(size)}"]
                body += [f"ds_{verbs[1]}_b128 v[12:15], v2", WAIT[target]]
            elif half and size == 1:
                continue
            else:
                body += [
                    f"scratch_store_{wide} off, v[12:15], off",
                    f"scratch_store_{name} off, {registers(size)}, off",
                ]
                body += [f"scratch_load_{wide} v[12:15], off, off", WAIT[target]]
            body.append(f"global_store_{wide} v2, v[12:15], s[4:5]")
        else:
            body += [f"global_store_{wide} v2, v[12:15], s[4:5]", store(space, name, target, registers(size))]
        run(target, "\n".join(body), memory, BYTES, lds=1024, scratch=32)
        expected = np.tile(background.view(np.uint8), (64, 1))
        shift = 2 if half else 0
        expected[:, :size] = BYTES.reshape(64, 16)[:, shift : shift + size]
        expected[lanes:] = 0
        assert np.array_equal(memory.reshape(64, 16), expected), name


def i32(x: int) -> int:
    return x - 2**32 if x & 2**31 else x


def number(dtype: Any, function: Callable[[Any, Any], Any]) -> Callable[[int, int], int]:
    """``function`` on numbers of ``dtype``, given and returned as bit patterns of 32 or 64 bits."""
    words = np.uint64 if np.dtype(dtype).itemsize == 8 else np.uint32

    def apply(old: int, new: int) -> int:
        a, b = (np.array([x], words).view(dtype) for x in (old, new))
        return int(np.asarray(function(a, b)).astype(dtype).view(words)[0])

    return apply


ATOMICS: list[tuple[str, str, Any, Callable[[int, int], int]]] = [
    ("add", "add_u32", np.uint32, lambda a, b: a + b), ("sub", "sub_u32", np.uint32, lambda a, b: a - b),
    ("and", "and_b32", np.uint32, lambda a, b: a & b), ("or", "or_b32", np.uint32, lambda a, b: a | b),
    ("xor", "xor_b32", np.uint32, lambda a, b: a ^ b), ("umax", "max_u32", np.uint32, max),
    ("umin", "min_u32", np.uint32, min), ("smax", "max_i32", np.uint32, lambda a, b: max(i32(a), i32(b))),
    ("smin", "min_i32", np.uint32, lambda a, b: min(i32(a), i32(b))),
    ("inc", "inc_u32", np.uint32, lambda a, b: 0 if a >= b else a + 1),
    ("dec", "dec_u32", np.uint32, lambda a, b: b if a == 0 or a > b else a - 1),
    ("swap", "swap_b32", np.uint32, lambda a, b: b), ("swap_x2", "swap_b64", np.uint64, lambda a, b: b),
    ("add_x2", "add_u64", np.uint64, lambda a, b: a + b),
    ("add_f32", "add_f32", np.float32, number(np.float32, lambda a, b: a + b)),
    ("", "max_num_f32", np.float32, number(np.float32, np.fmax)),
    ("", "min_num_f32", np.float32, number(np.float32, np.fmin)),
    ("max_f32", "", np.float32, number(np.float32, np.fmax)), ("min_f32", "", np.float32, number(np.float32, np.fmin)),
    ("add_f64", "", np.float64, number(np.float64, lambda a, b: a + b)),
    ("max_f64", "", np.float64, number(np.float64, np.fmax)), ("min_f64", "", np.float64, number(np.float64, np.fmin)),
    ("pk_add_f16", "pk_add_f16", np.float16, number(np.float16, lambda a, b: a + b)),
    ("pk_add_bf16", "pk_add_bf16", ml_dtypes.bfloat16, number(ml_dtypes.bfloat16, lambda a, b: a + b)),
]  # fmt: skip


def atomic(space: str, name: str, target: str, data: str, returned: str) -> str:
    """``returned``: the result register, or nothing."""
    flag = {"gfx942": " sc0", "gfx1100": " glc", "gfx1201": " th:TH_ATOMIC_RETURN"}[target] if returned else ""
    if space == "buffer":
        # the returned value overwrites the data
        return f"buffer_atomic_{name} {data}, {address(space, target)}{flag}"
    result = f"{returned}, " if returned else ""
    if space == "global":
        return f"global_atomic_{name} {result}v2, {data}, s[4:5]{flag}"
    return f"flat_atomic_{name} {result}v[24:25], {data}{flag}"


@pytest.mark.parametrize("space", ["global", "buffer", "flat"])
@pytest.mark.parametrize("target", ["gfx942", "gfx1201"])
@pytest.mark.parametrize("shared", [1, 64])
def test_atomics(target: str, space: str, shared: int) -> None:
    """``shared`` lanes use one place and are served in their order."""
    lanes = amdgpu_sim.TARGETS[target].wave_size
    random = np.random.default_rng(1)
    for old_name, new_name, dtype, step in ATOMICS:
        name = old_name if target == "gfx942" else new_name
        if not name:
            continue
        words: Any = np.uint64 if np.dtype(dtype).itemsize == 8 else np.uint32
        size = np.dtype(words).itemsize
        count = lanes * size // np.dtype(dtype).itemsize
        if dtype in (np.uint32, np.uint64):
            data, first = (random.integers(0, 1 << 31, count, dtype=words) for _ in range(2))
        else:
            data, first = (random.standard_normal(count).astype(dtype) for _ in range(2))
        memory, values = np.zeros(lanes * 16, np.uint8), np.zeros(lanes * 16, np.uint8)
        memory.reshape(lanes, 16)[:, :size] = first.view(np.uint8).reshape(lanes, size)
        values.reshape(lanes, 16)[:, :size] = data.view(np.uint8).reshape(lanes, size)
        load_name, store_name = ("dwordx2", "dwordx2") if lanes == 64 else ("b64", "b64")
        returned = registers(size) if space == "buffer" else registers(size).replace("4", "14").replace("5", "15")
        body = [setup(target), f"global_load_{load_name} v[4:5], v2, s[6:7]", WAIT[target]]
        if shared == 64:
            body += ["v_mov_b32_e32 v3, v2", "v_mov_b32_e32 v2, 0", "v_mov_b32_e32 v24, s4", "v_mov_b32_e32 v25, s5"]
        body += ["v_mov_b32_e32 v14, 0", "v_mov_b32_e32 v15, 0", atomic(space, name, target, registers(size), returned)]
        if shared == 64:
            body.append("v_mov_b32_e32 v2, v3")
        first_register = 4 if space == "buffer" else 14
        body += [WAIT[target], f"global_store_{store_name} v2, v[{first_register}:{first_register + 1}], s[6:7]"]
        run(target, "\n".join(body), memory, values)
        current = [int(x) for x in first.view(words)]
        found = values.reshape(lanes, 16)[:, :size].copy().view(words)[:, 0]
        for lane, new in enumerate(data.view(words).tolist()):
            place = 0 if shared == 64 else lane
            assert int(found[lane]) == current[place], name
            current[place] = step(current[place], new) % (1 << 8 * size)
        assert memory.reshape(lanes, 16)[:, :size].copy().view(words)[:, 0].tolist() == current, name


@pytest.mark.parametrize("space", ["global", "buffer", "flat"])
@pytest.mark.parametrize(
    ("target", "names"), [("gfx942", ("cmpswap", "cmpswap_x2")), ("gfx1201", ("cmpswap_b32", "cmpswap_b64"))]
)
def test_compare_and_swap(target: str, names: tuple[str, str], space: str) -> None:
    lanes = amdgpu_sim.TARGETS[target].wave_size
    lane = np.arange(lanes)
    for name, words in zip(names, (np.uint32, np.uint64), strict=True):
        size = np.dtype(words).itemsize
        memory, values = np.zeros((lanes, 16 // size), words), np.zeros((lanes, 16 // size), words)
        memory[:, 0] = lane + (1 << 8 * size - 2)
        # the new value, then the expected one; every third lane expects something else
        values[:, 0] = lane * 7
        values[:, 1] = np.where(lane % 3, memory[:, 0], 5)
        before = memory.copy()
        data = f"v[4:{3 + 2 * size // 4}]"
        wide = "dwordx4" if lanes == 64 else "b128"
        body = [
            setup(target),
            f"global_load_{wide} v[4:7], v2, s[6:7]",
            WAIT[target],
            atomic(space, name, target, data, ""),
        ]
        run(target, "\n".join(body), memory.view(np.uint8).reshape(-1), values.view(np.uint8).reshape(-1))
        assert np.array_equal(memory[:, 0], np.where(lane % 3, values[:, 0], before[:, 0])), name


@pytest.mark.parametrize(("name", "size"), [("dword", 4), ("dwordx3", 12), ("dwordx4", 16)])
@pytest.mark.parametrize("space", ["global", "buffer"])
def test_loads_straight_to_lds(space: str, name: str, size: int) -> None:
    """Lane n's data goes to M0 + offset + n times the width; lanes outside the buffer bring zeros."""
    target, result = "gfx950", np.zeros(64 * 16, np.uint8)
    address_ = "v2, s[8:11], 0 offen offset:16 lds" if space == "buffer" else "v2, s[4:5] offset:16"
    mnemonic = f"buffer_load_{name}" if space == "buffer" else f"global_load_lds_{name}"
    source = np.concatenate([BYTES, np.zeros(16, np.uint8)])
    body = f"""{setup("gfx942")}
    s_movk_i32 m0, 0x20
    s_nop 0
    {mnemonic} {address_}
    s_waitcnt vmcnt(0)
    v_mul_u32_u24_e32 v3, {size}, v0
    {"ds_read_b32 v4, v3 offset:48" if size == 4 else f"ds_read_b{8 * size} {registers(size)}, v3 offset:48"}
    s_waitcnt lgkmcnt(0)
    global_store_{name} v2, {registers(size)}, s[6:7]"""
    run(target, body, source, result, lds=48 + 64 * size)
    expected = np.zeros((64, 16), np.uint8)
    expected[:, :size] = source.reshape(65, 16)[1:, :size]
    if space == "buffer":
        expected[63] = 0
    assert np.array_equal(result.reshape(64, 16), expected)
