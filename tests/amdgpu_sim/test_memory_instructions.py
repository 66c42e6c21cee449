"""Loads, stores and atomics of global memory, buffers, LDS and scratch."""

from __future__ import annotations

import numpy as np
import pytest
from assembler import assemble, compute, prologue, run, wait_lds, wait_loads

LANES = np.arange(64, dtype=np.uint32)
BYTES = (np.arange(1024) * 37 % 251).astype(np.uint8)


@pytest.mark.parametrize("name", ["ubyte", "sbyte", "ushort", "sshort"])
def test_narrow_global_loads(name: str) -> None:
    size = 1 if "byte" in name else 2
    source, result = BYTES.copy(), np.zeros(64, np.uint32)
    body = f"{prologue('gfx942')}\nv_mul_u32_u24_e32 v2, {size}, v0\n"
    body += f"global_load_{name} v3, v2, s[4:5] offset:4\n"
    run("gfx942", body + f"{wait_loads('gfx942')}\nglobal_store_dword v1, v3, s[6:7]", source, result)
    dtype = {"ubyte": np.uint8, "sbyte": np.int8, "ushort": np.uint16, "sshort": np.int16}[name]
    assert np.array_equal(result.view(np.int32), source[4 : 4 + 64 * size].view(dtype))


@pytest.mark.parametrize("name", ["u8", "i8", "u16", "i16"])
def test_narrow_scalar_loads(name: str) -> None:
    source, result = BYTES.copy(), np.zeros(32, np.uint32)
    dtype = {"u8": np.uint8, "i8": np.int8, "u16": np.uint16, "i16": np.int16}[name]
    place = int(np.argmax(source > 127)) // 2 * 2 + 1  # of a negative number at its upper byte
    offset = place // np.dtype(dtype).itemsize * np.dtype(dtype).itemsize
    body = f"""{prologue("gfx1201")}
    s_load_{name} s8, s[4:5], {hex(offset)}
    s_wait_kmcnt 0x0
    v_mov_b32_e32 v3, s8
    global_store_b32 v1, v3, s[6:7]"""
    run("gfx1201", body, source, result)
    assert (result.view(np.int32) == int(source[offset : offset + 2].view(dtype)[0])).all()


def test_the_dispatch_packet_has_the_sizes() -> None:
    body = """
    s_load_dwordx2 s[4:5], s[2:3], 0x0
    s_load_dwordx4 s[8:11], s[0:1], 0x4
    s_waitcnt lgkmcnt(0)
    v_mov_b32_e32 v1, 0
    v_mov_b32_e32 v4, s8
    v_mov_b32_e32 v5, s9
    v_mov_b32_e32 v6, s10
    v_mov_b32_e32 v7, s11
    global_store_dwordx4 v1, v[4:7], s[4:5]"""
    directives = "\t\t.amdhsa_user_sgpr_dispatch_ptr 1\n\t\t.amdhsa_user_sgpr_count 4\n"
    result = np.zeros(4, np.uint32)
    assemble("gfx942", body, 1, directives=directives).launch((3, 5, 7), (64, 2, 1), [result])
    # work-group sizes of 16 bits each, then the grid in work-items
    assert result.tolist() == [64 | 2 << 16, 1, 3 * 64, 5 * 2]


def test_halfword_loads_keep_the_other_half() -> None:
    source, result = BYTES.copy(), np.zeros(64, np.uint32)
    body = f"""{prologue("gfx942")}
    v_lshlrev_b32_e32 v2, 1, v0
    v_mov_b32_e32 v3, 0x1234
    global_load_short_d16_hi v3, v2, s[4:5]
    s_waitcnt vmcnt(0)
    global_store_dword v1, v3, s[6:7]"""
    run("gfx942", body, source, result)
    assert np.array_equal(result, source[:128].view(np.uint16).astype(np.uint32) << 16 | 0x1234)


