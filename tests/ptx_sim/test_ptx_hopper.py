"""mbarriers, TMA loads and wgmma against numpy, and the mistakes that the interpreter finds in their use."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from snippets import kernel, launch

import ptx_sim
from ptx_sim.tensor_maps import TensorMap, swizzled

SHARED = ".shared .align 1024 .b8 tile[40960]; .shared .align 8 .b64 bars[4];"
# %r1, %r2: addresses of the tile and of the first barrier; thread 0 makes a barrier of one arrival
BEGIN = """mov.u32 %r1, tile; mov.u32 %r2, bars;
setp.ne.u32 %p1, %r0, 0;
@%p1 bra READY;
mbarrier.init.shared::cta.b64 [%r2], 1;
READY:
bar.sync 0;"""
WAIT = """AGAIN: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r2], 0;
@%p2 bra DONE;
bra AGAIN;
DONE:"""
LOAD = """@%p1 bra LOADED;
mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], {bytes};
cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%rd0, {{{x}, {y}}}], [%r2];
LOADED:"""
# thread n copies word n of the tile to the output
STORE = """mad.lo.u32 %r5, %r0, 4, %r1; ld.shared.u32 %r6, [%r5];
mad.wide.u32 %rd5, %r0, 4, %rd1; st.global.u32 [%rd5], %r6;"""


def _address(data: bytes) -> tuple[np.ndarray[Any, Any], int]:
    """The bytes at an address that is a multiple of 64."""
    held = np.zeros(len(data) + 64, np.uint8)
    skipped = -held.ctypes.data % 64
    held[skipped : skipped + len(data)] = np.frombuffer(data, np.uint8)
    return held, held.ctypes.data + skipped


def _load(
    body: str, tensor: np.ndarray[Any, Any], box: tuple[int, int], threads: int = 64, blocks: int = 1
) -> np.ndarray[Any, Any]:
    rows, columns = tensor.shape
    size = tensor.itemsize
    packed = TensorMap(tensor.ctypes.data, size, (columns, rows), (columns * size,), box).pack()
    held, address = _address(packed)
    out = np.zeros(threads, np.uint32)
    memory = ptx_sim.GlobalMemory()
    memory.add_array(held, "map")
    memory.add_array(tensor, "tensor")
    launch(kernel(body, 2, SHARED), address, out, threads=threads, blocks=blocks, memory=memory)
    return out


def test_a_box_arrives_with_zeros_outside_the_tensor() -> None:
    tensor = np.arange(1, 10 * 12 + 1, dtype=np.uint32).reshape(10, 12)
    body = BEGIN + LOAD.format(bytes=256, x=8, y=6) + WAIT + STORE
    expected = np.zeros((8, 8), np.uint32)
    expected[:4, :4] = tensor[6:, 8:]
    np.testing.assert_array_equal(_load(body, tensor, (8, 8)), expected.reshape(-1))


def test_a_load_without_a_wait_is_found() -> None:
    tensor = np.ones((10, 12), np.uint32)
    with pytest.raises(ptx_sim.MissingWaitError):
        _load(BEGIN + LOAD.format(bytes=256, x=0, y=0) + "bar.sync 0;" + STORE, tensor, (8, 8))


@pytest.mark.parametrize("waited", [0, 1], ids=["the first", "the second"])
def test_a_load_is_not_there_when_another_is(waited: int) -> None:
    begin = BEGIN.replace("READY:", "mbarrier.init.shared::cta.b64 [%r2 + 8], 1;\nREADY:")
    load = LOAD.format(bytes=256, x=0, y=0)
    second = load.replace("LOADED", "ALSO").replace("[%r2]", "[%r2 + 8]").replace("[%r1]", "[%r1 + 1024]")
    both = WAIT + WAIT.replace("AGAIN", "LATER").replace("DONE", "THERE").replace("[%r2]", "[%r2 + 8]")
    tensor = np.ones((10, 12), np.uint32)
    _load(begin + load + second + both + STORE, tensor, (8, 8), blocks=2)
    wait = WAIT.replace("[%r2]", f"[%r2 + {8 * waited}]")
    other = STORE.replace("[%r5]", f"[%r5 + {1024 * (1 - waited)}]", 1)
    with pytest.raises(ptx_sim.MissingWaitError):
        _load(begin + load + second + wait + other, tensor, (8, 8), blocks=2)


@pytest.mark.parametrize(("announced", "error"), [(512, ptx_sim.DeadlockError), (128, ptx_sim.KernelError)])
def test_wrong_byte_counts_are_found(announced: int, error: type[Exception]) -> None:
    tensor = np.ones((10, 12), np.uint32)
    with pytest.raises(error, match="bytes"):
        _load(BEGIN + LOAD.format(bytes=announced, x=0, y=0) + WAIT + STORE, tensor, (8, 8))


def test_an_mbarrier_without_init_and_too_many_arrivals() -> None:
    arrive = "mbarrier.arrive.shared::cta.b64 _, [%r2];"
    with pytest.raises(ptx_sim.KernelError, match="no mbarrier was initialised"):
        launch(kernel("mov.u32 %r2, bars;" + arrive, 1, SHARED), None, threads=32)
    twice = BEGIN.replace("[%r2], 1", "[%r2], 48") + arrive
    launch(kernel(twice.replace("48", "64"), 1, SHARED), None, threads=64)
    with pytest.raises(ptx_sim.DeadlockError, match="lacks 32 of 48 arrivals"):
        launch(kernel(twice + WAIT.replace(", 0;", ", 1;").replace("%p2, [%r2], 1", "%p2, [%r2], 1"), 1, SHARED), None,
               threads=64)  # fmt: skip


def test_an_mbarrier_orders_shared_memory_between_warps() -> None:
    share = "mad.lo.u32 %r4, %r0, 4, %r1; st.shared.u32 [%r4], %r0; xor.b32 %r7, %r0, 32;"
    arrive = "mbarrier.arrive.shared::cta.b64 _, [%r2];"
    take = "mad.lo.u32 %r5, %r7, 4, %r1; ld.shared.u32 %r6, [%r5]; mad.wide.u32 %rd5, %r0, 4, %rd0;" \
           "st.global.u32 [%rd5], %r6;"  # fmt: skip
    begin = BEGIN.replace("[%r2], 1", "[%r2], 64")
    out = np.zeros(64, np.uint32)
    launch(kernel(begin + share + arrive + WAIT + take, 1, SHARED), out, threads=64)
    np.testing.assert_array_equal(out, np.arange(64) ^ 32)
    with pytest.raises(ptx_sim.SharedRaceError):
        launch(kernel(begin + share + arrive + take, 1, SHARED), out, threads=64)


# 64 threads copy 16 bytes each to the tile, and the barrier counts them when their bytes are there
COPY = """mad.lo.u32 %r4, %r0, 16, %r1; mad.wide.u32 %rd5, %r0, 16, %rd0;
cp.async.cg.shared.global [%r4], [%rd5], 16;
cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%r2];"""
# thread n reads what thread n ^ 32 has copied
TAKE = """xor.b32 %r7, %r0, 32; mad.lo.u32 %r5, %r7, 16, %r1; ld.shared.u32 %r6, [%r5];
mad.wide.u32 %rd5, %r7, 4, %rd1; st.global.u32 [%rd5], %r6;"""


def test_an_mbarrier_counts_the_threads_whose_copies_are_there() -> None:
    begin = BEGIN.replace("[%r2], 1", "[%r2], 64")
    data, out = np.arange(256, dtype=np.uint32), np.zeros(64, np.uint32)
    launch(kernel(begin + COPY + WAIT + TAKE, 2, SHARED), data, out, threads=64)
    np.testing.assert_array_equal(out, data[::4])


def test_copies_that_an_mbarrier_has_not_counted_are_not_there() -> None:
    data, out = np.arange(256, dtype=np.uint32), np.zeros(64, np.uint32)
    begin = BEGIN.replace("[%r2], 1", "[%r2], 64")
    with pytest.raises(ptx_sim.MissingWaitError):
        launch(kernel(begin + COPY + "bar.sync 0;" + TAKE, 2, SHARED), data, out, threads=64)
    address, copy, arrive = COPY.splitlines()
    too_early = "\n".join((address, arrive, copy))
    with pytest.raises(ptx_sim.MissingWaitError):
        launch(kernel(begin + too_early + WAIT + TAKE, 2, SHARED), data, out, threads=64)
    with pytest.raises(ptx_sim.DeadlockError, match="lacks 1 of 65 arrivals"):
        launch(kernel(BEGIN.replace("[%r2], 1", "[%r2], 65") + COPY + WAIT + TAKE, 2, SHARED), data, out, threads=64)


def _fill(data: np.ndarray[Any, Any], at: int) -> str:
    """PTX by which 128 threads copy ``data`` (bytes, the argument whose address is %rd1) to the tile."""
    words = data.nbytes // 4
    return f"""mov.u32 %r10, %r0;
