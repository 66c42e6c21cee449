"""The configurations that kernels are launched with, and the classes of problems that share one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

import triton
from triton.backends.amd.compiler import HIPOptions
from triton.backends.nvidia.compiler import CUDAOptions

from .problem import Problem

# Fields that are no options of Triton's compiler.
_LAUNCHER_FIELDS = frozenset({"block_m", "block_n", "num_xcds", "round_by_add", "fp8"})
BLOCK_DIMS = (16, 32, 64, 128, 256, 512)
KERNELS = ("forward", "backward_dkdv", "backward_dq")


def _power_of_two(value: Any, least: int, most: int) -> bool:
    return _integer(value, least) and value <= most and value & (value - 1) == 0


def _integer(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


_RULES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "num_warps": ("a power of two from 1 to 32", lambda value: _power_of_two(value, 1, 32)),
    "num_stages": ("an integer from 1 on", lambda value: _integer(value, 1)),
    "num_xcds": ("an integer from 1 on", lambda value: _integer(value, 1)),
    "waves_per_eu": ("an integer from 0 on", lambda value: _integer(value, 0)),
    "matrix_instr_nonkdim": ("0, 16 or 32", lambda value: _integer(value, 0) and value in (0, 16, 32)),
    "kpack": ("1 or 2", lambda value: _integer(value, 1) and value <= 2),
    "allow_flush_denorm": ("true or false", lambda value: isinstance(value, bool)),
    "schedule_hint": ("a string", lambda value: isinstance(value, str)),
    "llvm_fn_attrs": ("a string", lambda value: isinstance(value, str)),
    "wgp_cu_mode": ("'wgp' or 'cu'", lambda value: value in ("wgp", "cu")),
    "num_ctas": ("a power of two from 1 to 16", lambda value: _power_of_two(value, 1, 16)),
    "maxnreg": ("null or an integer from 24 to 255", lambda v: v is None or (_integer(v, 24) and v <= 255)),
}


@dataclass(frozen=True)
class KernelConfig:
    """Tile and compiler options of a kernel; ``ValueError`` for a value that no kernel can be compiled with.

    Attributes:
        block_m: query rows of a tile; a power of two from ``least_block`` on.
        block_n: keys of a tile; a power of two from ``least_block`` on.
        num_warps: waves of a work group; a power of two up to 32.
        num_stages: depth of Triton's software pipeline; 1 is none.
        num_xcds: dies among which the hardware hands out work groups in turn.
        waves_per_eu: AMD: waves on a SIMD that the compiler has to make room for; 0 leaves it free.
        matrix_instr_nonkdim: AMD: rows and columns of a matrix instruction, 16 or 32; 0 leaves it to Triton.
        kpack: AMD: matrix operands that one LDS read fetches, 1 or 2; gfx950 has only 1.
        allow_flush_denorm: AMD: fp32 denormals may be flushed to zero.
        schedule_hint: AMD, Triton 3.6 and 3.7: a scheduling variant, such as ``attention``.
        llvm_fn_attrs: AMD, Triton 3.8 on: comma-separated function attributes for LLVM.
        wgp_cu_mode: AMD RDNA, Triton 3.9 on: ``wgp`` or ``cu``.
        num_ctas: NVIDIA: blocks of a cluster; a power of two up to 16.
        maxnreg: NVIDIA: most registers of a thread; ``None`` leaves it free.
        round_by_add: operands of the second products are rounded to bfloat16 by an addition, where no instruction
            converts. It follows from the architecture and is no part of a row: the lookup fills it in.
    """

    least_block: ClassVar[int] = 16

    block_m: int = 64
    block_n: int = 64
    num_warps: int = 4
    num_stages: int = 1
    num_xcds: int = 1
    waves_per_eu: int = 0
    matrix_instr_nonkdim: int = 0
    kpack: int = 1
    allow_flush_denorm: bool = False
    schedule_hint: str = ""
    llvm_fn_attrs: str = ""
    wgp_cu_mode: str = "wgp"
    num_ctas: int = 1
    maxnreg: int | None = None
    round_by_add: bool = field(default=True, metadata={"of_architecture": True})

    def __post_init__(self) -> None:
        """Check every value."""
        sizes = f"a power of two from {self.least_block} to 512"
        blocks = (sizes, lambda value: _power_of_two(value, self.least_block, 512))
        for name, (accepts, holds) in {"block_m": blocks, "block_n": blocks, **_RULES}.items():
            value = getattr(self, name)
            if not holds(value):
                raise ValueError(f"{name} is {value!r}; accepted: {accepts}")

    def options(self) -> dict[str, Any]:
        """Options of Triton's launch: of those that differ from their default, what the installed Triton knows."""
        chosen = {
            name: value
            for name, value in self._changed().items()
            if name not in _LAUNCHER_FIELDS and name in _known_options()
        }
        # Fused multiply-adds are Triton's default up to 3.9, and announced not to stay it.
        return {"num_warps": self.num_warps, "num_stages": self.num_stages, "enable_fp_fusion": True, **chosen}

    def as_row(self) -> dict[str, Any]:
        """The values that differ from their defaults, and the sizes that every row names."""
        always = {name: getattr(self, name) for name in ("block_m", "block_n", "num_warps", "num_stages")}
        accepted = self.row_keys()
        return always | {name: value for name, value in self._changed().items() if name in accepted}

    @classmethod
    def row_keys(cls) -> tuple[str, ...]:
        """The fields that a row can give."""
        return tuple(x.name for x in dataclasses.fields(cls) if "of_architecture" not in x.metadata)

    def _changed(self) -> dict[str, Any]:
        """Fields that differ from their defaults."""
        values = {x.name: (getattr(self, x.name), x.default) for x in dataclasses.fields(self)}
        return {name: value for name, (value, default) in values.items() if value != default}


