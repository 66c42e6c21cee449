"""Every check finds the mistake that is planted for it, and passes the kernel without it."""

from __future__ import annotations

import numpy as np
import pytest
from snippets import HEADER, kernel, launch

import ptx_sim

TILE = ".shared .align 16 .b8 tile[1024];"
# thread n of two warps writes word n and reads word n ^ 32, which the other warp wrote
EXCHANGE = """mov.u32 %r1, tile; mad.lo.u32 %r2, %r0, 4, %r1; xor.b32 %r3, %r0, 32; mad.lo.u32 %r4, %r3, 4, %r1;
st.shared.u32 [%r2], %r0;
{first}
ld.shared.u32 %r5, [%r4];
{second}
st.shared.u32 [%r2], %r5;
mad.wide.u32 %rd1, %r0, 4, %rd0; st.global.u32 [%rd1], %r5;"""


def test_bounds_name_the_buffer_the_line_and_the_thread() -> None:
    body = "mad.wide.u32 %rd1, %r0, 4, %rd0; ld.global.u32 %r1, [%rd1];"
    launch(kernel(body), np.zeros(32, np.uint32))
    with pytest.raises(ptx_sim.OutOfBoundsError) as error:
        launch(kernel(body), np.zeros(31, np.uint32))
    message = str(error.value)
    assert "global load of 4 bytes" in message
    assert "0 bytes past the end of argument 0 of 124 bytes" in message
    assert "ld.global.u32 %r1, [%rd1]" in message
    assert "block (0, 0, 0), thread 31" in message


def test_read_only_memory() -> None:
    data = np.zeros(32, np.uint32)
    data.flags.writeable = False
    with pytest.raises(ptx_sim.OutOfBoundsError, match="read-only"):
        launch(kernel("mad.wide.u32 %rd1, %r0, 4, %rd0; st.global.u32 [%rd1], %r0;"), data)


def test_alignment() -> None:
    body = "add.u64 %rd1, %rd0, 4; ld.global.v2.u32 {%r1, %r2}, [%rd1];"
    data = np.zeros(64, np.uint64).view(np.uint32)
    with pytest.raises(ptx_sim.MisalignedError, match="global load of 8 bytes"):
        launch(kernel(body), data)
    with pytest.raises(ptx_sim.MisalignedError, match=r"shared store of 4 bytes.*not a multiple of 4"):
        launch(kernel("mov.u32 %r1, tile; st.shared.u32 [%r1+2], %r0;", 1, TILE), None)


def test_local_memory_is_bounded() -> None:
    body = ".local .align 4 .b8 stack[8]; mov.u64 %rd1, stack; st.local.u32 [%rd1+{}], %r0;"
    launch(kernel(body.format(4)), None)
    with pytest.raises(ptx_sim.OutOfBoundsError, match="local store"):
        launch(kernel(body.format(8)), None)


def test_what_nothing_wrote_is_poison() -> None:
    out = np.zeros((3, 32), np.float32)
    body = """mov.u32 %r1, tile; ld.shared.f32 %f1, [%r1]; mad.wide.u32 %rd1, %r0, 4, %rd0;
st.global.f32 [%rd1], %f1; st.global.f32 [%rd1+128], %f7; ld.local.f32 %f2, [stack]; st.global.f32 [%rd1+256], %f2;"""
    launch(kernel(".local .align 4 .b8 stack[8];" + body, 1, TILE), out)
    assert np.isnan(out).all()


def test_races_between_warps() -> None:
    out = np.zeros(64, np.uint32)
    launch(kernel(EXCHANGE.format(first="bar.sync 0;", second="bar.sync 0;"), 1, TILE), out, threads=64)
    assert out.tolist() == [n ^ 32 for n in range(64)]
    with pytest.raises(ptx_sim.SharedRaceError, match=r"shared load .* warp 1"):
        launch(kernel(EXCHANGE.format(first="", second="bar.sync 0;"), 1, TILE), out, threads=64)
    with pytest.raises(ptx_sim.SharedRaceError, match="shared store"):
        launch(kernel(EXCHANGE.format(first="bar.sync 0;", second=""), 1, TILE), out, threads=64)
    launch(kernel(EXCHANGE.format(first="", second=""), 1, TILE), out, threads=64, check_races=False)


