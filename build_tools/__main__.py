"""``python -m build_tools [--json]``: what a build would find, choose and why, without building.

``python -m build_tools ck --help`` compiles the CK extension, ``cuda`` the CUDA one.
"""

import argparse
import json
import sys
from pathlib import Path

from . import native_command
from .detect import detect
from .errors import BuildError
from .plan import decide, vendors_with_kernels
from .report import describe_detection, describe_plan, metadata
from .settings import Settings


def main(arguments: list[str] | None = None) -> int:
    """Print detection and plan; return 1 when what was asked for cannot be built."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in native_command.EXTENSIONS:
        return native_command.main(native_command.EXTENSIONS[arguments[0]], arguments[1:])
    parser = argparse.ArgumentParser(prog="python -m build_tools", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    as_json: bool = parser.parse_args(arguments).json
    try:
        settings = Settings.from_environment()
    except BuildError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    detection = detect(settings)
    plan, error = None, None
    try:
        plan = decide(settings, detection, vendors_with_kernels(Path(__file__).resolve().parent.parent))
    except BuildError as problem:
        error = str(problem)
    if as_json:
        print(json.dumps({**metadata(settings, detection, plan), "error": error}, indent=2))
    else:
        print("found", describe_detection(detection), sep="\n")
        if plan:
            print("plan", describe_plan(plan), sep="\n")
    if error:
        print(f"error: {error}", file=sys.stderr)
    return 1 if error else 0


if __name__ == "__main__":
    sys.exit(main())
