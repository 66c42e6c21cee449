"""Compile the CK extension: instances, dispatch table and binding into one library."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from csrc_ck.generate import select
from csrc_ck.instances import LANGUAGE

from .detect import Detection
from .errors import BuildError
from .instances import Preset, Selection, write
from .ninja_file import Edge, Rule, ninja_text, run_ninja

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = "_ck.so"
NAMESPACE = "flash_attn_ck"
# LibTorch's stable ABI as of 2.10: the library then loads with every later PyTorch.
TORCH_TARGET_VERSION = "0x020A000000000000"

# CK-tile's exponential with base 2 folded into the scale, and bf16 rounded to nearest even.
KERNEL_FLAGS = (
    "-O3",
    "-std=c++20",
    "-fPIC",
    "-fvisibility=hidden",
    "-fgpu-flush-denormals-to-zero",
    "-w",
    "-DCK_TILE_FMHA_FWD_FAST_EXP2=1",
    "-DCK_TILE_FLOAT_TO_BFLOAT16_DEFAULT=3",
    "-Rpass-analysis=kernel-resource-usage",
)
HOST_SECONDS = 4.0


@dataclass(frozen=True)
class CkBuild:
    """What to compile, with what, and where. ``folder`` keeps objects between builds."""

    archs: tuple[str, ...]
    head_dims: tuple[int, ...]
    preset: Preset
    folder: Path
    output: Path
    jobs: int
    only: tuple[str, ...] = ("*",)

    def selections(self) -> list[Selection]:
        """Return the instances; BuildError if there are none."""
        selections = select(self.archs, self.head_dims, self.preset, self.only)
        if not selections:
            raise BuildError(
                f"preset {self.preset} has no CK kernels named {' or '.join(self.only)} for "
                f"GPU_ARCHS={';'.join(self.archs)} and OPT_DIM={','.join(str(dim) for dim in self.head_dims)}"
            )
        return selections


def build_ck(build: CkBuild, detection: Detection) -> list[Selection]:
    """Compile and link what is not up to date; return the instances in the library.

    ``detection`` has the ROCm, CK, PyTorch, compiler and ninja that :func:`obstacles_to` asks for.

    Raises:
        BuildError: a command failed.
    """
    assert detection.host.ninja
    selections = build.selections()
    build.folder.mkdir(parents=True, exist_ok=True)
    build.output.parent.mkdir(parents=True, exist_ok=True)
    generated = build.folder / "generated"
    *kernels, table = write(selections, generated, LANGUAGE)
    edges = _edges(build, detection, selections, kernels, table)
    text = ninja_text(_rules(detection), edges)
    ninja_file = build.folder / "build.ninja"
    if not ninja_file.is_file() or ninja_file.read_text(encoding="utf-8") != text:
        ninja_file.write_text(text, encoding="utf-8")
    run_ninja(detection.host.ninja.path, build.folder, edges, build.jobs)
    return selections


def _rules(detection: Detection) -> list[Rule]:
    rocm, torch, host = detection.rocm, detection.torch, detection.host
    assert rocm
    assert torch
    assert host.compiler
    assert detection.ck_include
    common, ck = ROOT / "csrc_common", ROOT / "csrc_ck"
    depfile = ("-MD", "-MF", "$out.d")
    remarks = "$out.remarks"
    hip: list[str | Path] = [
        *(str(rocm.compiler.path), "-x", "hip", "$archs", f"--rocm-path={rocm.path}"),
        *(f"-I{common}", f"-I{ck}", f"-I{detection.ck_include}", f"-I{rocm.path}/include"),
        *KERNEL_FLAGS,
        *depfile,
        *("-c", "$in", "-o", "$out"),
    ]
    host_flags: list[str | Path] = [
        *("-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", "-Wall"),
        *("-DUSE_CUDA", "-DUSE_ROCM", "-D__HIP_PLATFORM_AMD__=1"),
        *(f"-DFLASH_ATTN_LIBRARY={NAMESPACE}", f"-DTORCH_TARGET_VERSION={TORCH_TARGET_VERSION}"),
        *(f"-I{common}", f"-I{ck}", "-isystem", f"{rocm.path}/include"),
        *("-isystem", torch.path / "include", "-isystem", torch.path / "include/torch/csrc/api/include"),
    ]
    # A library of ROCm may need a newer C library than this machine's, which matters only where it runs.
    libraries = (f"-L{rocm.path}/lib", "-lamdhip64", f"-L{torch.path}/lib", "-ltorch")
    link = ["-shared", "-o", "$out", "$in", "-Wl,--allow-shlib-undefined", "-Wl,--no-as-needed", *libraries]
    quiet: list[str | Path] = [sys.executable, ROOT / "build_tools/compile_kernel.py", remarks]
    return [
        Rule("kernel", [*quiet, *hip], depfile=True),
        Rule("host", [host.compiler.path, *host_flags, *depfile, "-c", "$in", "-o", "$out"], depfile=True),
        Rule("hipify", [sys.executable, ROOT / "build_tools/hipify.py", torch.path, "$in", "$out"]),
        Rule("link", [host.compiler.path, *link]),
    ]


def _edges(
    build: CkBuild, detection: Detection, selections: Sequence[Selection], kernels: Sequence[Path], table: Path
) -> list[Edge]:
    folder, common = build.folder, ROOT / "csrc_common"
    translated = folder / "generated" / "device_hip.cpp"
    edges = [Edge("hipify", translated, [common / "device.cpp"], 1.0, implicit=[ROOT / "build_tools/hipify.py"])]
    objects = []
    for source in (common / "api.cpp", translated, common / "dispatch.cpp", table):
        objects.append(folder / f"{source.stem}.o")
        edges.append(Edge("host", objects[-1], [source], HOST_SECONDS))
    for selection, kernel in zip(selections, kernels, strict=True):
        objects.append(folder / f"{kernel.stem}.o")
        flags = " ".join(f"--offload-arch={arch}" for arch in selection.archs)
        edges.append(Edge("kernel", objects[-1], [kernel], selection.seconds, {"archs": flags}))
    edges.append(Edge("link", build.output, objects, 2.0))
    return edges
