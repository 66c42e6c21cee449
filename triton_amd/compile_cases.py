"""One problem for every class, on tensors without data, and what its kernel costs on an architecture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..architectures import Architecture
from .assembly_report import KernelReport, read_amd_assembly
from .backward import BACKWARD_ORDER, backward_launches, new_gradients
from .forward import forward_launch
from .kernel_config import BackwardConfig, BackwardTile, ForwardConfig, KernelConfig, ProblemClass
from .launch import Launch
from .nvidia_report import read_nvidia_kernel
from .offline import compiling_for
from .problem import Problem
from .tuning import for_architecture

_DTYPES = {16: torch.bfloat16, 32: torch.float32}
_SEQLEN, _NHEADS = 4096, 16


@dataclass(frozen=True)
class Case:
    """A problem that stands for its class: dense, causal if the class is banded, ``head_dim`` its largest.

    ``dtype`` of ``None`` is the class's most demanding one: bf16, fp32, or the architecture's fp8.
    """

    group: ProblemClass
    dtype: torch.dtype | None = None

    def dtype_on(self, architecture: Architecture) -> torch.dtype:
        """Element type of q, k and v."""
        if self.dtype is not None:
            return self.dtype
        if self.group.bits == 8:
            return torch.float8_e4m3fnuz if architecture.fp8 == "fnuz" else torch.float8_e4m3fn
        return _DTYPES[self.group.bits]

    def launch(self, config: KernelConfig, architecture: Architecture) -> Launch:
        """The launch of the class's kernel, on meta tensors."""
        head_dim = self.group.block_d
        q = _meta((1, _SEQLEN, _NHEADS, head_dim), self.dtype_on(architecture))
        right = 0 if self.group.banded else -1
        problem = Problem(q, q, q, _SEQLEN, _SEQLEN, head_dim**-0.5, window_right=right)
        out = _meta((1, _SEQLEN, _NHEADS, head_dim), torch.bfloat16 if self.group.bits == 8 else q.dtype)
        lse = _meta((1, _NHEADS, _SEQLEN), torch.float32)
        config = for_architecture(config, architecture.name)
        if isinstance(config, ForwardConfig):
            return forward_launch(problem, out, lse, config)
        assert isinstance(config, BackwardTile)
        both = BackwardConfig(config, config, config.num_xcds)
        launches = backward_launches(problem, out, lse, out, None, new_gradients(problem), both)
        return launches[BACKWARD_ORDER.index(self.group.kernel)]


def compile_case(case: Case, config: KernelConfig, architecture: Architecture) -> Any:
    """Triton's compiled kernel of a case; needs no GPU."""
    with compiling_for(architecture):
        return case.launch(config, architecture).compile()


def report_of_case(case: Case, config: KernelConfig, architecture: Architecture) -> KernelReport:
    """What the compiled kernel of a case costs."""
    compiled = compile_case(case, config, architecture)
    if architecture.vendor == "nvidia":
        return read_nvidia_kernel(compiled.asm, architecture, config.num_warps, compiled.metadata.shared)
    return read_amd_assembly(compiled.asm["amdgcn"], architecture, config.num_warps, compiled.metadata.shared)


def _meta(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")
