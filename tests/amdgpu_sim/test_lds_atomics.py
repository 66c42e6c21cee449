"""LDS atomics against values served lane by lane in plain Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from assembler import compute, run, wait_lds

import amdgpu_sim

Array = np.ndarray[Any, Any]
RANDOM = np.random.default_rng(0)


def i32(x: int) -> int:
    return x - 2**32 if x & 2**31 else x


def halves(old: int, new: int, dtype: Any) -> int:
    a, b = (np.array([x], np.uint32).view(dtype) for x in (old, new))
    return int((a + b).astype(dtype).view(np.uint32)[0])


def single(function: Callable[[Any, Any], Any]) -> Callable[[int, int], int]:
    def apply(old: int, new: int) -> int:
        a, b = (np.array([x], np.uint32).view(np.float32)[0] for x in (old, new))
        return int(np.float32(function(a, b)).view(np.uint32))

    return apply


FLOATS = RANDOM.standard_normal(64).astype(np.float32).view(np.uint32)
HALVES = RANDOM.standard_normal(128).astype(np.float16).view(np.uint32)
BFLOATS = RANDOM.standard_normal(128).astype(ml_dtypes.bfloat16).view(np.uint32)
WORDS = RANDOM.integers(0, 2**32, 64, dtype=np.uint32)

# (operation, data, first contents, one step)
CASES: list[tuple[str, Array, int, Callable[[int, int], int]]] = [
    ("add_{}u32", WORDS, 7, lambda old, new: old + new),
    ("sub_{}u32", WORDS, 7, lambda old, new: old - new),
    ("and_{}b32", WORDS | 0xFFFF0000, 2**32 - 1, lambda old, new: old & new),
    ("or_{}b32", WORDS & 0x11, 0, lambda old, new: old | new),
    ("xor_{}b32", WORDS, 0, lambda old, new: old ^ new),
    ("max_{}u32", WORDS, 0, max),
    ("min_{}u32", WORDS, 2**32 - 1, min),
    ("max_{}i32", WORDS, 0, lambda old, new: max(i32(old), i32(new))),
    ("min_{}i32", WORDS, 0, lambda old, new: min(i32(old), i32(new))),
    ("inc_{}u32", WORDS % 9, 0, lambda old, new: 0 if old >= new else old + 1),
    ("dec_{}u32", WORDS % 9, 5, lambda old, new: new if old == 0 or old > new else old - 1),
    ("add_{}f32", FLOATS, 0, single(lambda a, b: a + b)),
    ("max_{}f32", FLOATS, 0, single(max)),
    ("min_{}f32", FLOATS, 0, single(min)),
    ("pk_add_{}f16", HALVES, 0, lambda old, new: halves(old, new, np.float16)),
    ("pk_add_{}bf16", BFLOATS, 0, lambda old, new: halves(old, new, ml_dtypes.bfloat16)),
    ("wrxchg_{}b32", WORDS, 3, lambda old, new: new),
]


@pytest.mark.parametrize(("name", "data", "begin", "step"), CASES, ids=[case[0] for case in CASES])
@pytest.mark.parametrize("places", [1, 16, 64])
def test_atomics(name: str, data: Array, begin: int, step: Callable[[int, int], int], places: int) -> None:
    """``places`` words are shared by the lanes; lanes of one place are served in order."""
    body = f"""v_mov_b32_e32 v2, {hex(begin)}
    v_lshlrev_b32_e32 v3, 2, v0
    v_and_b32_e32 v4, {4 * places - 1}, v3
    ds_write_b32 v3, v2 offset:8
    ds_{name.format("rtn_")} v20, v4, v10 offset:8
    v_mov_b32_e32 v21, 0
    {wait_lds("gfx942")}
    ds_read_b32 v21, v3 offset:8
    {wait_lds("gfx942")}"""
    found, left = compute("gfx942", body, data, outputs=2, lds=264)
    memory = dict.fromkeys(range(64), begin)
    for lane in range(64):
        assert found[lane] == memory[lane % places] % 2**32
        memory[lane % places] = step(int(found[lane]), int(data[lane]))
    assert left.tolist() == [memory[n] % 2**32 for n in range(64)]
    if not name.startswith("wrxchg"):
        body = body.replace(f"ds_{name.format('rtn_')} v20,", f"v_mov_b32_e32 v20, 0\nds_{name.format('')}")
        assert np.array_equal(compute("gfx942", body, data, outputs=2, lds=264)[1], left)


@pytest.mark.parametrize(("target", "operands"), [("gfx942", "v12, v11"), ("gfx1100", "v11, v12")])
@pytest.mark.parametrize("returns", [True, False])
def test_compare_and_swap_order_of_operands(target: str, operands: str, returns: bool) -> None:
    """gfx9 names the expected value first, gfx11 the new one; here v11 is new and v12 expected."""
    lanes = amdgpu_sim.TARGETS[target].wave_size
    old, new = np.arange(lanes, dtype=np.uint32), np.arange(lanes, dtype=np.uint32) + 100
    expected = np.where(old % 3 == 0, old, 5).astype(np.uint32)
    store, load, swap = ("write", "read", "cmpst") if lanes == 64 else ("store", "load", "cmpstore")
    target_register = "v20, " if returns else ""
    body = f"""v_lshlrev_b32_e32 v3, 2, v0
    v_mov_b32_e32 v20, 0
    ds_{store}_b32 v3, v10
    ds_{swap}{"_rtn" if returns else ""}_b32 {target_register}v3, {operands}
    ds_{load}_b32 v21, v3
    {wait_lds(target)}"""
    found, left = compute(target, body, old, new, expected, outputs=2, lds=256)
    assert np.array_equal(found, old if returns else np.zeros_like(old))
    assert np.array_equal(left, np.where(old == expected, new, old))


def test_wide_atomics() -> None:
    low, high = WORDS, np.roll(WORDS, 5)
    value = low.astype(np.uint64) | high.astype(np.uint64) << 32
    body = f"""v_lshlrev_b32_e32 v3, 3, v0
    ds_write_b64 v3, v[10:11]
    ds_add_u64 v3, v[10:11]
    ds_wrxchg_rtn_b64 v[20:21], v3, v[10:11]
    {wait_lds("gfx942")}"""
    first, second = compute("gfx942", body, low, high, outputs=2, lds=512)
    assert np.array_equal(first | second.astype(np.uint64) << 32, value + value)
    number = RANDOM.standard_normal(64)
    parts = number.view(np.uint32).reshape(-1, 2).T
    body = body.replace("ds_add_u64", "ds_add_f64")
    first, second = compute("gfx942", body, parts[0].copy(), parts[1].copy(), outputs=2, lds=512)
    assert np.array_equal((first | second.astype(np.uint64) << 32).view(np.float64), number + number)


@pytest.mark.parametrize("lockstep", [True, False])
def test_atomics_of_two_waves_do_not_race_with_each_other(lockstep: bool) -> None:
    result = np.zeros(128, np.uint32)
    setup = """v_mov_b32_e32 v1, 0
    v_mov_b32_e32 v2, 1
    v_lshlrev_b32_e32 v3, 2, v0
    s_load_dwordx2 s[4:5], s[0:1], 0x0
    s_waitcnt lgkmcnt(0)
    ds_write_b32 v1, v1
    s_waitcnt lgkmcnt(0)
    s_barrier
    ds_add_u32 v1, v2
    s_waitcnt lgkmcnt(0)
    """
    read = "ds_read_b32 v4, v1\ns_waitcnt lgkmcnt(0)\nglobal_store_dword v3, v4, s[4:5]"
    options: dict[str, Any] = {"lds": 4, "items": 128, "lockstep": lockstep, "seed": 3}
    report = run("gfx942", setup + "s_barrier\n" + read, result, **options)
    assert (result == 128).all()
    assert report.by_category()["lds_atomic"] == 2
    assert report.bytes("lds_atomic", wave=0) == 256
    with pytest.raises(amdgpu_sim.LdsRaceError, match="after a"):
        run("gfx942", setup + read, result, **options)
    with pytest.raises(amdgpu_sim.LdsRaceError, match="after a"):
        run("gfx942", setup + "ds_write_b32 v1, v2\n", result, **options)
    with pytest.raises(amdgpu_sim.LdsRaceError, match="after a"):
        run("gfx942", setup.replace("s_barrier\n", ""), result, **options)


def test_atomics_need_defined_memory_and_data() -> None:
    body = "v_lshlrev_b32_e32 v3, 2, v0\n"
    with pytest.raises(amdgpu_sim.UninitialisedReadError, match="LDS that an atomic updates"):
        run("gfx942", body + "ds_add_u32 v3, v0", lds=256)
    with pytest.raises(amdgpu_sim.UninitialisedReadError, match="atomic operand"):
        run("gfx942", body + "ds_write_b32 v3, v0\nds_add_u32 v3, v9", lds=256)
    with pytest.raises(amdgpu_sim.UnsupportedInstructionError, match="vector registers"):
        run("gfx942", body + "ds_add_u32 v3, s4", lds=256)
    with pytest.raises(amdgpu_sim.OutOfBoundsError, match="LDS atomic"):
        run("gfx942", body + "ds_add_u32 v3, v0 offset:4", lds=256)
