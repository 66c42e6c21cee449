"""Kernels of csrc_cuda/sm90 with their launch code, built by nvcc and executed by the stand-in for the CUDA runtime."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from backward_calls import BackwardCall
from kernel_params import ForwardParams, Params, SplitParams, fill, fill_split, lengths_of_caches, put
from sm80_kernels import cutlass_include, headers_hash
from torch import Tensor

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends.base import AttentionInputs, ForwardResult, Gradients
from ptx_sim.cuda.device import cuda_device
from ptx_sim.cuda.library import library_folder
from ptx_sim.report import RunReport

_ROOT = Path(__file__).parents[2]
_ELEMENTS = {
    torch.float16: "cutlass::half_t",
    torch.bfloat16: "cutlass::bfloat16_t",
    torch.float8_e4m3fn: "cutlass::float_e4m3_t",
}
_FLAGS = (
    *("-std=c++20", "-O3", "--expt-relaxed-constexpr", "-gencode=arch=compute_90a,code=compute_90a", "--no-compress"),
    *("-shared", "-Xcompiler", "-fPIC", "-cudart", "shared"),
)
_SOURCE = """#include "sm90/{prefix}{phase}.h"
namespace flash_attn::cuda {{
struct instance
    : sm90::{kind}<{element}, sm90::{title}Tile<{tile}>, {head_dim}, sm90::{title}Features{{{features}}}> {{}};
}}
extern "C" int params_bytes() {{ return sizeof(flash_attn::{title}Params); }}
extern "C" const char* launch(const flash_attn::{title}Params* params) {{
  static std::string error;
  try {{
    flash_attn::cuda::sm90::launch_{phase}<flash_attn::cuda::instance>(*params, nullptr);
    return nullptr;
  }} catch (const std::exception& caught) {{
    return (error = caught.what()).c_str();
  }}
}}
"""


class Kernel(NamedTuple):
    """What a generated translation unit names; ``tile`` is (queries, keys, stages)."""

    dtype: torch.dtype
    head_dim: int
    tile: tuple[int, int, int]
    features: tuple[str, ...]
    phase: str = "forward"

    @property
    def source(self) -> str:
        """The library's source."""
        order = ("varlen", "paged", "masked", "softcap", "alibi", "dropout", "deterministic")
        is_fp8 = self.dtype.itemsize == 1
        title = self.phase.title()
        return _SOURCE.format(
            prefix="fp8_" if is_fp8 else "",
            kind=f"Fp8{title}" if is_fp8 else title,
            phase=self.phase,
            title=title,
            element=_ELEMENTS[self.dtype],
            tile=", ".join(str(number) for number in self.tile),
            head_dim=self.head_dim,
            features=", ".join(f".{name} = true" for name in order if name in self.features),
        )


@functools.cache
def _library(kernel: Kernel) -> ctypes.CDLL:
    """The kernel's library, which a run after another finds in the folder of temporary files."""
    name = hashlib.sha256((kernel.source + headers_hash()).encode()).hexdigest()[:32]
    folder = Path(tempfile.gettempdir()) / "flash_attn_cuda_libraries"
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.so"
    if not path.exists():
        source, made = folder / f"{name}.cu", folder / f"{name}.{os.getpid()}"
        source.write_text(kernel.source)
        includes = ("-I", str(_ROOT / "csrc_common"), "-I", str(_ROOT / "csrc_cuda"), "-I", cutlass_include())
        command = ("nvcc", *_FLAGS, *includes, f"-L{library_folder()}", "-o", str(made), str(source))
        subprocess.run(command, check=True)
        made.rename(path)
    library = ctypes.CDLL(str(path))
    library.launch.restype = ctypes.c_char_p
    return library


def forward(
    kernel: Kernel, spec: AttentionSpec, inputs: AttentionInputs, multiprocessors: int = 3
) -> tuple[ForwardResult, RunReport | None]:
    """As ForwardParams asks for it, on so many multiprocessors; what the kernel leaves alone is NaN.

    RuntimeError with the words of the launch code where it refuses; the errors of ptx_sim where the kernel is wrong.
    """
    nan = float("nan")
    out = inputs.q.new_full((*inputs.q.shape[:-1], spec.head_dim_v), nan, dtype=spec.out_dtype)
    rows = (inputs.q.shape[0],) if spec.varlen_q else (inputs.max_seqlen_q,)
    heads = (spec.nheads_q,) if spec.varlen_q else (inputs.batch_size, spec.nheads_q)
    lse = torch.full((*heads, *rows), nan)
    params = ForwardParams()
    fill(params, spec, inputs)
    put(params, out=out, softmax_lse=lse)
    return ForwardResult(out, lse), _launch(kernel, params, (*inputs, out, lse), multiprocessors)


def split(kernel: Kernel, spec: AttentionSpec, inputs: AttentionInputs, num_splits: int) -> tuple[Tensor, Tensor]:
    """As SplitParams asks for it: results of the splits, not merged; what the kernel leaves alone is NaN."""
    inputs = lengths_of_caches(inputs)
    params = SplitParams()
    out, lse = fill_split(params, spec, inputs, num_splits)
    _launch(kernel, params, (*inputs, out, lse))
    return out, lse


def backward(
    kernel: Kernel,
    spec: AttentionSpec,
    inputs: AttentionInputs,
    result: ForwardResult,
    dout: Tensor,
    dlse: Tensor,
    multiprocessors: int = 3,
) -> Gradients:
    """As BackwardParams asks for it, with what the host adds; errors as :func:`forward` has them."""
    call = BackwardCall(spec, inputs, result, dout, dlse, kernel.tile[1])
    _launch(kernel, call.params, call.tensors, multiprocessors)
    return call.gradients()


def _launch(kernel: Kernel, params: Params, values: tuple[object, ...], multiprocessors: int = 3) -> RunReport | None:
    """Launch a kernel that may touch the tensors of ``values`` alone."""
    with cuda_device("sm_90") as device:
        device.target = replace(device.target, processors=multiprocessors)
        library = _library(kernel)
        assert library.params_bytes() == len(bytes(params))
        tensors = [value for value in values if isinstance(value, Tensor) and value.numel()]
        with device.allow(*tensors):
            error = library.launch(ctypes.byref(params))
        if error is not None:
            raise RuntimeError(error.decode())
        return device.last_report
