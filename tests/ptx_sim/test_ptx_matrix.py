"""mma.sync, ldmatrix and stmatrix against the fragment layouts of the PTX manual, written out element by element."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from snippets import Array, compute, kernel, launch

import ptx_sim

WARP = 32
FORMATS = {
    "f16": np.dtype("f2"),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "tf32": np.dtype("f4"),
    "e4m3": np.dtype(ml_dtypes.float8_e4m3fn),
    "e5m2": np.dtype(ml_dtypes.float8_e5m2),
}


def _place_of_a(lane: int, element: int, width: int) -> tuple[int, int]:
    """(row, k) of element number ``element`` of a thread's A fragment; ``width`` elements share a register."""
    register, within = divmod(element, width)
    return lane // 4 + 8 * (register % 2), lane % 4 * width + within + 4 * width * (register // 2)


def _place_of_b(lane: int, element: int, width: int) -> tuple[int, int]:
    """(k, column) of an element of a thread's B fragment."""
    register, within = divmod(element, width)
    return lane % 4 * width + within + 4 * width * register, lane // 4


def _place_of_c(lane: int, element: int) -> tuple[int, int]:
    return lane // 4 + 8 * (element // 2), lane % 4 * 2 + element % 2


def _fragments(matrix: Array, registers: int, place: Any) -> list[Array]:
    """The registers (uint32 of 64 threads; both warps hold the same) of a matrix."""
    width = 4 // matrix.itemsize
    words = np.zeros((2 * WARP, registers * width), matrix.dtype)
    for lane in range(2 * WARP):
        for element in range(registers * width):
            words[lane, element] = matrix[place(lane % WARP, element, width)]
    return list(np.ascontiguousarray(words.view(np.uint32).T))


SHAPES = [
    ("f16", 16, "f32"), ("f16", 8, "f32"), ("bf16", 16, "f32"), ("bf16", 8, "f32"), ("tf32", 8, "f32"),
    ("tf32", 4, "f32"),
    ("e4m3", 32, "f32"), ("e5m2", 32, "f32"), ("e4m3", 16, "f32"), ("f16", 16, "f16"), ("f16", 8, "f16"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "k", "accumulator"), SHAPES)
def test_products(kind: str, k: int, accumulator: str) -> None:
    generator = np.random.default_rng(k)
    # integers of few bits: every sum is exact
    a = generator.integers(-4, 5, (16, k)).astype(FORMATS[kind])
    b = generator.integers(-4, 5, (k, 8)).astype(FORMATS[kind])
    c = generator.integers(-9, 10, (16, 8)).astype(np.float32)
    a_count, b_count = 16 * k * a.itemsize // 128, 8 * k * a.itemsize // 128
    operands = [*_fragments(a, a_count, _place_of_a), *_fragments(b, b_count, _place_of_b)]
    narrow = accumulator == "f16"
    lanes = [lane % WARP for lane in range(2 * WARP)]
    held = np.array(
        [[c[_place_of_c(lane, e)] for e in range(4)] for lane in lanes], np.float16 if narrow else np.float32
    )
    words = list(np.ascontiguousarray(held.view("u4" if narrow else "f4").T))
    names = [f"%x{n}" for n in range(len(operands) + len(words))]
    groups = [names[:a_count], names[a_count : len(operands)], names[len(operands) :]]
    results = ["u4"] * 2 if narrow else ["f4"] * 4
    lists = ", ".join("{" + ", ".join(g) + "}" for g in [[f"%d{n}" for n in range(len(results))], *groups])
    text = f"mma.sync.aligned.m16n8k{k}.row.col.{accumulator}.{kind}.{kind}.{accumulator} {lists};"
    out = np.stack(compute(text, results, *operands, *words), 1)
    out = np.ascontiguousarray(out).view("f2" if narrow else "f4")
    expected = a.astype(np.float64) @ b.astype(np.float64) + c
    for lane in range(2 * WARP):
        assert out[lane].tolist() == [expected[_place_of_c(lane % WARP, e)] for e in range(4)]


def _shared_rows(trans: str, count: int, instruction: str) -> str:
    """Every thread stores 4 words (16 bytes: row %r0) and loads matrices by ``instruction``."""
    registers = ", ".join(f"%r{10 + n}" for n in range(count))
    stores = "\n".join(
        f"add.u64 %rd9, %rd1, {128 * n};\nmad.wide.u32 %rd9, %r0, 4, %rd9; st.global.b32 [%rd9], %r{10 + n};"
        for n in range(count)
    )
    return f"""
mov.u32 %r1, tile;
mad.lo.u32 %r2, %r0, 16, %r1;
mad.wide.u32 %rd2, %r0, 16, %rd0;
ld.global.v4.u32 {{%r3, %r4, %r5, %r6}}, [%rd2];
st.shared.v4.u32 [%r2], {{%r3, %r4, %r5, %r6}};
bar.sync 0;
{instruction}.sync.aligned.m8n8.x{count}{trans}.shared.b16 {{{registers}}}, [%r2];
{stores}"""


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("trans", ["", ".trans"])
def test_ldmatrix(trans: str, count: int) -> None:
    rows = np.arange(32 * 8, dtype=np.uint16)
    out = np.zeros(count * 32, np.uint32)
    text = kernel(_shared_rows(trans, count, "ldmatrix"), 2, ".shared .align 16 .b8 tile[512];")
    launch(text, rows, out)
    matrices, result = rows.reshape(4, 8, 8), out.view(np.uint16).reshape(count, 32, 2)
    for number in range(count):
        matrix = matrices[number].T if trans else matrices[number]
        for lane in range(32):
            assert result[number, lane].tolist() == matrix[lane // 4, lane % 4 * 2 : lane % 4 * 2 + 2].tolist()


@pytest.mark.parametrize("trans", ["", ".trans"])
def test_stmatrix_is_the_inverse(trans: str) -> None:
    body = f"""
mov.u32 %r1, tile;
mad.lo.u32 %r2, %r0, 16, %r1;
mad.wide.u32 %rd2, %r0, 16, %rd0;
ld.global.v4.u32 {{%r3, %r4, %r5, %r6}}, [%rd2];
stmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 [%r2], {{%r3, %r4, %r5, %r6}};
ldmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 {{%r13, %r14, %r15, %r16}}, [%r2];
mad.wide.u32 %rd2, %r0, 16, %rd1;
st.global.v4.u32 [%rd2], {{%r13, %r14, %r15, %r16}};"""
    words, out = np.arange(128, dtype=np.uint32) * 65537, np.zeros(128, np.uint32)
    launch(kernel(body, 2, ".shared .align 16 .b8 tile[512];"), words, out)
    assert out.tolist() == words.tolist()


def test_a_part_of_a_warp_is_refused() -> None:
    body = """setp.lt.u32 %p1, %r0, 7;
@%p1 mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%f0,%f1,%f2,%f3}, {%r1,%r2}, {%r3}, {%f0,%f1,%f2,%f3};"""
    with pytest.raises(ptx_sim.DivergenceError, match="7 of the warp's 32"):
        launch(kernel(body), None)
