"""TMA stores and additions against numpy, and the mistakes that the interpreter finds in their use."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from snippets import kernel, launch

import ptx_sim
from ptx_sim.tensor_maps import TensorMap, swizzled

Array = np.ndarray[Any, Any]
SHARED = ".shared .align 1024 .b8 tile[4096];"
# thread n writes n to word n of the tile; thread 0 alone sends
FILL = """mov.u32 %r1, tile; mad.lo.u32 %r2, %r0, 4, %r1; cvt.rn.f32.u32 %f0, %r0;
st.shared.f32 [%r2], %f0; fence.proxy.async.shared::cta; bar.sync 0;
setp.ne.u32 %p1, %r0, 0; @%p1 bra END;"""
SEND = "cp.{operation}.global.shared::cta{suffix}.bulk_group [%rd0, {{{x}, {y}}}], [%r1];"
STORE, ADD = ("async.bulk.tensor.2d", ""), ("reduce.async.bulk.tensor.2d", ".add")
COMMIT, WAIT, END = "cp.async.bulk.commit_group;", "cp.async.bulk.wait_group.read 0;", "END:"


def _send(
    body: str, target: Array, box: tuple[int, int], *, swizzle: int = 0, float32: bool = True, threads: int = 64
) -> None:
    rows, columns = target.shape
    packed = TensorMap(target.ctypes.data, 4, (columns, rows), (columns * 4,), box, swizzle, float32).pack()
    held = np.zeros(len(packed) + 64, np.uint8)
    skipped = -held.ctypes.data % 64
    held[skipped : skipped + len(packed)] = np.frombuffer(packed, np.uint8)
    memory = ptx_sim.GlobalMemory()
    memory.add_array(held, "map")
    memory.add_array(target, "target")
    launch(kernel(FILL + body + END, 1, SHARED), held.ctypes.data + skipped, threads=threads, memory=memory)


def _text(form: tuple[str, str], x: int = 0, y: int = 0) -> str:
    return SEND.format(operation=form[0], suffix=form[1], x=x, y=y)


@pytest.mark.parametrize("form", [STORE, ADD], ids=["store", "add"])
@pytest.mark.parametrize(("x", "y"), [(0, 0), (8, 6), (-4, -2)])
def test_what_lies_outside_the_tensor_is_left_out(form: tuple[str, str], x: int, y: int) -> None:
    target = np.full((10, 12), 100, np.float32)
    expected = target.copy()
    for row in range(8):
        for column in range(8):
            if 0 <= y + row < 10 and 0 <= x + column < 12:
                expected[y + row, x + column] = row * 8 + column + (100 if form is ADD else 0)
    _send(_text(form, x, y) + COMMIT + WAIT, target, (8, 8))
    np.testing.assert_array_equal(target, expected)


def test_two_additions_and_a_swizzle() -> None:
    target = np.zeros((8, 32), np.float32)
    _send((_text(ADD) + COMMIT) * 2 + WAIT, target, (32, 8), swizzle=128, threads=256)
    words = swizzled(np.arange(0, 1024, 4), 128) // 4
    np.testing.assert_array_equal(target.reshape(-1), 2 * words)


def test_what_is_overwritten_before_it_was_read_is_lost() -> None:
    overwrite = "mov.f32 %f1, 0f42C80000; st.shared.f32 [%r1+4], %f1;"
    for order, value in (((COMMIT, WAIT, overwrite), 1), ((COMMIT, overwrite, WAIT), 100)):
        target = np.zeros((8, 8), np.float32)
        _send(_text(STORE) + "".join(order), target, (8, 8))
        assert target[0, 1] == value
    target = np.zeros((8, 8), np.float32)
    newest = WAIT.replace(" 0", " 1")
    _send(_text(STORE) + COMMIT + newest + overwrite + WAIT, target, (8, 8))
    assert target[0, 1] == 100


@pytest.mark.parametrize("end", ["", COMMIT, COMMIT + WAIT.replace(" 0", " 1")])
def test_a_thread_that_ends_without_a_wait_is_found(end: str) -> None:
    with pytest.raises(ptx_sim.MissingWaitError, match="a thread ends before"):
        _send(_text(STORE) + end, np.zeros((8, 8), np.float32), (8, 8))


def test_a_tile_that_nothing_ordered_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "FILL", FILL.replace("bar.sync 0;", ""))
    with pytest.raises(ptx_sim.SharedRaceError):
        _send(_text(STORE) + COMMIT + WAIT, np.zeros((8, 8), np.float32), (8, 8))


def test_additions_to_elements_of_another_type_are_refused() -> None:
    _send(_text(STORE) + COMMIT + WAIT, np.zeros((8, 8), np.float32), (8, 8), float32=False)
    with pytest.raises(ptx_sim.KernelError, match="other than float32"):
        _send(_text(ADD) + COMMIT + WAIT, np.zeros((8, 8), np.float32), (8, 8), float32=False)
