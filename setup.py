"""Builds flash-attn; what there is to know about the build is in build_tools/."""

import sys
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from build_tools.distribution import setup_arguments  # noqa: E402
from build_tools.errors import BuildError  # noqa: E402
from build_tools.settings import Settings  # noqa: E402

try:
    setup(**setup_arguments(ROOT, Settings.from_environment()))
except BuildError as error:
    raise SystemExit(f"error: {error}") from None
