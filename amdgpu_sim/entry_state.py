"""What the hardware leaves in registers and memory when a wave starts: arguments, ids, private segment."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from amdgpu_sim.assembly import KernelText
from amdgpu_sim.errors import SimulatorError
from amdgpu_sim.instructions.scratch import SCRATCH_MARK
from amdgpu_sim.memory import GlobalMemory
from amdgpu_sim.program import Program
from amdgpu_sim.waves import EXEC, NULL, Array, Waves
from simulated_device.arguments import packed

_TTMP = 108
_USER_SGPRS = (("private_segment_buffer", 4), ("dispatch_ptr", 2), ("queue_ptr", 2),
               ("kernarg_segment_ptr", 2),
               ("dispatch_id", 2), ("flat_scratch_init", 2), ("private_segment_size", 1))  # fmt: skip

_PACKET_BYTES = 64  # of a dispatch packet of HSA's queues, which ends the kernarg segment here


def pack_arguments(
    kernel: KernelText,
    grid: Sequence[int],
    workgroup: Sequence[int],
    arguments: Sequence[Any],
    memory: GlobalMemory,
    dynamic_lds: int = 0,
) -> Array:
    """The kernarg segment, with the dispatch packet behind it.

    Arrays are registered in ``memory``; hidden arguments are filled in.

    ``dynamic_lds`` is the LDS of a work-group, in bytes, beyond what the kernel declares.
    Raises SimulatorError if the number or size of ``arguments`` does not fit the kernel.
    """
    segment = np.zeros(kernel.kernarg_size + 64 + _PACKET_BYTES, np.uint8)
    items = [count * size for count, size in zip(grid, workgroup, strict=True)]
    packet = struct.pack("<HHHHHHIII", 0, 3, *workgroup, 0, *items)  # dimensions, work-group and grid in work-items
    segment[-_PACKET_BYTES:][: len(packet)] = np.frombuffer(packet, np.uint8)
    hidden = {f"hidden_block_count_{axis}": grid[n] for n, axis in enumerate("xyz")}
    hidden |= {f"hidden_group_size_{axis}": workgroup[n] for n, axis in enumerate("xyz")}
    hidden |= {f"hidden_remainder_{axis}": 0 for axis in "xyz"}
    hidden |= {f"hidden_global_offset_{axis}": 0 for axis in "xyz"}
    hidden |= {"hidden_grid_dims": 3, "hidden_dynamic_lds_size": dynamic_lds}
    explicit = [argument for argument in kernel.arguments if not argument.kind.startswith("hidden_")]
    if len(explicit) != len(arguments):
        raise SimulatorError(f"kernel {kernel.name} takes {len(explicit)} arguments, {len(arguments)} were given")
    values = list(enumerate(arguments))
    for argument in kernel.arguments:
        if argument.kind.startswith("hidden_"):
            data = int(hidden.get(argument.kind, 0)).to_bytes(argument.size, "little")
        else:
            number, value = values.pop(0)
            data = packed(number, value, argument.size, memory, SimulatorError)
        segment[argument.offset : argument.offset + argument.size] = np.frombuffer(data, np.uint8)
    return segment


def _set(w: Waves, register: int, value: Array | int) -> None:
    w.s[register] = np.broadcast_to(np.asarray(value).astype(np.uint32).reshape(-1, 1), (w.count, 1))
    w.define_scalar(register, np.zeros((w.count, 1), bool))


def make_waves(program: Program, groups: Array, workgroup: Sequence[int], kernarg: Array) -> Waves:
    """All waves of the given work-groups ((n, 3) ids), in entry state, at the entry block."""
    target, directives = program.target, program.kernel.directives
    size = target.wave_size
    items = workgroup[0] * workgroup[1] * workgroup[2]
    per_group = -(-items // size)
    w = Waves(program.facts.vectors, size, len(groups) * per_group, program.facts.scratch_bytes)
    w.group = np.repeat(np.arange(len(groups)), per_group)
    w.wave = np.tile(np.arange(per_group), len(groups))
    ids = groups[w.group]
    register = 0
    address = kernarg.ctypes.data
    for name, count in _USER_SGPRS:
        if not directives.get("user_sgpr_" + name):
            continue
        if name in ("kernarg_segment_ptr", "dispatch_ptr"):
            pointer = address if name == "kernarg_segment_ptr" else address + kernarg.nbytes - _PACKET_BYTES
            _set(w, register, pointer & 0xFFFFFFFF)
            _set(w, register + 1, pointer >> 32)
        elif name == "private_segment_buffer":
            for word in range(4):
                _set(w, register + word, SCRATCH_MARK)
        register += count
    if preload := directives.get("user_sgpr_kernarg_preload_length", 0):
        first = directives.get("user_sgpr_kernarg_preload_offset", 0)
        for word, value in enumerate(kernarg.view(np.uint32)[first : first + preload]):
            _set(w, register + word, int(value))
        register += preload
    register = max(register, directives.get("user_sgpr_count", 0))
    if target.generation >= 12:
        _set(w, _TTMP + 9, ids[:, 0])
        _set(w, _TTMP + 7, ids[:, 1] | (ids[:, 2] << 16))
        _set(w, _TTMP + 8, w.wave << 25)
    else:
        for axis, name in enumerate("xyz"):
            if directives.get("system_sgpr_workgroup_id_" + name, int(axis == 0)):
                _set(w, register, ids[:, axis])
                register += 1
        if directives.get("system_sgpr_private_segment_wavefront_offset"):
            _set(w, register, 0)
    _set_work_items(w, workgroup, items)
    _set(w, NULL, 0)
    return w


def _set_work_items(w: Waves, workgroup: Sequence[int], items: int) -> None:
    """v0 packs the three work-item ids in ten bits each; EXEC covers the items that exist."""
    item = w.wave[:, None] * w.wave_size + np.arange(w.wave_size)
    x, rest = item % workgroup[0], item // workgroup[0]
    w.v[0] = x | (rest % workgroup[1] << 10) | (rest // workgroup[1] << 20)
    w.define_vector(0, np.zeros(w.active_shape(), bool))
    for word in range(2):
        _set(w, EXEC + word, 0xFFFFFFFF if word < w.wave_size // 32 else 0)
    w.refresh_exec()
    w.set_lane_mask(EXEC, item < items)
