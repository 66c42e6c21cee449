"""Compile shipped configurations without a GPU and say what their kernels cost.

    python -m flash_attn.triton_amd.aot [--arch gfx942] [--kernel forward] [--head-dim 128] [--dtype bf16]
                                        [--causal | --full] [--json]
    python -m flash_attn.triton_amd.aot --check BASELINE.json [--arch ...]     resources no worse than recorded
    python -m flash_attn.triton_amd.aot --record BASELINE.json [--arch ...]    write the baseline anew

A choice that is left out means all: every architecture, kernel and head dim that has a row of its own. A baseline
belongs to one version of Triton; ``--check`` with another fails and names both.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton

from ..architectures import ARCHITECTURES
from .assembly_report import KernelReport
from .compile_cases import Case, report_of_case
from .config_rows import rows_of, shipped_architectures
from .kernel_config import BLOCK_DIMS, KERNELS, KernelConfig, ProblemClass

_DTYPES = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
    "fp8": None,  # the architecture's own encoding
}
# A dtype of each width: those of one width share rows and instructions.
CHECKED_DTYPES = ("bf16", "fp32", "fp8")
# What a ratchet holds: none of these may grow.
_RATCHET = ("registers", "spills", "hot_scratch", "lds")
_COLUMNS = (
    "kernel", "registers", "spills", "hot_scratch", "lds", "waves_per_simd", "matrix", "valu_per_matrix_unit"
)  # fmt: skip


@dataclass(frozen=True)
class Shipped:
    """A case to compile: a class with the configuration that its row gives on an architecture."""

    arch: str
    case: Case
    config: KernelConfig

    @property
    def name(self) -> str:
        """Such as ``gfx942 forward bf16 d128 causal``."""
        group = self.case.group
        dtype = {value: key for key, value in _DTYPES.items()}[self.case.dtype]
        return f"{self.arch} {group.kernel} {dtype} d{group.block_d} {'causal' if group.banded else 'full'}"


def shipped(
    archs: Sequence[str], kernels: Sequence[str], head_dims: Sequence[int], dtypes: Sequence[str], kinds: Sequence[bool]
) -> Iterator[Shipped]:
    """The cases of shipped rows that a choice names; ``kinds`` are those of ``ProblemClass.banded``.

    fp8 is a case of the forward alone, and where the architecture multiplies it; it takes the rows of 16 bits.
    """
    for arch in archs:
        for row in rows_of(arch):
            if row.kernel not in kernels or row.block_d not in head_dims:
                continue
            for dtype in dtypes:
                bits = {"fp32": 32, "fp8": 8}.get(dtype, 16)
                if (16 if bits == 8 else bits) != row.bits:
                    continue
                if bits == 8 and (row.kernel != "forward" or ARCHITECTURES[arch].fp8 is None):
                    continue
                for group in row.classes:
                    if group.banded in kinds:
                        served = ProblemClass(row.kernel, bits, row.block_d, group.banded)
                        yield Shipped(arch, Case(served, _DTYPES[dtype]), row.config)


def fingerprint(config: KernelConfig) -> str:
    """Short digest of a configuration, by which a record is known to be of another."""
    return hashlib.blake2s(json.dumps(config.as_row(), sort_keys=True).encode(), digest_size=4).hexdigest()


def as_json(item: Shipped, report: KernelReport) -> dict[str, Any]:
    """Everything that is reported of a case."""
    group, hot = item.case.group, report.hot_loop
    return {
        "name": item.name,
        "arch": item.arch,
        "kernel": group.kernel,
        "bits": group.bits,
        "block_d": group.block_d,
        "banded": group.banded,
        "config": item.config.as_row(),
        "registers": report.vgprs,
        "agprs": report.agprs,
        "sgprs": report.sgprs,
        "spills": report.vgpr_spills,
        "sgpr_spills": report.sgpr_spills,
        "scratch_bytes": report.scratch_bytes,
        "hot_scratch": report.hot_scratch,
        "lds": report.lds_bytes,
        "waves_by_registers": report.occupancy.by_registers,
        "waves_by_lds": report.occupancy.by_lds,
        "waves_per_simd": report.waves_per_simd,
        "matrix": report.matrix_instructions,
        "loops": [
            {
                "label": loop.label,
                "instructions": len(loop.instructions),
                "matrix_shapes": loop.matrix_shapes,
                "valu": loop.valu,
                "valu_per_matrix_instruction": round(loop.valu_per_matrix_instruction, 2),
                "valu_per_matrix_unit": round(loop.valu_per_matrix_unit, 2),
                "transcendental": loop.transcendental,
                "scratch": loop.scratch,
                "accvgpr_moves": loop.accvgpr_moves,
                "lds_instructions": loop.lds_instructions,
                "global_load_bits": loop.global_load_bits,
            }
            for loop in report.loops
        ],
        "valu_per_matrix_unit": round(hot.valu_per_matrix_unit, 2) if hot else None,
    }


def regressions(recorded: dict[str, dict[str, Any]], results: Sequence[dict[str, Any]]) -> list[str]:
    """What of the results is worse than recorded, or not recorded at all."""
    found = []
    for result in results:
        before = recorded.get(result["name"])
        if before is None:
            found.append(f"{result['name']}: not in the baseline")
            continue
        found += [
            f"{result['name']}: {key} {result[key]}, recorded {before[key]}"
            for key in _RATCHET
            if result[key] > before[key]
        ]
    return found


def violations(result: dict[str, Any]) -> list[str]:
    """What no shipped configuration may do, whatever was recorded: not fit, or multiply 16 bits without the unit."""
    architecture = ARCHITECTURES[result["arch"]]
    found = []
    if result["lds"] > architecture.shared_memory_per_block:
        found.append(f"{result['name']}: {result['lds']} bytes of LDS, of {architecture.shared_memory_per_block}")
    if result["waves_per_simd"] == 0:
        found.append(f"{result['name']}: no work group fits")
    if result["matrix"] == 0 and result["bits"] == 16:
        found.append(f"{result['name']}: no matrix instructions")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    options = _parser().parse_args(arguments)
    warnings.filterwarnings("ignore", module="triton")
    kinds = (True,) if options.causal else (False,) if options.full else (False, True)
    items = list(shipped(options.arch, options.kernel, options.head_dim, options.dtype, kinds))
    if not items:
        print("no shipped row is of that kind", file=sys.stderr)
        return 2
    recorded = _read_baseline(options.check) if options.check else {}
    if options.check:
        items = [item for item in items if item.name in recorded]
    results = []
    if not options.json:
        print("  ".join(_COLUMNS))
    for item in items:
        result = as_json(item, report_of_case(item.case, item.config, ARCHITECTURES[item.arch]))
        results.append(result)
        if options.record:
            _write_baseline(options.record, item, result)
        if not options.json:
            print("  ".join(str(result["name" if key == "kernel" else key]) for key in _COLUMNS), flush=True)
    if options.json:
        print(json.dumps({"triton": triton.__version__, "cases": results}, indent=1))
    problems = [line for result in results for line in violations(result)]
    if options.check:
        problems += regressions(recorded, results)
    for line in problems:
        print(line, file=sys.stderr)
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flash_attn.triton_amd.aot", description="Compile shipped configurations without a GPU."
    )
    archs = shipped_architectures()
    parser.add_argument("--arch", nargs="+", choices=archs, default=list(archs))
    parser.add_argument("--kernel", nargs="+", choices=KERNELS, default=list(KERNELS))
    parser.add_argument("--head-dim", nargs="+", type=int, choices=BLOCK_DIMS, default=list(BLOCK_DIMS))
    parser.add_argument("--dtype", nargs="+", choices=tuple(_DTYPES), default=list(CHECKED_DTYPES))
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--causal", action="store_true", help="banded rows alone")
    kind.add_argument("--full", action="store_true", help="rows without a mask alone")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--check", type=Path, metavar="BASELINE", help="fail where resources grew beyond this file")
    parser.add_argument("--record", type=Path, metavar="BASELINE", help="write the resources into this file")
    return parser


def _read_baseline(path: Path) -> dict[str, dict[str, Any]]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["triton"] != triton.__version__:
        raise SystemExit(f"{path} was recorded with Triton {content['triton']}, this is {triton.__version__}")
    cases: dict[str, dict[str, Any]] = content["cases"]
    return cases


def _write_baseline(path: Path, item: Shipped, result: dict[str, Any]) -> None:
    """Replace what the file has of a case by this result; with another Triton, all of it."""
    cases: dict[str, dict[str, Any]] = {}
    if path.exists():
        content = json.loads(path.read_text(encoding="utf-8"))
        cases = content["cases"] if content["triton"] == triton.__version__ else {}
    cases[item.name] = {**{key: result[key] for key in _RATCHET}, "config": fingerprint(item.config)}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(cases[name])}" for name in sorted(cases))
    path.write_text(f'{{"triton": "{triton.__version__}", "cases": {{\n{lines}\n}}}}\n', encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