def test_a_barrier_of_other_warps_orders_nothing() -> None:
    only_two = "setp.lt.u32 %p1, %r0, 64; @%p1 bar.sync 1, 64;"
    body = EXCHANGE.replace("xor.b32 %r3, %r0, 32", "xor.b32 %r3, %r0, {other}")
    out = np.zeros(128, np.uint32)
    with pytest.raises(ptx_sim.SharedRaceError):
        launch(kernel(body.format(first=only_two, second="bar.sync 0;", other=64), 1, TILE), out, threads=128)
    four = "bar.sync 2, 128;"
    launch(kernel(body.format(first=four, second="bar.sync 0;", other=64), 1, TILE), out, threads=128)
    assert out.tolist() == [n ^ 64 for n in range(128)]


def test_arriving_orders_the_waiting_warp() -> None:
    body = """mov.u32 %r1, tile; mad.lo.u32 %r2, %r0, 4, %r1; setp.lt.u32 %p1, %r0, 32;
@!%p1 bra CONSUMER;
st.shared.u32 [%r2], %r0;
bar.arrive 3, 64;
bra END;
CONSUMER:
{wait}
ld.shared.u32 %r3, [%r2+-128];
mad.wide.u32 %rd1, %r0, 4, %rd0; st.global.u32 [%rd1], %r3;
END:"""
    out = np.zeros(64, np.uint32)
    launch(kernel(body.format(wait="bar.sync 3, 64;"), 1, TILE), out, threads=64)
    assert out[32:].tolist() == list(range(32))
    with pytest.raises(ptx_sim.SharedRaceError):
        launch(kernel(body.format(wait=""), 1, TILE), out, threads=64)


@pytest.mark.parametrize(
    ("action", "expected"), [("popc.u32 %r5, 0, ", 20), ("or.pred %p3, 0, ", 1), ("and.pred %p3, 0, ", 0)]
)
def test_barriers_reduce(action: str, expected: int) -> None:
    store = "" if "popc" in action else "selp.u32 %r5, 1, 0, %p3;"
    body = f"""setp.lt.u32 %p1, %r0, 20; bar.red.{action} %p1; {store}
mad.wide.u32 %rd1, %r0, 4, %rd0; st.global.u32 [%rd1], %r5;"""
    out = np.zeros(64, np.uint32)
    launch(kernel(body), out, threads=64)
    assert out.tolist() == [expected] * 64


def test_deadlock_names_who_waits() -> None:
    body = "setp.lt.u32 %p1, %r0, 32; @%p1 bar.sync 1, 64;"
    with pytest.raises(ptx_sim.DeadlockError, match=r"warps \[0\] at barrier 1 of 64 threads"):
        launch(kernel(body), None, threads=64)


def test_a_barrier_by_a_part_of_a_warp() -> None:
    with pytest.raises(ptx_sim.DivergenceError, match="5 of the 32"):
        launch(kernel("setp.lt.u32 %p1, %r0, 5; @%p1 bar.sync 0;"), None)


COPY = """mov.u32 %r1, tile; mad.lo.u32 %r2, %r0, 16, %r1;
mad.wide.u32 %rd2, %r0, 16, %rd0; mad.wide.u32 %rd3, %r0, 16, %rd1;
cp.async.cg.shared.global [%r2], [%rd2], 16;
cp.async.commit_group;
{middle}
ld.shared.v4.u32 {{%r3, %r4, %r5, %r6}}, [%r2];
st.global.v4.u32 [%rd3], {{%r3, %r4, %r5, %r6}};"""


def _copied(middle: str) -> bool:
    data, out = np.arange(128, dtype=np.uint32), np.zeros(128, np.uint32)
    launch(kernel(COPY.format(middle=middle), 2, TILE), data, out)
    return bool((out == data).all())


def test_copies_arrive_when_waited_for() -> None:
    assert _copied("cp.async.wait_group 0;")
    assert _copied("cp.async.wait_all;")
    assert _copied("cp.async.commit_group; cp.async.commit_group; cp.async.wait_group 2;")
    for middle in ("", "cp.async.wait_group 1;", "bar.sync 0;"):
        with pytest.raises(ptx_sim.MissingWaitError, match="shared load"):
            _copied(middle)
    with pytest.raises(ptx_sim.MissingWaitError, match="shared store"):
        _copied("st.shared.u32 [%r2], %r0; cp.async.wait_all;")


