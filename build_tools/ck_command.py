"""``python -m build_tools ck``: compile the CK extension for any architecture, on a machine without a GPU."""

import argparse
import sys
from pathlib import Path

from .ck_build import LIBRARY, ROOT, CkBuild, build_ck
from .detect import detect
from .errors import BuildError
from .instances import PRESETS
from .kernel_report import kernel_table
from .obstacles import CK_ARCHS, ck_serves, obstacles_to
from .plan import GIB_PER_JOB, bounded_jobs, vendors_with_kernels
from .settings import Settings


def main(arguments: list[str]) -> int:
    """Compile, or list what would be compiled; return 1 when it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m build_tools ck", description=__doc__)
    parser.add_argument("--arch", action="append", metavar="GFX", help="as GPU_ARCHS; may be given several times")
    parser.add_argument("--head-dim", action="append", type=int, metavar="N", help="as OPT_DIM")
    parser.add_argument("--preset", choices=PRESETS, help="as FLASH_ATTENTION_CK_PRESET")
    parser.add_argument("--only", action="append", metavar="PATTERN", help="kernels whose name matches, as '*_bf16_*'")
    parser.add_argument("--output", type=Path, metavar="FILE", help=f"the library; flash_attn/{LIBRARY} by default")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="keeps objects between builds; build/ck by default")
    parser.add_argument("--report", action="store_true", help="print registers, spills, LDS... of what was compiled")
    options = parser.parse_args(arguments)
    try:
        settings = Settings.from_environment()
        detection = detect(settings)
        archs = tuple(options.arch or settings.gpu_archs or CK_ARCHS)
        unserved = [arch for arch in archs if not ck_serves(arch)]
        obstacles = obstacles_to("rocm", settings, detection, vendors_with_kernels(ROOT), cross=True)
        if unserved:
            obstacles.append(f"CK has no attention kernels for {', '.join(unserved)}; it has for {', '.join(CK_ARCHS)}")
        if obstacles:
            raise BuildError("\n  ".join(("the CK extension cannot be built here:", *obstacles)))
        jobs, warnings = bounded_jobs(settings, detection, GIB_PER_JOB["rocm"])
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr)
        build = CkBuild(
            archs,
            tuple(options.head_dim or settings.head_dims),
            options.preset or settings.ck_preset,
            (options.folder or ROOT / "build" / "ck").resolve(),
            (options.output or ROOT / "flash_attn" / LIBRARY).resolve(),
            jobs,
            tuple(options.only or ("*",)),
        )
        selections = build_ck(build, detection)
        print(f"{len(selections)} kernels for {', '.join(archs)} in {build.output}")
        if options.report:
            print(kernel_table(build.folder, selections, detection))
    except BuildError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    return 0
