"""Instructions of the shipped Triton forward kernels: in the compiled hot loop, and executed for a tile of keys.

``python -m benchmarks.triton_instructions [--arch NAME ...] [--head-dim N ...] [--json PATH]``

Static figures are those of ``python -m flash_attn.triton_amd.aot``. Dynamic ones come from the simulator: the same
kernel runs over some keys and over eight blocks more, and the difference belongs to those blocks. Nothing here is a
run on hardware, and no figure is a time.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import torch
import triton
from flash_attn.triton_amd.compile_cases import Case, report_of_case
from flash_attn.triton_amd.forward import attention_forward
from flash_attn.triton_amd.kernel_config import ForwardConfig, ProblemClass
from flash_attn.triton_amd.problem import Problem
from flash_attn.triton_amd.tuning import forward_config

import amdgpu_sim
from flash_attn.architectures import ARCHITECTURES
from flash_attn.diagnostics.text_table import terminal_table
from flash_attn.environment import SIMULATED_TARGETS

_BLOCKS = 8
_CATEGORIES = ("matrix", "valu", "transcendental", "salu", "lds_read", "lds_write", "global_load", "barrier", "wait")


def executed(arch: str, config: ForwardConfig, head_dim: int, causal: bool, blocks: int) -> amdgpu_sim.RunReport:
    """Counts of a launch over one tile of rows that ends with ``blocks`` blocks of keys which need no mask."""
    torch.manual_seed(0)
    seqlen_k = config.block_n * blocks + (config.block_m if causal else 0)
    q = torch.randn(1, config.block_m, 1, head_dim, dtype=torch.bfloat16)
    k, v = torch.randn(2, 1, seqlen_k, 1, head_dim, dtype=torch.bfloat16).unbind(0)
    problem = Problem(q, k, v, config.block_m, seqlen_k, head_dim**-0.5, window_right=0 if causal else -1)
    with amdgpu_sim.triton_device(arch) as device:
        attention_forward(problem, config)
    report = device.last_report
    assert isinstance(report, amdgpu_sim.RunReport)
    return report


def measure(arch: str, head_dim: int, causal: bool) -> dict[str, Any]:
    """One row: the shipped bf16 configuration of a class, compiled and simulated."""
    group = ProblemClass("forward", 16, head_dim, causal)
    like = torch.empty(1, 4096, 1, head_dim, dtype=torch.bfloat16, device="meta")
    config = forward_config(Problem(like, like, like, 4096, 4096, 1.0, window_right=0 if causal else -1), arch)
    static = report_of_case(Case(group), config, ARCHITECTURES[arch])
    hot = static.hot_loop
    assert hot is not None
    few, many = (executed(arch, config, head_dim, causal, blocks) for blocks in (2, 2 + _BLOCKS))
    before, after = few.by_category(), many.by_category()
    per_tile = {name: (after.get(name, 0) - before.get(name, 0)) / _BLOCKS for name in sorted(after)}
    return {
        "arch": arch,
        "head_dim": head_dim,
        "causal": causal,
        "config": config.as_row(),
        "registers": static.vgprs,
        "spills": static.vgpr_spills,
        "hot_scratch": static.hot_scratch,
        "lds": static.lds_bytes,
        "waves_per_simd": static.waves_per_simd,
        "matrix_shapes": hot.matrix_shapes,
        "valu_per_matrix_instruction": round(hot.valu_per_matrix_instruction, 2),
        "valu_per_matrix_unit": round(hot.valu_per_matrix_unit, 2),
        "wave_instructions_per_key_tile": (many.instructions - few.instructions) / _BLOCKS,
        "per_key_tile": per_tile,
        "estimated_matrix_share": round(amdgpu_sim.estimate_cycles(many).matrix_share, 3),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", nargs="+", choices=SIMULATED_TARGETS, default=["gfx942"])
    parser.add_argument("--head-dim", nargs="+", type=int, choices=(64, 128), default=[128])
    parser.add_argument("--json", type=Path, help="file for one JSON line a row")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="triton")
    rows = [
        measure(arch, head_dim, causal)
        for arch in options.arch
        for head_dim in options.head_dim
        for causal in (False, True)
    ]
    shown = ["registers", "spills", "waves_per_simd", "valu_per_matrix_unit", "wave_instructions_per_key_tile"]
    header = ["arch", "head_dim", "mask", *shown, *_CATEGORIES, "estimated matrix share"]
    table = [
        [
            row["arch"],
            str(row["head_dim"]),
            "causal" if row["causal"] else "full",
            *(str(row[name]) for name in shown),
            *(f"{row['per_key_tile'].get(name, 0):g}" for name in _CATEGORIES),
            f"{row['estimated_matrix_share']:.2f}",
        ]
        for row in rows
    ]
    print(f"bf16 forward, Triton {triton.__version__}; from the sixth figure on: executed for one tile of keys")
    print(terminal_table(header, table))
    if options.json is not None:
        lines = [json.dumps({"triton": triton.__version__, **row}) for row in rows]
        options.json.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