COPY{at}: mad.wide.u32 %rd10, %r10, 4, %rd1; ld.global.u32 %r11, [%rd10+{at}];
mad.lo.u32 %r12, %r10, 4, %r1; st.shared.u32 [%r12+{at}], %r11;
add.u32 %r10, %r10, 128; setp.lt.u32 %p3, %r10, {words}; @%p3 bra COPY{at};"""


def _descriptor(start: int, leading: int, stride: int) -> str:
    rest = (leading >> 4) << 16 | (stride >> 4) << 32 | 1 << 62
    return f"add.u32 %r20, %r1, {start}; shr.u32 %r20, %r20, 4; cvt.u64.u32 %rd20, %r20; or.b64 %rd{{}}, %rd20, {rest};"


def _tile(matrix: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(rows, 64) float16 as a box with a swizzle of 128 bytes leaves them at a multiple of 1024."""
    data = np.ascontiguousarray(matrix).view(np.uint8).reshape(-1)
    result = np.empty_like(data)
    result[swizzled(np.arange(len(data)), 128)] = data
    return result


def _wgmma(
    a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], across: bool, wait: str = "wgmma.wait_group.sync.aligned 0;"
) -> np.ndarray[Any, Any]:
    """C (64, 16) = A (64, 64) B transposed; B is (16, 64), or where ``across`` its transpose is (64, 64 columns)."""
    data = np.concatenate([_tile(a), _tile(b)])
    results = ", ".join(f"%f{n}" for n in range(8))
    body = [BEGIN, _fill(data, 0), "fence.proxy.async.shared::cta; bar.sync 0;"]
    body += [f"mov.f32 %f{n}, 0f00000000;" for n in range(8)]
    body += ["setp.eq.u32 %p5, %r0, %r0;", "wgmma.fence.sync.aligned;"]
    for k in range(4):
        body.append(_descriptor(32 * k, 16, 1024).format(21))
        body.append(_descriptor(8192 + (2048 * k if across else 32 * k), 8192, 1024).format(22))
        operands = f"{{{results}}}, %rd21, %rd22, %p5, 1, 1, 0, {int(across)};"
        body.append(f"wgmma.mma_async.sync.aligned.m64n16k16.f32.f16.f16 {operands}")
    body += ["wgmma.commit_group.sync.aligned;", wait]
    body += ["mad.wide.u32 %rd5, %r0, 32, %rd0;"]
    body += [f"st.global.f32 [%rd5+{4 * n}], %f{n};" for n in range(8)]
    out = np.zeros((128, 8), np.float32)
    launch(kernel("\n".join(body), 2, SHARED), out, data, threads=128)
    # (warp, row, quad thread, column block, lower rows, column of a pair)
    matrix: np.ndarray[Any, Any] = out.reshape(4, 8, 4, 2, 2, 2).transpose(0, 4, 1, 3, 2, 5).reshape(64, 16)
    return matrix


