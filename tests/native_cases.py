"""Cases run on compiled kernels in a simulator, in a process of their own, since a process simulates one architecture.

A vendor's module of cases calls :func:`main`; :func:`simulate` runs such a module.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from build_tools.native_build import ROOT
from flash_attn import dispatch
from flash_attn.backends.native import NativeBackend
from flash_attn.testing import AttentionCase, DecodeCase, compare_attention, compare_decode

Case = AttentionCase | DecodeCase
Errors = dict[str, dict[str, tuple[float, float]]]


def main(backend: str, cases: Mapping[str, Case], arguments: list[str]) -> None:
    """Run cases by name on a library: ``ARCH LIBRARY NAME...``.

    Prints a JSON object: for each case its results, with error and allowed error.
    """
    arch, library, *names = arguments
    os.environ["FLASH_ATTENTION_SIMULATE"] = arch
    # what torch.empty returns is NaN then: a result that no kernel writes shows
    torch.use_deterministic_algorithms(True, warn_only=True)
    native = dispatch.backend(backend)
    assert isinstance(native, NativeBackend)
    native.library = replace(native.library, path=Path(library))
    found: Errors = {}
    with dispatch.use_backend(backend):
        for name in names:
            case = cases[name]
            results = compare_attention(case) if isinstance(case, AttentionCase) else compare_decode(case)
            found[name] = {result.name: (float(result.error), float(result.allowed)) for result in results}
    print(json.dumps(found))


@cache
def simulate(module: Path, library: Path, arch: str, *names: str) -> Errors:
    """Return the errors and allowed errors of every case of a module, by name and result."""
    done = subprocess.run(
        [sys.executable, str(module), arch, str(library), *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    found: Errors = json.loads(done.stdout.splitlines()[-1])
    return found
