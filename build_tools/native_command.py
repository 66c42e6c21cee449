"""``python -m build_tools ck`` and ``cuda``: compile an extension for any architecture, on a machine without a GPU."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .ck_build import CkBuild
from .cuda_build import CudaBuild
from .cuda_report import cuda_table
from .detect import Detection, detect
from .errors import BuildError
from .instances import PRESETS, Selection
from .kernel_report import ck_table
from .native_build import LIBRARIES, ROOT, NativeBuild, compile_extension
from .obstacles import CK_ARCHS, obstacles_to
from .plan import GIB_PER_JOB, bounded_jobs, default_cuda_archs, vendors_with_kernels
from .settings import Settings
from .torch_build import Vendor

Table = Callable[[Path, Sequence[Selection], Detection], str]


@dataclass(frozen=True)
class Extension:
    """A subcommand: ``settings`` names the variables of architectures and preset that its options stand for."""

    name: str
    vendor: Vendor
    settings: tuple[str, str]
    example: str
    table: Table

    @property
    def library(self) -> str:
        """File name of what is built."""
        return LIBRARIES[self.vendor]


CK = Extension("ck", "rocm", ("GPU_ARCHS", "FLASH_ATTENTION_CK_PRESET"), "gfx942", ck_table)
CUDA = Extension("cuda", "cuda", ("FLASH_ATTN_CUDA_ARCHS", "FLASH_ATTENTION_CUDA_PRESET"), "sm_80 sm_90a", cuda_table)
EXTENSIONS = {extension.name: extension for extension in (CK, CUDA)}


def main(extension: Extension, arguments: list[str]) -> int:
    """Compile; return 1 when it cannot be done."""
    options = _parser(extension).parse_args(arguments)
    try:
        settings = Settings.from_environment(overrides=_overrides(extension, options))
        detection = detect(settings)
        build = _build(extension, options, settings, detection)
        selections = compile_extension(build, detection)
        print(f"{len(selections)} kernels for {', '.join(build.archs)} in {build.output}")
        if options.report:
            print(extension.table(build.folder, selections, detection))
    except BuildError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    return 0


def _parser(extension: Extension) -> argparse.ArgumentParser:
    archs, preset = extension.settings
    folder = f"build/{extension.name}"
    parser = argparse.ArgumentParser(
        prog=f"python -m build_tools {extension.name}", description=f"Compile the {extension.name} extension."
    )
    parser.add_argument(
        "--arch", nargs="+", action="extend", metavar="ARCH", help=f"as {archs}, such as {extension.example}"
    )
    parser.add_argument("--head-dim", nargs="+", action="extend", type=int, metavar="N", help="as OPT_DIM")
    parser.add_argument("--preset", choices=PRESETS, help=f"as {preset}")
    parser.add_argument("--only", action="append", metavar="PATTERN", help="kernels whose name matches, as '*_bf16_*'")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help=f"the library; flash_attn/{extension.library} by default"
    )
    parser.add_argument("--folder", type=Path, metavar="DIR", help=f"keeps objects between builds; {folder} by default")
    parser.add_argument("--report", action="store_true", help="print registers, spills... of what was compiled")
    if extension is CUDA:
        parser.add_argument(
            "--simulated", action="store_true", help="PTX and the runtime of the process, for execution on a CPU"
        )
    return parser


def _overrides(extension: Extension, options: argparse.Namespace) -> dict[str, str]:
    """Return the variables that options stand for."""
    archs, preset = extension.settings
    given = {
        archs: ";".join(options.arch or ()),
        preset: options.preset,
        "OPT_DIM": ",".join(str(dim) for dim in options.head_dim or ()),
    }
    return {name: value for name, value in given.items() if value}


def _build(extension: Extension, options: argparse.Namespace, settings: Settings, detection: Detection) -> NativeBuild:
    """Return what the options ask for; BuildError if it cannot be built here."""
    obstacles = obstacles_to(extension.vendor, settings, detection, vendors_with_kernels(ROOT), cross=True)
    if obstacles:
        raise BuildError("\n  ".join((f"the {extension.name} extension cannot be built here:", *obstacles)))
    jobs, warnings = bounded_jobs(settings, detection, GIB_PER_JOB[extension.vendor])
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    folder = (options.folder or ROOT / "build" / extension.name).resolve()
    output = (options.output or ROOT / "flash_attn" / extension.library).resolve()
    only = tuple(options.only or ("*",))
    if extension is CK:
        archs = settings.gpu_archs or CK_ARCHS
        return CkBuild(archs, settings.head_dims, settings.ck_preset, folder, output, jobs, only)
    archs = settings.cuda_archs or default_cuda_archs(detection)
    return CudaBuild(
        archs, settings.head_dims, settings.cuda_preset, folder, output, jobs, only, simulated=options.simulated
    )
