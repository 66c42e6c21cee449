"""Kernels of csrc_cuda compiled to PTX, and their launches in the interpreter."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
from backward_calls import BackwardCall
from kernel_params import ForwardParams, Params, SplitParams, fill, fill_split, lengths_of_caches, put
from torch import Tensor

import ptx_sim
from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends.base import AttentionInputs, ForwardResult, Gradients

_ROOT = Path(__file__).parents[2]
_ELEMENTS = {torch.float16: "cutlass::half_t", torch.bfloat16: "cutlass::bfloat16_t"}
_FLAGS = ("-std=c++20", "-O3", "--expt-relaxed-constexpr", "-arch=compute_80", "-ptx")
_SOURCE = """namespace flash_attn::cuda {{
struct {name}
    : sm80::{title}<{element}, sm80::{title}Tile<{tile}>, {head_dim}, sm80::{title}Features{{{features}}}> {{}};
template void sm80::launch_{phase}<{name}>(const {title}Params&, cudaStream_t);
}}
extern "C" __device__ int {name}_shared_bytes = flash_attn::cuda::{name}::kSharedBytes;
extern "C" __device__ int {name}_params_bytes = sizeof(flash_attn::{title}Params);
"""


class Kernel(NamedTuple):
    """What a generated translation unit names: a phase, an element, a tile, a head dim, features."""

    phase: str
    dtype: torch.dtype
    head_dim: int
    block_m: int
    block_n: int
    warps: int
    features: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of its instance."""
        return "_".join((self.phase, str(self.dtype).removeprefix("torch."), f"d{self.head_dim}", *self.features))

    @property
    def source(self) -> str:
        """Its part of a translation unit."""
        order = ("varlen", "paged", "masked", "softcap", "alibi", "dropout", "deterministic")
        features = ", ".join(f".{name} = true" for name in order if name in self.features)
        return _SOURCE.format(
            name=self.name,
            phase=self.phase,
            title=self.phase.title(),
            element=_ELEMENTS[self.dtype],
            tile=f"{self.block_m}, {self.block_n}, {self.warps}",
            head_dim=self.head_dim,
            features=features,
        )


def cutlass_include() -> str:
    """Folder of CUTLASS headers; RuntimeError if there are none."""
    if folder := os.environ.get("CUTLASS_DIR"):
        return f"{folder}/include"
    found = importlib.util.find_spec("cutlass_library")
    if found is None or found.origin is None:
        raise RuntimeError("no CUTLASS headers: pip install --no-deps nvidia-cutlass==4.2.0.0, or set CUTLASS_DIR")
    return str(Path(found.origin).parent / "source" / "include")