@pytest.mark.parametrize("offset", [0, 1, 4])
def test_wide_and_unaligned_global_access(offset: int) -> None:
    source, result = (np.arange(64 * 16 + 4) % 256).astype(np.uint8), np.zeros(64 * 16, np.uint8)
    body = f"""{prologue("gfx942")}
    v_lshlrev_b32_e32 v2, 4, v0
    global_load_dwordx4 v[4:7], v2, s[4:5] offset:{offset}
    s_waitcnt vmcnt(0)
    global_store_dwordx3 v2, v[4:6], s[6:7]"""
    run("gfx942", body, source, result)
    rows = result.reshape(64, 16)
    assert np.array_equal(rows[:, :12], source[offset : offset + 1024].reshape(64, 16)[:, :12])
    assert not rows[:, 12:].any()


def test_buffer_range_check_drops_lanes() -> None:
    source, result = np.arange(64, dtype=np.uint32), np.full(64, 7, np.uint32)
    body = f"""{prologue("gfx942")}
    s_mov_b32 s10, 80
    s_mov_b32 s11, 0x27000
    s_mov_b64 s[8:9], s[4:5]
    v_mov_b32_e32 v3, -1
    buffer_load_dword v3, v1, s[8:11], 0 offen
    s_waitcnt vmcnt(0)
    s_mov_b64 s[8:9], s[6:7]
    s_mov_b32 s10, 160
    buffer_store_dword v3, v1, s[8:11], 0 offen"""
    run("gfx942", body, source, result)
    lane = np.arange(64)
    assert np.array_equal(result, np.where(lane < 20, lane, np.where(lane < 40, 0, 7)))


def test_loads_straight_to_lds() -> None:
    source, result = np.arange(100, 164, dtype=np.uint32), np.zeros(64, np.uint32)
    body = f"""{prologue("gfx942")}
    s_mov_b32 m0, 0x40
    s_nop 0
    global_load_lds_dword v1, s[4:5]
    s_waitcnt vmcnt(0)
    ds_read_b32 v3, v1 offset:64
    s_waitcnt lgkmcnt(0)
    global_store_dword v1, v3, s[6:7]"""
    run("gfx942", body, source, result, lds=320)
    assert np.array_equal(result, source)


def test_an_lds_base_may_be_negative() -> None:
    source, result = BYTES.copy(), np.zeros(64, np.uint32)
    body = f"""{prologue("gfx942")}
    global_load_dword v3, v1, s[4:5]
    s_waitcnt vmcnt(0)
    v_subrev_u32_e32 v2, 512, v1
    ds_write_b32 v2, v3 offset:512
    {wait_lds("gfx942")}
    ds_read_b32 v4, v2 offset:512
    {wait_lds("gfx942")}
    global_store_dword v1, v4, s[6:7]"""
    run("gfx942", body, source, result, lds=256)
    assert np.array_equal(result, source[:256].view(np.uint32))


@pytest.mark.parametrize(
    ("store", "load", "stride"),
    [
        ("ds_write_b128 v1, v[10:13]", "ds_read_b128 v[20:23], v1", 16),
        ("ds_write_b64 v1, v[10:11]\nds_write_b64 v1, v[12:13] offset:8",
         "ds_read2_b64 v[20:23], v1 offset1:1", 16),
        ("ds_write2_b64 v1, v[10:11], v[12:13] offset1:1",
         "ds_read_b96 v[20:22], v1\nds_read_b32 v23, v1 offset:12", 16),
        ("ds_write2st64_b32 v1, v10, v11 offset1:1\nds_write2st64_b32 v1, v12, v13 offset0:2 offset1:3",
         "ds_read2st64_b32 v[20:21], v1 offset1:1\nds_read2st64_b32 v[22:23], v1 offset0:2 offset1:3", 4),
        ("ds_write_b32 v1, v10\nds_write_b32 v1, v11 offset:4\nds_write_b16 v1, v12 offset:8\n"
         "ds_write_b16_d16_hi v1, v12 offset:10\nds_write_b8 v1, v13 offset:12\n"
         "ds_write_b8 v1, v3 offset:13\n"
         "ds_write_b16_d16_hi v1, v13 offset:14",
         "ds_read_b64 v[20:21], v1\nds_read_b64 v[22:23], v1 offset:8", 16),
    ],
)  # fmt: skip
def test_lds_round_trips(store: str, load: str, stride: int) -> None:
    inputs = [np.random.default_rng(n).integers(0, 2**32, 64, dtype=np.uint32) for n in range(4)]
    wait = wait_lds("gfx942")
    code = f"v_mul_u32_u24_e32 v1, {stride}, v0\nv_lshrrev_b32_e32 v3, 8, v13\n{store}\n{wait}\n{load}\n{wait}"
    code += "\nv_lshlrev_b32_e32 v1, 2, v0"
    assert np.array_equal(compute("gfx942", code, *inputs, outputs=4, lds=1024), np.stack(inputs))


