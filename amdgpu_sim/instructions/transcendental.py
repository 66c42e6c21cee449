"""Transcendental instructions.

Hardware is accurate to about one unit in the last place; here results are rounded correctly. Denormals are
flushed on both sides for the instructions that do not support them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from amdgpu_sim.decoding import Decoding, Execute, instruction
from amdgpu_sim.instructions.scalar import scalar_writer
from amdgpu_sim.instructions.vector import flush, vector
from amdgpu_sim.waves import Array

F16, F32, F64 = np.float16, np.float32, np.float64


def _flushed(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda a: flush(function(flush(a)).astype(F32))


_SINGLE: dict[str, Callable[[Array], Array]] = {
    "exp": _flushed(np.exp2),
    "log": _flushed(np.log2),
    "rcp": _flushed(lambda a: F32(1) / a),
    "rsq": _flushed(lambda a: 1 / np.sqrt(a.astype(F64))),
    "sqrt": _flushed(np.sqrt),
}


def _define_scalar(name: str, function: Callable[[Array], Array]) -> None:
    """gfx12 computes these on a scalar register, too."""

    @instruction(f"v_s_{name}_f32")
    def _(d: Decoding) -> Execute:
        d.parse_operands()
        d.instruction.category = "transcendental"
        read, write = d.source(1, "f32"), scalar_writer(d, 0, "f32")
        return lambda w: write(w, function(read(w)))


for _name, _function in _SINGLE.items():
    vector(f"v_{_name}_f32", "f32", "f32", _function, "transcendental")
    _define_scalar(_name, _function)
vector("v_rcp_iflag_f32", "f32", "f32", _SINGLE["rcp"], "transcendental")
vector("v_sin_f32", "f32", "f32", lambda a: np.sin(2 * np.pi * (a.astype(F64) % 1)).astype(F32), "transcendental")
vector("v_cos_f32", "f32", "f32", lambda a: np.cos(2 * np.pi * (a.astype(F64) % 1)).astype(F32), "transcendental")
vector("v_exp_f16", "f16", "f16", lambda a: np.exp2(a.astype(F32)).astype(F16), "transcendental")
vector("v_log_f16", "f16", "f16", lambda a: np.log2(a.astype(F32)).astype(F16), "transcendental")
vector("v_rcp_f16", "f16", "f16", lambda a: (1 / a.astype(F32)).astype(F16), "transcendental")
vector("v_rcp_f64", "f64", "f64", lambda a: 1 / a, "transcendental")
