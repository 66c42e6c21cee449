"""Loads, stores, atomics and variables in every state space."""

from __future__ import annotations

import ctypes
import struct

import numpy as np
import pytest
import torch
from snippets import HEADER, compute, kernel, launch

import ptx_sim

F32 = np.float32


def test_vectors_and_widths() -> None:
    body = """mad.wide.u32 %rd2, %r0, 16, %rd0; mad.wide.u32 %rd3, %r0, 16, %rd1;
ld.global.nc.L1::no_allocate.v4.u32 {%r1, _, %r3, %r4}, [%rd2];
ld.global.s8 %r5, [%rd2+4]; ld.global.u16 %rs1, [%rd2+6]; cvt.u32.u16 %r6, %rs1;
st.global.v2.b32 [%rd3], {%r4, %r3}; st.global.v2.b32 [%rd3+8], {%r5, %r6};"""
    data, out = np.random.default_rng(0).integers(0, 2**32, 128, np.uint32), np.zeros(128, np.uint32)
    launch(kernel(body, 2), data, out)
    rows = data.reshape(-1, 4)
    expected = np.stack([rows[:, 3], rows[:, 2], rows[:, 1].astype(np.int8).astype(np.uint32), rows[:, 1] >> 16], 1)
    assert out.reshape(-1, 4).tolist() == expected.tolist()


def test_buffers_of_any_alignment() -> None:
    data = np.arange(100, dtype=np.uint8)
    for begin in (0, 4, 8, 12):
        part, out = data[begin:][:64], np.zeros(16, np.uint32)
        body = """mad.wide.u32 %rd2, %r0, 4, %rd0; ld.global.u32 %r1, [%rd2];
mad.wide.u32 %rd2, %r0, 4, %rd1; st.global.u32 [%rd2], %r1;"""
        launch(kernel(body, 2), part, out, threads=16)
        assert out.tolist() == part.view(np.uint32).tolist()


def test_structures_by_value() -> None:
    text = (
        HEADER
        + """.visible .entry k(.param .align 8 .b8 s[24], .param .f32 f, .param .u16 h, .param .u64 out) {
.reg .b64 %rd<9>; .reg .b32 %r<9>; .reg .f32 %f<9>; .reg .b16 %rs<3>;
mov.b64 %rd5, s;
ld.param.u32 %r1, [%rd5+16]; ld.param.u64 %rd1, [s+8]; ld.param.f32 %f1, [f]; ld.param.u16 %rs1, [h];
ld.param.u64 %rd3, [out];
cvt.u32.u16 %r2, %rs1; ld.global.u32 %r3, [%rd1];
st.global.v4.u32 [%rd3], {%r1, %r2, %r3, 77}; st.global.f32 [%rd3+16], %f1; ret; }"""
    )
    word, out = np.array([123], np.uint32), np.zeros(5, np.uint32)

    class Arguments(ctypes.Structure):
        _fields_ = [("a", ctypes.c_uint64), ("p", ctypes.c_uint64), ("n", ctypes.c_int32)]

    memory = ptx_sim.GlobalMemory()
    memory.add_array(word, "word")
    for value in (Arguments(1, word.ctypes.data, -5), struct.pack("<QQixxxx", 1, word.ctypes.data, -5)):
        ptx_sim.load(text).kernel("k").launch((1,), (1,), 0, [value, 1.5, 9, out], memory=memory)
        assert out.tolist() == [2**32 - 5, 9, 123, 77, struct.unpack("<I", struct.pack("<f", 1.5))[0]]


def test_tensors_are_used_in_place() -> None:
    tensor = torch.zeros(40)
    launch(kernel("mov.f32 %f1, 0f40400000; mad.wide.u32 %rd1, %r0, 4, %rd0; st.global.f32 [%rd1], %f1;"), tensor[4:])
    assert tensor.tolist() == [0.0] * 4 + [3.0] * 32 + [0.0] * 4


def test_module_variables() -> None:
    declarations = """.global .align 4 .u32 counter = 5;
.const .align 4 .f32 table[4] = {0f3F800000, 0f40000000, 0f40400000, 1};
.global .align 1 .b8 text[3] = {97, 98, 99};"""
    body = """atom.global.add.u32 %r1, [counter], 1;
mov.u64 %rd1, table; mad.wide.u32 %rd1, 2, 4, %rd1; ld.const.f32 %f1, [%rd1];
ld.global.u8 %r2, [text+1]; cvt.rzi.u32.f32 %r3, %f1;
st.global.v2.u32 [%rd0], {%r2, %r3};"""
    module, out = ptx_sim.load(kernel(body, 1, declarations.replace("1};", "0f3F800000};"))), np.zeros(2, np.uint32)
    for launches in (1, 2):
        module.kernel("k").launch((1,), (32,), 0, [out])
        assert out.tolist() == [98, 3]
        assert module.variables["counter"].view(np.uint32)[0] == 5 + 32 * launches