@pytest.mark.parametrize("bits", [8, 16])
def test_transposing_lds_load(bits: int) -> None:
    """16 lanes read a (64 / bits) x 16 matrix, row-major; lane l receives column l."""
    dtype = np.uint8 if bits == 8 else np.uint16
    matrix = np.random.default_rng(0).integers(0, 256, (4, 64 // bits, 16)).astype(dtype)
    flat = matrix.reshape(64, -1).view(np.uint32)
    code = f"""v_lshlrev_b32_e32 v1, 3, v0
    ds_write_b64 v1, v[10:11]
    s_waitcnt lgkmcnt(0)
    ds_read_b64_tr_b{bits} v[20:21], v1
    s_waitcnt lgkmcnt(0)
    v_lshlrev_b32_e32 v1, 2, v0"""
    result = compute("gfx950", code, flat[:, 0], flat[:, 1], outputs=2, lds=512)
    columns = np.ascontiguousarray(result.T).view(dtype).reshape(4, 16, 64 // bits)
    assert np.array_equal(columns, matrix.transpose(0, 2, 1))


@pytest.mark.parametrize("target", ["gfx942", "gfx1100", "gfx1201"])
def test_scratch_is_private_to_a_lane(target: str) -> None:
    dword, lanes = ("dword", 64) if target == "gfx942" else ("b32", 32)
    code = f"""scratch_store_{dword} off, v10, off offset:4
    v_mov_b32_e32 v20, 0
    scratch_load_{dword} v20, off, off offset:4
    {wait_loads(target)}"""
    assert np.array_equal(compute(target, code, LANES[:lanes] * 3, scratch=16)[0], LANES[:lanes] * 3)


def test_float_atomics_add_up() -> None:
    total, unused = np.zeros(4, np.float32), np.zeros(64, np.uint32)
    body = f"""{prologue("gfx942")}
    v_cvt_f32_u32_e32 v3, v0
    v_and_b32_e32 v2, 12, v1
    global_atomic_add_f32 v2, v3, s[4:5]"""
    run("gfx942", body, total, unused)
    assert np.array_equal(total, [sum(range(n, 64, 4)) for n in range(4)])


def test_atomics_return_the_old_value() -> None:
    counter, result = np.zeros(1, np.uint32), np.zeros(64, np.uint32)
    body = f"""{prologue("gfx942")}
    v_mov_b32_e32 v2, 0
    v_mov_b32_e32 v3, 1
    global_atomic_add v4, v2, v3, s[4:5] sc0
    s_waitcnt vmcnt(0)
    global_store_dword v1, v4, s[6:7]"""
    run("gfx942", body, counter, result)
    assert counter[0] == 64
    assert np.array_equal(np.sort(result), np.arange(64))


def test_compare_and_swap() -> None:
    values, result = np.array([5, 6], np.uint32), np.zeros(64, np.uint32)
    body = f"""{prologue("gfx942")}
    v_and_b32_e32 v2, 4, v1
    v_mov_b32_e32 v6, 9
    v_mov_b32_e32 v7, 5
    global_atomic_cmpswap v4, v2, v[6:7], s[4:5] sc0
    s_waitcnt vmcnt(0)
    global_store_dword v1, v4, s[6:7]"""
    run("gfx942", body, values, result)
    assert values.tolist() == [9, 6]
    assert result[:4].tolist() == [5, 6, 9, 6]
