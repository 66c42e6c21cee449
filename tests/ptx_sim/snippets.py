"""Small kernels around a few instructions: every thread loads its operands, computes and stores its results."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import ptx_sim

Array = npt.NDArray[Any]

# numpy type: (PTX type of loads and stores, type of the register)
_TYPES = {
    np.dtype("u1"): ("u8", "b16"),
    np.dtype("i1"): ("s8", "b16"),
    np.dtype("u2"): ("u16", "b16"),
    np.dtype("i2"): ("s16", "b16"),
    np.dtype("f2"): ("b16", "b16"),
    np.dtype("u4"): ("u32", "b32"),
    np.dtype("i4"): ("s32", "b32"),
    np.dtype("f4"): ("f32", "f32"),
    np.dtype("u8"): ("u64", "b64"),
    np.dtype("i8"): ("s64", "b64"),
    np.dtype("f8"): ("f64", "f64"),
}

HEADER = ".version 8.8\n.target sm_90a\n.address_size 64\n"


def kernel(body: str, parameters: int = 1, declarations: str = "", directives: str = "") -> str:
    """PTX of a kernel ``k`` with 64-bit parameters ``p0``..., held in %rd0... before ``body``; %r0 is the thread."""
    names = ", ".join(f".param .u64 p{n}" for n in range(parameters))
    loads = "\n".join(f"ld.param.u64 %rd{n}, [p{n}];" for n in range(parameters))
    return f"""{HEADER}{declarations}
.visible .entry k({names}) {directives}
{{
.reg .pred %p<10>;
.reg .b16 %rs<10>;
.reg .b32 %r<100>;
.reg .f32 %f<100>;
.reg .b64 %rd<40>;
.reg .f64 %fd<10>;
{loads}
mov.u32 %r0, %tid.x;
{body}
ret;
}}
"""


def launch(text: str, *args: Any, threads: int = 32, blocks: int = 1, shared_bytes: int = 0, **options: Any) -> Any:
    """Run kernel ``k`` of ``text``; returns the report."""
    return ptx_sim.load(text).kernel("k").launch((blocks,), (threads,), shared_bytes, args, **options)


def compute(body: str, results: str | list[str], *operands: Array) -> Any:
    """Results of ``body``, which computes %d0, %d1... (numpy types ``results``) of %x0, %x1... in every thread."""
    single = isinstance(results, str)
    outs = [np.zeros(len(operands[0]), name) for name in ([results] if isinstance(results, str) else results)]
    lines, count = [], len(operands)
    for n, operand in enumerate(operands):
        kind, register = _TYPES[operand.dtype]
        size = operand.itemsize
        lines += [
            f".reg .{register} %x{n};",
            f"mad.wide.u32 %rd20, %r0, {size}, %rd{n};",
            f"ld.global.{kind} %x{n}, [%rd20];",
        ]
    for n, out in enumerate(outs):
        lines.append(f".reg .{_TYPES[out.dtype][1]} %d{n};")
    lines.append(body)
    for n, out in enumerate(outs):
        lines += [
            f"mad.wide.u32 %rd20, %r0, {out.itemsize}, %rd{count + n};",
            f"st.global.{_TYPES[out.dtype][0]} [%rd20], %d{n};",
        ]
    launch(kernel("\n".join(lines), count + len(outs)), *operands, *outs, threads=len(operands[0]))
    return outs[0] if single else outs