def test_generic_addresses_reach_every_space() -> None:
    declarations = ".shared .align 4 .b8 tile[128];"
    body = """.local .align 4 .b8 stack[8];
.reg .b64 %SP;
mov.u64 %rd1, tile; cvta.shared.u64 %rd1, %rd1; mad.wide.u32 %rd1, %r0, 4, %rd1;
mov.u64 %rd2, stack; cvta.local.u64 %SP, %rd2; cvta.global.u64 %rd3, %rd0; mad.wide.u32 %rd3, %r0, 4, %rd3;
add.u32 %r1, %r0, 7; st.u32 [%rd1], %r1; ld.u32 %r2, [%rd1];
st.u32 [%SP+4], %r2; ld.local.u32 %r3, [%rd2+4];
isspacep.shared %p1, %rd1; isspacep.global %p2, %rd1; selp.u32 %r4, 100, 0, %p1; selp.u32 %r5, 1000, 0, %p2;
add.u32 %r3, %r3, %r4; add.u32 %r3, %r3, %r5;
cvta.to.shared.u64 %rd5, %rd1; cvt.u32.u64 %r6, %rd5; ld.shared.u32 %r7, [%r6]; sub.u32 %r7, %r7, %r1;
add.u32 %r3, %r3, %r7;
st.u32 [%rd3], %r3;"""
    out = np.zeros(32, np.uint32)
    launch(kernel(body, 1, declarations), out)
    assert out.tolist() == [107 + n for n in range(32)]


def test_static_and_dynamic_shared_memory() -> None:
    declarations = ".shared .align 4 .b8 first[20];\n.extern .shared .align 128 .b8 dynamic[];"
    body = "mov.u32 %r1, first; mov.u32 %r2, dynamic; st.global.v2.u32 [%rd0], {%r1, %r2}; st.shared.u32 [%r2+60], %r1;"
    out = np.zeros(2, np.uint32)
    launch(kernel(body, 1, declarations), out, shared_bytes=64)
    assert out.tolist() == [0, 128]
    with pytest.raises(ptx_sim.OutOfBoundsError, match="of 188 bytes of shared memory"):
        launch(kernel(body, 1, declarations), out, shared_bytes=60)


@pytest.mark.parametrize("space", ["global", "shared"])
def test_atomics_serve_every_thread(space: str) -> None:
    base = "%rd0" if space == "global" else "%r30"
    body = f"""mov.u32 %r30, cells; mov.f32 %f1, 0f3F000000;
setp.eq.u32 %p1, %r0, 0; mov.u32 %r20, 0;
@%p1 st.{space}.u32 [{base}], %r20; @%p1 st.{space}.u32 [{base}+4], %r20; @%p1 st.{space}.u32 [{base}+8], %r20;
@%p1 st.{space}.u32 [{base}+12], %r20; @%p1 st.{space}.u32 [{base}+16], %r20;
bar.sync 0;
atom.{space}.add.u32 %r1, [{base}], 3;
red.{space}.add.f32 [{base}+4], %f1;
atom.{space}.max.u32 %r2, [{base}+8], %r0;
atom.{space}.exch.b32 %r3, [{base}+12], %r0;
atom.{space}.cas.b32 %r4, [{base}+16], %r0, 5;
bar.sync 0;
ld.{space}.u32 %r10, [{base}]; ld.{space}.u32 %r11, [{base}+4]; ld.{space}.u32 %r12, [{base}+8];
ld.{space}.u32 %r13, [{base}+12];
ld.{space}.u32 %r14, [{base}+16];
mad.wide.u32 %rd3, %r0, 32, %rd1; st.global.v4.u32 [%rd3], {{%r10, %r11, %r12, %r13}};
st.global.v2.u32 [%rd3+16], {{%r14, %r1}};"""
    cells, out = np.zeros(8, np.uint32), np.zeros((64, 8), np.uint32)
    launch(kernel(body, 2, ".shared .align 16 .b8 cells[32];"), cells, out, threads=64)
    assert out[:, 0].tolist() == [192] * 64
    assert out[:, 1].view(F32).tolist() == [32.0] * 64
    assert out[0, 2] == 63
    assert out[0, 4] == 5
    assert sorted(out[:, 5].tolist()) == [3 * n for n in range(64)]


def test_packed_atomics_round_each_half() -> None:
    cells = np.zeros(2, np.float16)
    launch(kernel("mov.u32 %r1, 0x3C003800; red.global.add.noftz.f16x2 [%rd0], %r1;"), cells)
    assert cells.tolist() == [16.0, 32.0]


def test_fences_and_hints_change_nothing() -> None:
    body = "membar.gl; fence.acq_rel.gpu; prefetch.global.L2 [%rd0]; mov.u32 %d0, %x0;"
    assert compute(body.replace("[%rd0]", "[%rd20]"), "u4", np.arange(4, dtype=np.uint32)).tolist() == [0, 1, 2, 3]
