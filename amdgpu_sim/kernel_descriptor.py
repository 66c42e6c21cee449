"""The 64-byte kernel descriptor of a code object, as the directives that assembly text states.

Source: LLVM's "User Guide for AMDGPU Backend", section "Kernel Descriptor" (code object versions 3 to 6).
"""

from __future__ import annotations

import struct

from amdgpu_sim.errors import AssemblyError
from amdgpu_sim.targets import Target

SIZE = 64
_PROPERTIES = (
    "private_segment_buffer",
    "dispatch_ptr",
    "queue_ptr",
    "kernarg_segment_ptr",
    "dispatch_id",
    "flat_scratch_init",
    "private_segment_size",
)
_WAVE32 = 10


def _bits(word: int, low: int, count: int = 1) -> int:
    return word >> low & ((1 << count) - 1)


def parse_descriptor(data: bytes, target: Target) -> tuple[dict[str, int], int]:
    """(directives as in an ``.amdhsa_kernel`` block, offset from the descriptor to the kernel's code).

    Raises AssemblyError for a descriptor of another size, or a wave size that ``target`` is not simulated in.
    """
    if len(data) != SIZE:
        raise AssemblyError(f"kernel descriptor of {len(data)} bytes, {SIZE} expected")
    lds, private, kernarg, entry = struct.unpack_from("<III4xq", data)
    rsrc3, rsrc1, rsrc2, properties, preload = struct.unpack_from("<IIIHH", data, 44)
    wave_size = 32 if _bits(properties, _WAVE32) else 64
    if wave_size != target.wave_size:
        raise AssemblyError(f"kernel of {wave_size} lanes a wave; {target.name} is simulated with {target.wave_size}")
    directives = {
        "group_segment_fixed_size": lds,
        "private_segment_fixed_size": private,
        "kernarg_size": kernarg,
        "user_sgpr_count": _bits(rsrc2, 1, 5),
        "user_sgpr_kernarg_preload_length": _bits(preload, 0, 7),
        "user_sgpr_kernarg_preload_offset": _bits(preload, 7, 9),
        "system_sgpr_workgroup_id_x": _bits(rsrc2, 7),
        "system_sgpr_workgroup_id_y": _bits(rsrc2, 8),
        "system_sgpr_workgroup_id_z": _bits(rsrc2, 9),
        "system_sgpr_workgroup_info": _bits(rsrc2, 10),
        "system_vgpr_workitem_id": _bits(rsrc2, 11, 2),
        "float_round_mode_32": _bits(rsrc1, 12, 2),
        "float_round_mode_16_64": _bits(rsrc1, 14, 2),
        "float_denorm_mode_32": _bits(rsrc1, 16, 2),
        "float_denorm_mode_16_64": _bits(rsrc1, 18, 2),
        "fp16_overflow": _bits(rsrc1, 26),
        "uses_dynamic_stack": _bits(properties, 11),
    }
    for bit, name in enumerate(_PROPERTIES):
        directives["user_sgpr_" + name] = _bits(properties, bit)
    if target.generation < 12:
        directives |= {"dx10_clamp": _bits(rsrc1, 21), "ieee_mode": _bits(rsrc1, 23)}
    if target.generation == 9:
        directives |= {"accum_offset": 4 * (_bits(rsrc3, 0, 6) + 1), "tg_split": _bits(rsrc3, 16)}
    # gfx90a passes the wave's scratch offset in an SGPR; the others have it in a hardware register
    private_name = (
        "system_sgpr_private_segment_wavefront_offset" if target.name == "gfx90a" else "enable_private_segment"
    )
    directives[private_name] = _bits(rsrc2, 0)
    return directives, entry