@pytest.mark.parametrize("across", [False, True], ids=["along the sum", "across the sum"])
def test_a_product_of_shared_matrices(across: bool) -> None:
    random = np.random.default_rng(0)
    a = random.integers(-4, 5, (64, 64)).astype(np.float16)
    b = random.integers(-4, 5, (64, 64)).astype(np.float16)
    expected = a.astype(np.float32) @ (b[:, :16] if across else b[:16].T).astype(np.float32)
    np.testing.assert_array_equal(_wgmma(a, b, across), expected)


def test_a_product_is_not_there_before_the_wait() -> None:
    a = b = np.ones((64, 64), np.float16)
    assert (_wgmma(a, b, False) == 64).all()
    assert (_wgmma(a, b, False, wait="") == 0).all()
    assert (_wgmma(a, b, False, wait="wgmma.wait_group.sync.aligned 1;") == 0).all()


def test_a_part_of_a_warpgroup_cannot_multiply() -> None:
    body = "setp.ge.u32 %p1, %r0, 96; @%p1 bra END; wgmma.commit_group.sync.aligned; END:"
    with pytest.raises(ptx_sim.DivergenceError, match="96 of the warpgroup's 128 threads"):
        launch(kernel(body), None, threads=128)


def test_rows_of_a_sequence_in_a_ragged_tensor() -> None:
    """The address wraps at 2^64: rows of other sequences are zeros, as the Hopper kernels rely on."""
    rows, columns, big = 12, 8, 1 << 30
    tensor = np.arange(rows * columns, dtype=np.uint16).reshape(rows, columns)
    step = columns * 2
    sizes, strides = (columns, big, 1, 1 << 31, 1 << 31), (step, 16, step, (1 << 34) - step)
    ragged = TensorMap(tensor.ctypes.data, 2, sizes, strides, (8, 4, 1, 1, 1))
    first, length, row = 3, 6, 4
    addresses, inside = ragged.places((0, big - length + row, 0, first + length, big))
    np.testing.assert_array_equal(inside, [8, 8, 0, 0])
    np.testing.assert_array_equal(addresses[:2] - np.uint64(tensor.ctypes.data), [7 * step, 8 * step])


@pytest.mark.parametrize(
    "changes",
    [{"strides": (40,)}, {"strides": (0,)}, {"box": (8, 257)}, {"sizes": (0, 4)}, {"box": (128, 8), "swizzle": 128}],
)
def test_maps_that_the_driver_refuses(changes: dict[str, Any]) -> None:
    good: dict[str, Any] = {"address": 4096, "element": 2, "sizes": (64, 4), "strides": (128,), "box": (64, 4)}
    TensorMap(**good, swizzle=128)
    with pytest.raises(ValueError, match=r"expected|rows of"):
        TensorMap(**{**good, **changes})
