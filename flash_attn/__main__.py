"""``python -m flash_attn info | check | bench | support``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from flash_attn import environment
from flash_attn.diagnostics import bench, check, info, support


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command == "info":
        report = info.collect()
        print(json.dumps(report, indent=2, default=str) if options.json else info.render(report))
        return 0
    try:
        environment.check_values()
    except ValueError as error:
        parser.error(str(error))
    if options.command == "check":
        return check.run_check(options.backend, options.device, options.quick)
    if options.command == "bench":
        return bench.run_bench(options.json, options.plot, options.quick)
    print(support.support_matrix())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m flash_attn", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    about = commands.add_parser("info", help="what is installed, which backends can run and why others cannot")
    about.add_argument("--json", action="store_true", help="print JSON")
    checking = commands.add_parser(
        "check",
        help="run every feature on this machine and compare with the oracle",
        epilog="Exit code: 0 all passed, 1 something failed, 2 the backend is not available.",
    )
    checking.add_argument(
        "--backend", choices=support.BACKENDS, help="default: FLASH_ATTENTION_BACKEND, else the fastest available"
    )
    checking.add_argument("--device", choices=("cpu", "cuda"), help="where to run; cuda stands for AMD's GPUs too")
    checking.add_argument("--quick", action="store_true", help="one dtype instead of three")
    timing = commands.add_parser("bench", help="time attention against PyTorch's scaled_dot_product_attention")
    timing.add_argument("--json", type=Path, metavar="PATH", help="write one JSON line a measurement")
    timing.add_argument("--plot", type=Path, metavar="PATH.png", help="draw the ratios (needs matplotlib)")
    timing.add_argument("--quick", action="store_true", help="small problems and few rounds")
    commands.add_parser("support", help="print the matrix backend x feature as Markdown")
    return parser


if __name__ == "__main__":
    sys.exit(main())
