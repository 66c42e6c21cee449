"""The rounding and denormal fields of the MODE register, and the instructions that set them.

Compilers switch float32 denormals on and off around divisions. The mode is followed line by line while a
kernel is decoded, which is exact as long as it is back at the kernel's own mode wherever control may come
from or go elsewhere; a kernel that does otherwise is refused.
"""

from __future__ import annotations

import re

from amdgpu_sim.assembly import AsmLine
from amdgpu_sim.errors import AssemblyError

_SETREG = re.compile(r"s_setreg_imm32_b32 hwreg\(HW_REG_(?:WAVE_)?MODE, (\d+), (\d+)\), (0x[0-9a-f]+|\d+)")
_SHORT = re.compile(r"s_(round|denorm)_mode (0x[0-9a-f]+|\d+)")
# bits 0-1 round float32, 2-3 round float16 and float64; 4-5 and 6-7 their denormals (0 flushes, 3 keeps)
_FIELD_BITS = 8
_NEAREST, _FLUSH, _KEEP = 0, 0, 3


def initial_mode(directives: dict[str, int]) -> int:
    """The mode that a kernel starts with; AssemblyError if it is not modelled."""
    mode = sum(
        directives.get(name, default) << shift
        for name, default, shift in (
            ("float_round_mode_32", _NEAREST, 0),
            ("float_round_mode_16_64", _NEAREST, 2),
            ("float_denorm_mode_32", _KEEP, 4),
            ("float_denorm_mode_16_64", _KEEP, 6),
        )
    )
    if not _modelled(mode):
        raise AssemblyError(f"the kernel starts with float mode {mode:#x}: {_ACCEPTED}")
    return mode


_ACCEPTED = "only rounding to nearest is modelled, and denormals of float32 alone may be flushed"


def _modelled(mode: int) -> bool:
    return mode & 15 == _NEAREST and mode >> 4 & 3 in (_FLUSH, _KEEP) and mode >> 6 == _KEEP


def flushes_f32(mode: int) -> bool:
    """Whether float32 denormals are zero, as inputs and as results."""
    return mode >> 4 & 3 == _FLUSH


def sets_mode(line: AsmLine) -> bool:
    """Whether ``line`` sets the fields that are followed here, and no others."""
    match = _SETREG.fullmatch(line.text)
    return bool(_SHORT.fullmatch(line.text)) or bool(match and int(match[1]) + int(match[2]) <= _FIELD_BITS)


def mode_after(line: AsmLine, mode: int) -> int:
    """The mode after ``line``; UnsupportedInstructionError if it is not modelled."""
    if not sets_mode(line):
        return mode
    if match := _SETREG.fullmatch(line.text):
        shift, bits, value = (int(part, 0) for part in match.groups())
    else:
        match = _SHORT.fullmatch(line.text)
        assert match is not None
        shift, bits, value = (0 if match[1] == "round" else 4), 4, int(match[2], 0)
    mask = (1 << bits) - 1
    mode = mode & ~(mask << shift) | (value & mask) << shift
    if not _modelled(mode):
        raise line.unsupported(_ACCEPTED)
    return mode
