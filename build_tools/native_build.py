"""Compile a vendor's extension: instances, portable kernels, dispatch table and binding into one library."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from .detect import Detection
from .errors import BuildError
from .instances import Language, Preset, Selection, write
from .ninja_file import Edge, Rule, ninja_text, run_ninja
from .torch_build import Vendor

ROOT = Path(__file__).resolve().parent.parent
COMMON = ROOT / "csrc_common"
# LibTorch's stable ABI as of 2.10: the library then loads with every later PyTorch.
TORCH_TARGET_VERSION = "0x020A000000000000"
HOST_SECONDS = 4.0
PORTABLE_SECONDS = 3.0  # of one architecture
LIBRARIES: dict[Vendor, str] = {"rocm": "_ck.so", "cuda": "_cuda.so"}

Words = list[str | Path]


@dataclass(frozen=True)
class NativeBuild(ABC):
    """What to compile, with what, and where. ``folder`` keeps objects between builds."""

    archs: tuple[str, ...]
    head_dims: tuple[int, ...]
    preset: Preset
    folder: Path
    output: Path
    jobs: int
    only: tuple[str, ...] = ("*",)

    kernels: ClassVar[str]
    arch_setting: ClassVar[str]
    operators: ClassVar[str]
    language: ClassVar[Language]

    def selections(self) -> list[Selection]:
        """Return the instances; BuildError if there are none."""
        selections = self.select()
        if not selections:
            raise BuildError(
                f"preset {self.preset} has no {self.kernels} kernels named {' or '.join(self.only)} for "
                f"{self.arch_setting}={';'.join(self.archs)} and OPT_DIM={','.join(str(dim) for dim in self.head_dims)}"
            )
        return selections

    @abstractmethod
    def select(self) -> list[Selection]:
        """Return the instances that the generator has for this build."""

    @abstractmethod
    def kernel_command(self, detection: Detection) -> Words:
        """Return the compiler of kernels and its flags; ``$archs`` stands for those of :meth:`arch_flags`."""

    @abstractmethod
    def arch_flags(self, archs: Sequence[str]) -> str:
        """Return the compiler's flags for the architectures of a kernel."""

    @abstractmethod
    def host_flags(self, detection: Detection) -> Words:
        """Return the host compiler's flags for the vendor's runtime."""

    @abstractmethod
    def libraries(self, detection: Detection) -> Words:
        """Return the linker's flags for the vendor's runtime."""

    def translations(self, detection: Detection) -> tuple[list[Rule], list[Edge]]:
        """Return what makes :meth:`device_source` and :meth:`portable_source` where they are not in the tree."""
        return [], []

    def portable_source(self, source: Path) -> Path:
        """Return what is compiled of a portable kernel."""
        return source

    @property
    def device_source(self) -> Path:
        """The calls into the vendor's runtime."""
        return COMMON / "device.cpp"


def compile_extension(build: NativeBuild, detection: Detection) -> list[Selection]:
    """Compile and link what is not up to date; return the instances in the library.

    ``detection`` has the toolkit, headers, PyTorch, compiler and ninja that :func:`obstacles_to` asks for.

    Raises:
        BuildError: a command failed.
    """
    assert detection.host.ninja
    selections = build.selections()
    build.folder.mkdir(parents=True, exist_ok=True)
    build.output.parent.mkdir(parents=True, exist_ok=True)
    *kernels, table = write(selections, build.folder / "generated", build.language)
    rules, edges = build.translations(detection)
    rules = [*_rules(build, detection), *rules]
    edges = [*edges, *_edges(build, selections, kernels, table)]
    text = ninja_text(rules, edges)
    ninja_file = build.folder / "build.ninja"
    if not ninja_file.is_file() or ninja_file.read_text(encoding="utf-8") != text:
        ninja_file.write_text(text, encoding="utf-8")
    run_ninja(detection.host.ninja.path, build.folder, edges, build.jobs)
    return selections


def portable_kernels() -> list[Path]:
    """Return the kernels that both vendors compile, once for all architectures of a build."""
    return sorted(COMMON.glob("*.cu"))


def _rules(build: NativeBuild, detection: Detection) -> list[Rule]:
    torch, host = detection.torch, detection.host
    assert torch
    assert host.compiler
    depfile = ("-MD", "-MF", "$out.d")
    compile_kernel: Words = [sys.executable, ROOT / "build_tools/compile_kernel.py", "$out.remarks"]
    host_flags: Words = [
        *("-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", "-Wall", "-DUSE_CUDA"),
        *(f"-DFLASH_ATTN_LIBRARY={build.operators}", f"-DTORCH_TARGET_VERSION={TORCH_TARGET_VERSION}", f"-I{COMMON}"),
        *build.host_flags(detection),
        *("-isystem", torch.path / "include", "-isystem", torch.path / "include/torch/csrc/api/include"),
    ]
    link: Words = ["-shared", "-o", "$out", "$in", "-Wl,--allow-shlib-undefined", "-Wl,--no-as-needed"]
    libraries: Words = [*build.libraries(detection), f"-L{torch.path}/lib", "-ltorch"]
    kernel = [*compile_kernel, *build.kernel_command(detection), *depfile, "-c", "$in", "-o", "$out"]
    return [
        Rule("kernel", kernel, depfile=True),
        Rule("host", [host.compiler.path, *host_flags, *depfile, "-c", "$in", "-o", "$out"], depfile=True),
        Rule("link", [host.compiler.path, *link, *libraries]),
    ]


def _edges(build: NativeBuild, selections: Sequence[Selection], kernels: Sequence[Path], table: Path) -> list[Edge]:
    edges, objects = [], []
    binding = (COMMON / "api.cpp", COMMON / "portable_api.cpp", build.device_source, COMMON / "dispatch.cpp")
    for source in (*binding, table):
        objects.append(build.folder / f"{source.stem}.o")
        edges.append(Edge("host", objects[-1], [source], HOST_SECONDS))
    for selection, kernel in zip(selections, kernels, strict=True):
        objects.append(build.folder / f"{kernel.stem}.o")
        variables = {"archs": build.arch_flags(selection.archs)}
        edges.append(Edge("kernel", objects[-1], [kernel], selection.seconds, variables))
    archs = tuple(dict.fromkeys(arch for selection in selections for arch in selection.archs))
    for source in map(build.portable_source, portable_kernels()):
        objects.append(build.folder / f"{source.stem}.o")
        seconds = PORTABLE_SECONDS * len(archs)
        edges.append(Edge("kernel", objects[-1], [source], seconds, {"archs": build.arch_flags(archs)}))
    return [*edges, Edge("link", build.output, objects, 2.0)]