def test_waiting_orders_nobody_else() -> None:
    body = COPY.replace("%r0, 16, %r1;", "%r0, 16, %r1; xor.b32 %r9, %r0, 32; mad.lo.u32 %r8, %r9, 16, %r1;").replace(
        "{{%r3, %r4, %r5, %r6}}, [%r2]", "{{%r3, %r4, %r5, %r6}}, [%r8]"
    )
    data, out = np.arange(256, dtype=np.uint32), np.zeros(256, np.uint32)
    launch(kernel(body.format(middle="cp.async.wait_all; bar.sync 0;"), 2, TILE), data, out, threads=64)
    assert out.reshape(2, 128)[::-1].reshape(-1).tolist() == data.tolist()
    with pytest.raises(ptx_sim.SharedRaceError):
        launch(kernel(body.format(middle="cp.async.wait_all;"), 2, TILE), data, out, threads=64)


def test_copies_fill_with_zeros_and_read_nothing_beyond() -> None:
    body = """mov.u32 %r1, tile; mad.lo.u32 %r2, %r0, 16, %r1;
mad.wide.u32 %rd2, %r0, 16, %rd0; mad.wide.u32 %rd3, %r0, 16, %rd1;
setp.lt.u32 %p1, %r0, 5; selp.u32 %r7, 16, 0, %p1; setp.eq.u32 %p2, %r0, 5; selp.u32 %r7, 8, %r7, %p2;
cp.async.cg.shared.global.L2::128B [%r2], [%rd2], 16, %r7; cp.async.wait_all;
ld.shared.v4.u32 {%r3, %r4, %r5, %r6}, [%r2]; st.global.v4.u32 [%rd3], {%r3, %r4, %r5, %r6};"""
    data, out = np.arange(1, 23, dtype=np.uint32), np.full(128, 9, np.uint32)
    launch(kernel(body, 2, TILE), data, out)
    assert out.tolist() == [*data.tolist(), *[0] * 106]


def test_what_is_not_modelled_is_refused_with_its_text() -> None:
    for line, why in {
        "frobnicate.u32 %r1, %r2;": "unknown instruction",
        "add.frob.u32 %r1, %r2, %r3;": "modifier .frob",
        "mov.u32 %r1, %smid.w;": "cannot read",
        "wmma.load.a.sync.aligned.row.m16n16k16.f16 {%r1}, [%rd0];": "unknown instruction",
        "mul.wide.s32 %r1, %r2, %r3;": "narrower",
        "add.u32 %r1, %undeclared, 1;": "not declared",
    }.items():
        with pytest.raises(ptx_sim.PtxError, match=why) as error:
            launch(kernel(line), None)
        assert f"`{line.rstrip(';')}`" in str(error.value)


def test_launches_must_fit_the_kernel() -> None:
    module = ptx_sim.load(kernel("", 1, directives=".maxntid 64, 1, 1"))
    with pytest.raises(ptx_sim.LaunchError, match="maxntid"):
        module.kernel("k").launch((1,), (65,), 0, [None])
    with pytest.raises(ptx_sim.LaunchError, match="2 arguments for the 1"):
        module.kernel("k").launch((1,), (64,), 0, [None, None])
    with pytest.raises(ptx_sim.LaunchError, match="bytes given"):
        module.kernel("k").launch((1,), (64,), 0, [b"123"])
    with pytest.raises(ptx_sim.LaunchError, match="does not fit"):
        module.kernel("k").launch((1,), (64,), 0, [1 << 64])
    with pytest.raises(ptx_sim.PtxSyntaxError, match="no kernel absent; the module has k"):
        module.kernel("absent")
    with pytest.raises(ptx_sim.PtxSyntaxError, match="not declared"):
        ptx_sim.load(HEADER + ".visible .entry k() { mov.u32 %%; }").kernel("k")


def test_counts() -> None:
    body = "mad.wide.u32 %rd1, %r0, 4, %rd0; ld.global.u32 %r1, [%rd1]; add.u32 %r1, %r1, 1; st.global.u32 [%rd1], %r1;"
    report = launch(kernel(body), np.zeros(64, np.uint32), threads=64, blocks=3)
    assert report.by_category() == {"alu": 18, "param_load": 6, "global_load": 6, "global_store": 6, "branch": 6}
    assert report.instructions == 42
    assert report.thread_blocks == 3
    assert "42 warp-instructions" in str(report)
