"""wgmma, TMA and mbarriers against the PTX manual's layouts, written out element by element; and planted mistakes."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from snippets import HEADER, Array

import ptx_sim
from ptx_sim.tensor_maps import TensorMap

FORMATS = {
    "f16": np.dtype("f2"),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "e4m3": np.dtype(ml_dtypes.float8_e4m3fn),
    "e5m2": np.dtype(ml_dtypes.float8_e5m2),
}
SWIZZLES = {0: 0, 128: 1, 64: 2, 32: 3}


def _swizzled(address: int, width: int) -> int:
    """Bits 4 to 6 of an address (fewer for narrower swizzles) are exchanged with bits 7 to 9 by exclusive or."""
    return address ^ ((address >> 7) % max(width // 16, 1) << 4)


def _place(mn: int, k: int, size: int, width: int, across: bool, leading: int, stride: int) -> int:
    """Byte of an element of a wgmma operand behind its start, before the swizzle (the manual's canonical layouts)."""
    if not width:
        width = 16
        if across:
            return mn // 8 * stride + mn % 8 * 2 + k // 8 * leading + k % 8 * 16
        return mn // 8 * stride + mn % 8 * 16 + k * size // 16 * leading + k * size % 16
    if across:
        span = width // 2
        return mn // span * leading + mn % span * 2 + k // 8 * stride + k % 8 * width
    return mn // 8 * stride + mn % 8 * width + k * size


def _image(matrix: Array, width: int, across: bool, leading: int, stride: int) -> Array:
    """Shared memory with the operand ``matrix`` (mn, k) at its beginning."""
    size = matrix.itemsize
    image = np.zeros(16384, np.uint8)
    for mn in range(matrix.shape[0]):
        for k in range(matrix.shape[1]):
            place = _swizzled(_place(mn, k, size, width, across, leading, stride), width)
            image[place : place + size] = matrix[mn, k : k + 1].view(np.uint8)
    return image


def _descriptor(start: int, width: int, leading: int, stride: int) -> int:
    return start >> 4 | leading >> 4 << 16 | stride >> 4 << 32 | SWIZZLES[width] << 62


def _product(
    instruction: str, constants: str, n: int, a: Array, b: Array, descriptors: tuple[int, int], start: Array
) -> Array:
    """The accumulators (64, n) of a product of the images ``a`` and ``b``, from ``start`` on."""
    count = n // 2
    results = [f"%acc{i}" for i in range(count)]
    loads = "\n".join(f"ld.global.f32 {name}, [%rd9+{4 * i}];" for i, name in enumerate(results))
    stores = "\n".join(f"st.global.f32 [%rd9+{4 * i}], {name};" for i, name in enumerate(results))
    text = f"""{HEADER}.shared .align 1024 .b8 tile[32768];
.visible .entry k(.param .u64 a, .param .u64 b, .param .u64 d) {{
.reg .f32 %acc<{count}>; .reg .b64 %rd<20>; .reg .b32 %r<20>; .reg .pred %p<5>;
ld.param.u64 %rd0, [a]; ld.param.u64 %rd1, [b]; ld.param.u64 %rd2, [d];
mov.u32 %r0, %tid.x; mov.u32 %r1, 0; mov.u32 %r5, tile;
COPY: mad.lo.u32 %r2, %r1, 128, %r0; mul.lo.u32 %r2, %r2, 16; cvt.u64.u32 %rd3, %r2; add.u32 %r6, %r5, %r2;
add.u64 %rd4, %rd0, %rd3;
ld.global.v4.u32 {{%r7, %r8, %r9, %r10}}, [%rd4]; st.shared.v4.u32 [%r6], {{%r7, %r8, %r9, %r10}};
add.u64 %rd4, %rd1, %rd3; ld.global.v4.u32 {{%r7, %r8, %r9, %r10}}, [%rd4];
st.shared.v4.u32 [%r6+16384], {{%r7, %r8, %r9, %r10}};
add.u32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, 8; @%p1 bra COPY;
fence.proxy.async; bar.sync 0;
mad.wide.u32 %rd9, %r0, {4 * count}, %rd2;
{loads}
mov.b64 %rd5, {descriptors[0]}; mov.b64 %rd6, {descriptors[1]}; setp.ne.b32 %p2, 1, 0;
wgmma.fence.sync.aligned;
{instruction} {{{", ".join(results)}}}, %rd5, %rd6, %p2, {constants};
wgmma.commit_group.sync.aligned;
wgmma.wait_group.sync.aligned 0;
{stores}
ret; }}"""
    held = np.zeros((128, count), np.float32)
    for thread in range(128):
        for i in range(count):
            held[thread, i] = start[_row(thread, i), _column(thread, i)]
    ptx_sim.load(text).kernel("k").launch((1,), (128,), 0, [a, b, held])
    result = np.zeros((64, n), np.float32)
    for thread in range(128):
        for i in range(count):
            result[_row(thread, i), _column(thread, i)] = held[thread, i]
    return result


def _row(thread: int, i: int) -> int:
    return 16 * (thread // 32) + thread % 32 // 4 + 8 * (i // 2 % 2)


def _column(thread: int, i: int) -> int:
    return 8 * (i // 4) + 2 * (thread % 4) + i % 2


# 8-bit types have no transposed layout
LAYOUTS = [(kind, across) for kind, dtype in FORMATS.items() for across in (False, True)[: dtype.itemsize]]


@pytest.mark.parametrize(("kind", "across"), LAYOUTS)
@pytest.mark.parametrize("width", SWIZZLES)
def test_products_of_warpgroups(kind: str, width: int, across: bool) -> None:
    dtype = FORMATS[kind]
    n, k = 24 if not across else 64, 32 // dtype.itemsize
    generator = np.random.default_rng(0)
    a, b = (generator.integers(-4, 5, (rows, k)).astype(dtype) for rows in (64, n))
    start = generator.integers(-9, 10, (64, n)).astype(np.float32)
    leading, stride = (2048, 1024) if width else (128, 256)
    if across and width:
        leading, stride = 16 * width, 8 * width
    elif across:
        leading, stride = 1024, 128
    images = [_image(matrix, width, across, leading, stride) for matrix in (a, b)]
    descriptors = _descriptor(0, width, leading, stride), _descriptor(16384, width, leading, stride)
    constants = f"1, 1, {int(across)}, {int(across)}" if dtype.itemsize == 2 else "1, 1"
    result = _product(
        f"wgmma.mma_async.sync.aligned.m64n{n}k{k}.f32.{kind}.{kind}",
        constants,
        n,
        images[0],
        images[1],
        descriptors,
        start,
    )
    expected = a.astype(np.float64) @ b.astype(np.float64).T + start
    assert result.tolist() == expected.tolist()


TMA = """{header}.shared .align 1024 .b8 tile[{size}];
.shared .align 8 .b8 bar[8];
.visible .entry k(.param .align 64 .b8 map[128], .param .u64 out) {{
.reg .b64 %rd<20>; .reg .b32 %r<20>; .reg .pred %p<5>;
ld.param.u64 %rd0, [out]; mov.b64 %rd1, map; cvta.param.u64 %rd2, %rd1;
mov.u32 %r0, %tid.x; mov.u32 %r5, tile; mov.u32 %r6, bar;
setp.ne.u32 %p1, %r0, 0;
@%p1 bra READY;
mbarrier.init.shared::cta.b64 [%r6], {count};
fence.mbarrier_init.release.cluster;
READY: bar.sync 0;
@%p1 bra WAIT;
mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r6], {bytes};
cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r5], [%rd2, {{{x}, {y}}}], [%r6];
WAIT:
{wait}
mov.u32 %r1, %r0;
OUT: shl.b32 %r2, %r1, 2; add.u32 %r3, %r5, %r2; ld.shared.u32 %r4, [%r3];
cvt.u64.u32 %rd3, %r2; add.u64 %rd3, %rd0, %rd3; st.global.u32 [%rd3], %r4;
add.u32 %r1, %r1, 64; setp.lt.u32 %p3, %r1, {words}; @%p3 bra OUT;
ret; }}"""
TRY_WAIT = """mov.u32 %r9, 0;
LAB_WAIT: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r6], %r9;
@%p2 bra DONE;
bra LAB_WAIT;
DONE:"""
TEST_WAIT = TRY_WAIT.replace("try_wait", "test_wait")


def _loaded(x: int, y: int, width: int, **changes: Any) -> tuple[Array, Array]:
    """(shared memory after a transfer of a box of 8 rows at (x, y), what the manual's layout makes of it)."""
    tensor = np.arange(20 * 72, dtype=np.uint16).reshape(20, 72)
    columns = (width or 64) // 2
    descriptor = TensorMap(tensor.ctypes.data, 2, [70, 20], [144], [columns, 8], width)
    size = 16 * columns
    settings = {"bytes": size, "wait": TRY_WAIT, "count": 1, **changes}
    text = TMA.format(header=HEADER, size=size, words=size // 4, x=x, y=y, **settings)
    memory, out = ptx_sim.GlobalMemory(), np.zeros(size, np.uint8)
    memory.add_array(tensor, "tensor")
    ptx_sim.load(text).kernel("k").launch((1,), (64,), 0, [descriptor.pack(), out], memory=memory)
    expected = np.zeros(size, np.uint8)
    for row in range(8):
        for column in range(columns):
            inside = 0 <= y + row < 20 and 0 <= x + column < 70
            place = _swizzled((row * columns + column) * 2, width)
            expected[place : place + 2] = (
                tensor[y + row, x + column : x + column + 1] if inside else np.zeros(1, "u2")
            ).view("u1")
    return out, expected


@pytest.mark.parametrize("width", SWIZZLES)
@pytest.mark.parametrize(("x", "y"), [(0, 0), (8, 5), (56, 17), (64, -3), (0, 30)])
@pytest.mark.parametrize("wait", [TRY_WAIT, TEST_WAIT], ids=["try_wait", "test_wait"])
def test_boxes_are_swizzled_and_filled_with_zeros(x: int, y: int, width: int, wait: str) -> None:
    out, expected = _loaded(x, y, width, wait=wait)
    assert out.tolist() == expected.tolist()


def test_reading_without_waiting() -> None:
    with pytest.raises(ptx_sim.MissingWaitError, match="still in flight"):
        _loaded(0, 0, 128, wait="")
    # one warp waits and the other does not
    with pytest.raises(ptx_sim.KernelError, match=r"still in flight|nothing that orders"):
        _loaded(0, 0, 128, wait="setp.lt.u32 %p4, %r0, 32; @%p4 bra DONE;" + TRY_WAIT)


def test_a_wrong_number_of_bytes() -> None:
    with pytest.raises(ptx_sim.KernelError, match="a transfer of 1024 bytes arrives"):
        _loaded(0, 0, 128, bytes=1000)
    with pytest.raises(ptx_sim.DeadlockError, match=r"lacks .* and 8 bytes"):
        _loaded(0, 0, 128, bytes=1032)


def test_an_arrival_that_never_comes() -> None:
    with pytest.raises(ptx_sim.DeadlockError, match=r"warps \[0, 1\] .* lacks 1 of 2 arrivals"):
        _loaded(0, 0, 128, count=2)
    with pytest.raises(ptx_sim.DeadlockError):
        _loaded(0, 0, 128, count=2, wait=TEST_WAIT)


PHASES = """{header}.shared .align 8 .b8 full[8];
.shared .align 8 .b8 empty[8];
.shared .align 4 .b8 cell[4];
.visible .entry k(.param .u64 out) {{
.reg .b64 %rd<9>; .reg .b32 %r<20>; .reg .pred %p<5>;
ld.param.u64 %rd0, [out]; mov.u32 %r0, %tid.x; mov.u32 %r1, full; mov.u32 %r2, empty; mov.u32 %r3, cell;
setp.ne.u32 %p1, %r0, 0; @%p1 bra READY;
mbarrier.init.shared.b64 [%r1], 1; mbarrier.init.shared.b64 [%r2], 32;
READY: bar.sync 0; mov.u32 %r4, 0; mov.u32 %r5, 0;
setp.ge.u32 %p2, %r0, 32; @%p2 bra CONSUMER;
@%p1 bra END;
PRODUCER: xor.b32 %r6, %r5, 1;
{{ .reg .pred ok; AGAIN: mbarrier.try_wait.parity.shared::cta.b64 ok, [%r2], %r6; @ok bra GO; bra AGAIN; GO: }}
mul.lo.u32 %r7, %r4, 10; st.shared.u32 [%r3], %r7;
mbarrier.arrive.shared::cta.b64 _, [%r1];
add.u32 %r4, %r4, 1; xor.b32 %r5, %r5, 1; setp.lt.u32 %p3, %r4, 6; @%p3 bra PRODUCER;
bra END;
CONSUMER:
{{ .reg .pred ok; AGAIN: mbarrier.try_wait.parity.shared::cta.b64 ok, [%r1], %r5; @ok bra GO; bra AGAIN; GO: }}
{read}
mad.wide.u32 %rd1, %r4, 4, %rd0; st.global.u32 [%rd1], %r8;
add.u32 %r4, %r4, 1; xor.b32 %r5, %r5, 1; setp.lt.u32 %p3, %r4, 6; @%p3 bra CONSUMER;
END: ret; }}"""


READ, RELEASE = "ld.shared.u32 %r8, [%r3];", "mbarrier.arrive.shared::cta.b64 _, [%r2];"


def _pipeline(read: str = READ + RELEASE) -> list[int]:
    out = np.zeros(6, np.uint32)
    text = PHASES.format(header=HEADER, read=read)
    ptx_sim.load(text).kernel("k").launch((1,), (64,), 0, [out])
    return [int(value) for value in out]


def test_a_producer_and_a_consumer_take_turns() -> None:
    assert _pipeline() == [0, 10, 20, 30, 40, 50]


def test_a_consumer_that_releases_too_early_or_never() -> None:
    with pytest.raises(ptx_sim.SharedRaceError):
        _pipeline(RELEASE + READ)
    with pytest.raises(ptx_sim.DeadlockError, match="lacks 32 of 32 arrivals"):
        _pipeline(READ)
