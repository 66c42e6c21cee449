"""Kernel descriptors made by hand after the documented layout."""

from __future__ import annotations

import struct

import pytest

import amdgpu_sim
from amdgpu_sim.assembly import Argument, KernelText
from amdgpu_sim.entry_state import pack_arguments
from amdgpu_sim.kernel_descriptor import parse_descriptor
from amdgpu_sim.memory import GlobalMemory
from amdgpu_sim.targets import TARGETS


def descriptor(rsrc1: int = 0, rsrc2: int = 0, rsrc3: int = 0, properties: int = 0, preload: int = 0) -> bytes:
    head = struct.pack("<IIIIq20x", 1024, 48, 288, 0, -4096)
    return head + struct.pack("<IIIHHI", rsrc3, rsrc1, rsrc2, properties, preload, 0)


def test_sizes_and_entry() -> None:
    directives, entry = parse_descriptor(descriptor(), TARGETS["gfx942"])
    assert entry == -4096
    assert directives["group_segment_fixed_size"] == 1024
    assert directives["private_segment_fixed_size"] == 48
    assert directives["kernarg_size"] == 288


def test_registers_of_the_entry_state() -> None:
    rsrc2 = 1 | 14 << 1 | 1 << 7 | 1 << 9 | 2 << 11
    directives, _ = parse_descriptor(descriptor(rsrc2=rsrc2, properties=0b1001, preload=6 | 3 << 7), TARGETS["gfx90a"])
    expected = {
        "user_sgpr_count": 14,
        "user_sgpr_private_segment_buffer": 1,
        "user_sgpr_dispatch_ptr": 0,
        "user_sgpr_kernarg_segment_ptr": 1,
        "user_sgpr_kernarg_preload_length": 6,
        "user_sgpr_kernarg_preload_offset": 3,
        "system_sgpr_workgroup_id_x": 1,
        "system_sgpr_workgroup_id_y": 0,
        "system_sgpr_workgroup_id_z": 1,
        "system_vgpr_workitem_id": 2,
        "system_sgpr_private_segment_wavefront_offset": 1,
    }
    assert {name: directives[name] for name in expected} == expected
    newer, _ = parse_descriptor(descriptor(rsrc2=rsrc2, properties=8), TARGETS["gfx942"])
    assert newer["enable_private_segment"] == 1
    assert "system_sgpr_private_segment_wavefront_offset" not in newer


def test_float_modes_and_accumulators() -> None:
    rsrc1 = 2 << 12 | 1 << 14 | 0 << 16 | 3 << 18 | 1 << 23
    directives, _ = parse_descriptor(descriptor(rsrc1=rsrc1, rsrc3=31 | 1 << 16), TARGETS["gfx942"])
    modes = ("float_round_mode_32", "float_round_mode_16_64", "float_denorm_mode_32", "float_denorm_mode_16_64")
    assert [directives[name] for name in modes] == [2, 1, 0, 3]
    assert (directives["ieee_mode"], directives["accum_offset"], directives["tg_split"]) == (1, 128, 1)


def test_wave_size_must_be_the_targets() -> None:
    assert parse_descriptor(descriptor(properties=1 << 10), TARGETS["gfx1201"])[1] == -4096
    with pytest.raises(amdgpu_sim.AssemblyError, match="64 lanes"):
        parse_descriptor(descriptor(), TARGETS["gfx1100"])
    with pytest.raises(amdgpu_sim.AssemblyError, match="63 bytes"):
        parse_descriptor(descriptor()[:63], TARGETS["gfx942"])


def test_hidden_arguments_describe_the_launch() -> None:
    names = ["block_count_x", "block_count_y", "group_size_x", "group_size_z", "grid_dims", "dynamic_lds_size"]
    arguments = [Argument(4 * n, 4, "hidden_" + name) for n, name in enumerate(names)]
    kernel = KernelText("probe", "gfx942", {}, arguments, 4 * len(names))
    segment = pack_arguments(kernel, (3, 2, 1), (64, 1, 2), [], GlobalMemory(), dynamic_lds=512)
    assert segment.view("uint32")[: len(names)].tolist() == [3, 2, 64, 2, 3, 512]
