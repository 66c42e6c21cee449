"""Divergence: branches, loops, tables and returns, and that the threads of a warp come together again."""

from __future__ import annotations

import numpy as np
import pytest
from snippets import compute, kernel, launch

import ptx_sim

VALUES = np.arange(64, dtype=np.uint32)
WHOLE_WARP = "shfl.sync.idx.b32 %r50, %x0, 0, 31, 0xffffffff;"


def test_both_sides_of_a_branch_meet_behind_it() -> None:
    body = f"""and.b32 %r1, %x0, 1; setp.eq.u32 %p1, %r1, 0;
@%p1 bra EVEN;
mul.lo.u32 %d0, %x0, 3;
bra.uni MEET;
EVEN: add.u32 %d0, %x0, 1000;
MEET: {WHOLE_WARP}"""
    assert compute(body, "u4", VALUES).tolist() == [v + 1000 if v % 2 == 0 else 3 * v for v in range(64)]


def test_a_loop_of_different_lengths() -> None:
    body = f"""mov.u32 %r1, 0; mov.u32 %d0, 0;
LOOP: setp.ge.u32 %p1, %r1, %x0;
@%p1 bra DONE;
add.u32 %d0, %d0, %r1; add.u32 %r1, %r1, 1;
bra.uni LOOP;
DONE: {WHOLE_WARP}"""
    assert compute(body, "u4", VALUES).tolist() == [v * (v - 1) // 2 for v in range(64)]


def test_whoever_continues_early_waits_for_the_others() -> None:
    body = f"""mov.u32 %r1, 0; mov.u32 %d0, 0;
LOOP: {WHOLE_WARP}
add.u32 %r1, %r1, 1;
setp.ge.u32 %p2, %r1, 6;
@%p2 bra DONE;
xor.b32 %r2, %r1, %x0; and.b32 %r2, %r2, 1; setp.eq.u32 %p1, %r2, 0;
@%p1 bra LOOP;
add.u32 %d0, %d0, 1;
bra.uni LOOP;
DONE: {WHOLE_WARP}"""
    assert compute(body, "u4", VALUES).tolist() == [sum((i ^ v) & 1 for i in range(1, 6)) for v in range(64)]


def test_nested_loops() -> None:
    body = f"""mov.u32 %r1, 0; mov.u32 %d0, 0; and.b32 %r9, %x0, 7;
OUTER: mov.u32 %r2, 0;
INNER: setp.ge.u32 %p1, %r2, %r1; @%p1 bra NEXT;
add.u32 %d0, %d0, 1; add.u32 %r2, %r2, 1; bra.uni INNER;
NEXT: {WHOLE_WARP}
add.u32 %r1, %r1, 1; setp.lt.u32 %p2, %r1, 5; @%p2 bra OUTER;
setp.eq.u32 %p3, %r9, 3; @%p3 add.u32 %d0, %d0, 100;"""
    assert compute(body, "u4", VALUES).tolist() == [10 + 100 * (v % 8 == 3) for v in range(64)]


def test_jump_table() -> None:
    body = f"""and.b32 %r1, %x0, 3;
TABLE: .branchtargets A, B, C, A;
brx.idx %r1, TABLE;
A: mov.u32 %d0, 10; bra END;
B: mov.u32 %d0, 20; bra END;
C: mov.u32 %d0, 30;
END: {WHOLE_WARP}"""
    assert compute(body, "u4", VALUES).tolist() == [[10, 20, 30, 10][v % 4] for v in range(64)]


def test_scopes_have_names_of_their_own() -> None:
    body = """mov.u32 %d0, 1;
{ .reg .pred p; .reg .u32 t; setp.lt.u32 p, %x0, 5; mov.u32 t, 7; @!p bra SKIP; add.u32 %d0, %d0, t; SKIP: }
{ .reg .pred p; .reg .u32 t; setp.gt.u32 p, %x0, 60; mov.u32 t, 9; @!p bra SKIP; add.u32 %d0, %d0, t; SKIP: }"""
    assert compute(body, "u4", VALUES).tolist() == [1 + 7 * (v < 5) + 9 * (v > 60) for v in range(64)]


def test_threads_that_end_are_not_waited_for() -> None:
    body = """setp.ge.u32 %p1, %r0, 32;
@%p1 exit;
bar.sync 0;
mov.u32 %r1, 1; mad.wide.u32 %rd1, %r0, 4, %rd0; st.global.u32 [%rd1], %r1;"""
    out = np.zeros(64, np.uint32)
    launch(kernel(body), out, threads=64)
    assert out.tolist() == [1] * 32 + [0] * 32


def test_blocks_and_threads_of_three_dimensions() -> None:
    body = """mov.u32 %r1, %tid.x; mov.u32 %r2, %tid.y; mov.u32 %r3, %tid.z;
mov.u32 %r4, %ctaid.x; mov.u32 %r5, %ctaid.y; mov.u32 %r6, %ctaid.z;
mov.u32 %r7, %ntid.x; mov.u32 %r8, %ntid.y; mov.u32 %r9, %nctaid.x; mov.u32 %r10, %nctaid.y; mov.u32 %r21, %ntid.z;
mad.lo.u32 %r11, %r3, %r8, %r2; mad.lo.u32 %r11, %r11, %r7, %r1;
mad.lo.u32 %r12, %r6, %r10, %r5; mad.lo.u32 %r12, %r12, %r9, %r4;
mul.lo.u32 %r13, %r7, %r8; mul.lo.u32 %r13, %r13, %r21;
mad.lo.u32 %r14, %r12, %r13, %r11; mad.wide.u32 %rd1, %r14, 4, %rd0; st.global.u32 [%rd1], %r14;"""
    out = np.zeros(24 * 30, np.uint32)
    ptx_sim.load(kernel(body)).kernel("k").launch((4, 3, 2), (5, 3, 2), 0, [out])
    assert out.tolist() == list(range(24 * 30))


def test_a_kernel_that_never_ends_is_stopped() -> None:
    with pytest.raises(ptx_sim.DeadlockError, match="budget"):
        launch(kernel("LOOP: bra LOOP;"), None, max_instructions=1000)


def test_trap_and_calls() -> None:
    with pytest.raises(ptx_sim.KernelError, match="trapped"):
        launch(kernel("setp.eq.u32 %p1, %r0, 3; @%p1 trap;"), None)


def test_waiting_in_a_loop_for_another_warp() -> None:
    body = """mov.u32 %r1, flag; setp.ge.u32 %p1, %r0, 32; @%p1 bra SET;
SPIN: ld.volatile.global.u32 %r2, [%rd0]; setp.eq.u32 %p2, %r2, 0; @%p2 bra SPIN;
bra END;
SET: mov.u32 %r3, 1; st.volatile.global.u32 [%rd0], %r3;
END:"""
    out = np.zeros(1, np.uint32)
    launch(kernel(body, 1, ".shared .u32 flag;"), out, threads=64)
    assert out[0] == 1