@dataclass(frozen=True)
class ForwardConfig(KernelConfig):
    """Configuration of the forward kernel.

    Attributes:
        fp8: the 8-bit encoding that matrix instructions multiply: ``fnuz``, ``ocp`` or ``None``. It follows from the
            architecture and is no part of a row.
    """

    fp8: str | None = field(default=None, metadata={"of_architecture": True})


@dataclass(frozen=True)
class BackwardTile(KernelConfig):
    """Configuration of one of the two large backward kernels; fp32 products need no 16 rows or keys."""

    least_block = 8


@dataclass(frozen=True)
class BackwardConfig:
    """Those of the kernels for dK and dV (a block of keys a program) and for dQ (a block of rows a program)."""

    dkdv: BackwardTile = BackwardTile()
    dq: BackwardTile = BackwardTile()
    num_xcds: int = 1


@dataclass(frozen=True)
class ProblemClass:
    """Problems that one configuration serves.

    Attributes:
        kernel: one of ``KERNELS``.
        bits: width of the elements of q, k and v: 8, 16 or 32.
        block_d: the larger head dim, with qv the sum of both up to 512, rounded up to one of ``BLOCK_DIMS``.
        banded: whether a causal mask, a window or a chunk bounds the keys of a row.
    """

    kernel: str
    bits: int
    block_d: int
    banded: bool


def problem_class(problem: Problem, kernel: str) -> ProblemClass:
    """The class of a problem for one of the ``KERNELS``."""
    block_d = max(BLOCK_DIMS[0], triton.next_power_of_2(problem.depth))
    return ProblemClass(kernel, 8 * problem.k.element_size(), block_d, problem.is_banded)


@cache
def _known_options() -> frozenset[str]:
    """Options of the installed Triton; it rejects a launch with others."""
    return frozenset(HIPOptions.__dataclass_fields__) | frozenset(CUDAOptions.__dataclass_fields__)
