"""Data-parallel primitives: a source operand taken from another lane of the same wave (``_dpp``
encodings)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from amdgpu_sim.decoding import Decoding, Execute
from amdgpu_sim.operands import Reader
from amdgpu_sim.waves import Array, Waves

_CONTROLS = (
    "quad_perm", "row_shl", "row_shr", "row_ror", "wave_shl", "wave_rol", "wave_shr", "wave_ror",
    "row_mirror",
    "row_half_mirror", "row_bcast", "row_newbcast", "row_share", "row_xmask", "dpp8",
)  # fmt: skip


def source_lanes(control: str, value: Any, lanes: Array) -> Array:
    """Source lane of every lane for one DPP control; -1 where the control reaches outside its row."""
    row, place = lanes & ~15, lanes & 15
    if control == "quad_perm":
        return (lanes & ~3) + np.array(value)[lanes & 3]
    if control == "dpp8":
        return (lanes & ~7) + np.array(value)[lanes & 7]
    if control in ("row_shl", "row_shr"):
        target = place + (value if control == "row_shl" else -value)
        return np.where((target >= 0) & (target < 16), row + target, -1)
    if control == "row_ror":
        return row + ((place - value) & 15)
    if control in ("row_newbcast", "row_share"):
        return row + value
    if control == "row_xmask":
        return row + (place ^ value)
    if control == "row_mirror":
        return row + 15 - place
    if control == "row_half_mirror":
        return (lanes & ~7) + 7 - (lanes & 7)
    if control == "row_bcast":
        # lane 15 of a row goes to the next row; 31 to the upper half
        source = row - 1 if value == 15 else np.full_like(lanes, 31)
        reached = (row // 16) % 2 == 1 if value == 15 else lanes >= 32
        return np.where(reached, source, -1)
    step = {"wave_shl": 1, "wave_rol": 1, "wave_shr": -1, "wave_ror": -1}[control]
    target = lanes + step
    inside = (target >= 0) & (target < len(lanes))
    return np.where(inside | control.endswith(("rol", "ror")), target % len(lanes), -1)


class Dpp:
    """The lane permutation of one DPP instruction and the lanes it may write."""

    def __init__(self, operand: int, lanes: Array, rows: Array, zero_fill: bool) -> None:
        """``lanes``: source lane of each lane or -1; ``rows``: lanes that the masks let through."""
        self.operand = operand
        self.lanes, self.inside = np.maximum(lanes, 0), lanes >= 0
        self.rows, self.zero_fill = rows, zero_fill

    @classmethod
    def decode(cls, d: Decoding, operand: int) -> Dpp:
        """Read the control, the row and bank masks and ``bound_ctrl``."""
        controls = [name for name in _CONTROLS if name in d.line.modifiers]
        if len(controls) != 1:
            raise d.unsupported(f"DPP control expected, found {controls}")
        lane = np.arange(d.target.wave_size)
        lanes = source_lanes(controls[0], d.modifier(controls[0]), lane)
        rows = (
            (d.modifier("row_mask", 15) >> ((lane >> 4) & 3)) & (d.modifier("bank_mask", 15) >> ((lane >> 2) & 3)) & 1
        )
        d.ignore("fi")
        if d.line.modifiers.get("fi", 0):
            raise d.unsupported("fi:1 is not modelled")
        return cls(
            operand,
            lanes,
            rows.astype(bool),
            "bound_ctrl" in d.line.modifiers and d.modifier("bound_ctrl") >= 0,
        )

    def valid(self, w: Waves) -> Array:
        """Lanes whose source lane exists and is active."""
        return self.inside & w.active[:, self.lanes]

    def apply(self, w: Waves, value: Array) -> Array:
        """The permuted source; 0 where it is not valid."""
        return np.where(self.valid(w), value[:, self.lanes], value.dtype.type(0))

    def enabled(self, w: Waves) -> Array:
        """Lanes that are written."""
        return w.active & self.rows if self.zero_fill else w.active & self.rows & self.valid(w)

    def execute(
        self,
        d: Decoding,
        readers: Sequence[Reader],
        function: Callable[..., Any],
        write: Callable[[Waves, Array], None],
    ) -> Execute:
        """The instruction's execution; also installs lane-exact propagation of definedness."""

        def execute(w: Waves) -> None:
            active, full = w.active, w.full
            result = function(*[read(w) for read in readers])
            w.active, w.full = self.enabled(w), False
            write(w, np.broadcast_to(result, active.shape))
            w.active, w.full = active, full

        shifted = d.span(self.operand)
        others = [span for span in d.instruction.lane_reads if span != shifted]
        target = d.instruction.writes[0]

        def propagate(w: Waves) -> None:
            enabled = self.enabled(w)
            shadow = np.zeros(w.active.shape, bool)
            if shifted and shifted.kind == "v":
                shadow |= self.valid(w) & w.v_undefined[shifted.index][:, self.lanes]
            for span in others:
                shadow |= (w.v_undefined if span.kind == "v" else w.s_undefined)[span.index]
            execute(w)
            w.define_vector(target.index, np.where(enabled, shadow, w.v_undefined[target.index]))

        d.instruction.propagate = propagate
        return execute