def headers_hash() -> str:
    """Changes with the headers that kernels include."""
    digest = hashlib.sha256()
    for path in sorted([*_ROOT.glob("csrc_cuda/*/*.h"), *_ROOT.glob("csrc_common/*.h")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class Unit:
    """Kernels by name that nvcc compiles together, since reading CuTe takes longer than one of them.

    A run after another finds the PTX in the folder of temporary files.
    """

    def __init__(self, **kernels: Kernel) -> None:
        self._kernels = kernels

    def __getitem__(self, name: str) -> Kernel:
        return self._kernels[name]

    @functools.cached_property
    def module(self) -> ptx_sim.Module:
        """The PTX, compiled."""
        phases = sorted({kernel.phase for kernel in self._kernels.values()})
        text = "".join(f'#include "sm80/{phase}.h"\n' for phase in phases)
        text += "".join(dict.fromkeys(kernel.source for kernel in self._kernels.values()))
        name = hashlib.sha256((text + headers_hash()).encode()).hexdigest()[:32]
        folder = Path(tempfile.gettempdir()) / "flash_attn_cuda_ptx"
        folder.mkdir(exist_ok=True)
        ptx = folder / f"{name}.ptx"
        if not ptx.exists():
            source, made = folder / f"{name}.cu", folder / f"{name}.{os.getpid()}"
            source.write_text(text)
            includes = ("-I", str(_ROOT / "csrc_common"), "-I", str(_ROOT / "csrc_cuda"), "-I", cutlass_include())
            subprocess.run(("nvcc", *_FLAGS, *includes, "-o", str(made), str(source)), check=True)
            made.rename(ptx)
        return ptx_sim.load(ptx.read_text())

    def launch(self, name: str, blocks: int, params: Params, tensors: tuple[Tensor | None, ...]) -> None:
        """Run kernel ``name``, which may touch the storages of ``tensors`` alone."""
        kernel = self._kernels[name]

        def constant(what: str) -> int:
            return int(self.module.variables[f"{kernel.name}_{what}"].view("int32")[0])

        assert constant("params_bytes") == len(bytes(params))
        if blocks == 0:
            return
        memory = ptx_sim.GlobalMemory()
        for number, tensor in enumerate(tensors):
            if tensor is not None:
                storage = tensor.untyped_storage()
                memory.add_host(storage.data_ptr(), storage.nbytes(), f"tensor {number}")
        mangled = f"{len(kernel.name)}{kernel.name}E"
        (symbol,) = (symbol for symbol in self.module.kernels if mangled in symbol)
        threads = (kernel.warps * 32,)
        self.module.kernel(symbol).launch((blocks,), threads, constant("shared_bytes"), [bytes(params)], memory=memory)


def _blocks(rows: int, block: int) -> int:
    return -(-rows // block)


def _tensors(inputs: AttentionInputs) -> tuple[Tensor | None, ...]:
    return tuple(value for value in inputs if isinstance(value, Tensor))


def forward(unit: Unit, name: str, spec: AttentionSpec, inputs: AttentionInputs) -> ForwardResult:
    """As ForwardParams asks for it; what the kernel leaves alone is NaN."""
    nan = float("nan")
    out = inputs.q.new_full((*inputs.q.shape[:-1], spec.head_dim_v), nan)
    rows = (inputs.q.shape[0],) if spec.varlen_q else (inputs.max_seqlen_q,)
    heads = (spec.nheads_q,) if spec.varlen_q else (inputs.batch_size, spec.nheads_q)
    lse = torch.full((*heads, *rows), nan)
    params = ForwardParams()
    fill(params, spec, inputs)
    put(params, out=out, softmax_lse=lse)
    blocks = _blocks(inputs.max_seqlen_q, unit[name].block_m) * spec.nheads_q * inputs.batch_size
    unit.launch(name, blocks, params, (*_tensors(inputs), out, lse))
    return ForwardResult(out, lse)


def backward(
    unit: Unit,
    name: str,
    spec: AttentionSpec,
    inputs: AttentionInputs,
    result: ForwardResult,
    dout: Tensor,
    dlse: Tensor,
) -> Gradients:
    """As BackwardParams asks for it, with what the host adds."""
    call = BackwardCall(spec, inputs, result, dout, dlse, unit[name].block_n)
    blocks = _blocks(inputs.max_seqlen_k, unit[name].block_n) * spec.nheads_q * inputs.batch_size
    unit.launch(name, blocks, call.params, call.tensors)
    return call.gradients()


def split(
    unit: Unit, name: str, spec: AttentionSpec, inputs: AttentionInputs, num_splits: int
) -> tuple[Tensor, Tensor]:
    """As SplitParams asks for it: results of the splits, not merged; what the kernel leaves alone is NaN."""
    inputs = lengths_of_caches(inputs)
    params = SplitParams()
    out, lse = fill_split(params, spec, inputs, num_splits)
    groups = _blocks(inputs.max_seqlen_q * spec.nheads_per_group, unit[name].block_m)
    blocks = groups * num_splits * spec.nheads_k * inputs.batch_size
    unit.launch(name, blocks, params, (*_tensors(inputs), out, lse))
    return out, lse
