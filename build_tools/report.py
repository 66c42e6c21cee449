"""Say what was found, chosen and why: as text for people and as plain data for the built package."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import csrc_ck.generate
import csrc_cuda.generate

from .detect import Detection
from .plan import BuildPlan
from .programs import Program
from .settings import Settings


def describe_detection(detection: Detection) -> str:
    """Return one line for each thing that was looked for."""
    cuda, rocm, torch, host = detection.cuda, detection.rocm, detection.torch, detection.host
    lines = {
        "CUDA": f"{_program(cuda.nvcc)}, home {cuda.home}" if cuda else "no nvcc",
        "ROCm": f"{rocm.version or 'unknown version'} in {rocm.path}, {_program(rocm.compiler)}"
        if rocm
        else "no hipcc",
        "AMD GPUs": ", ".join(rocm.gpu_archs) if rocm and rocm.gpu_archs else "none",
        "PyTorch": f"{torch.version} in {torch.path}" if torch else "not found (not needed without native kernels)",
        "CUTLASS": str(detection.cutlass_include or "not found"),
        "CK": str(detection.ck_include or "not found"),
        "compiler": _program(host.compiler) if host.compiler else "none",
        "ninja": _program(host.ninja) if host.ninja else "none",
        "machine": f"{host.system}, Python {host.python}, {host.cores} cores, "
        + (f"{host.memory_gib:g} GiB free" if host.memory_gib is not None else "unknown memory"),
    }
    return "\n".join(f"  {name + ':':<10} {text}" for name, text in lines.items())


def describe_plan(plan: BuildPlan) -> str:
    """Return the choice, its reason and its warnings."""
    lines = {"target": plan.target, "why": plan.reason}
    if plan.archs:
        lines["archs"] = ", ".join(plan.archs)
    if plan.head_dims:
        lines["head dims"] = ", ".join(str(head_dim) for head_dim in plan.head_dims)
    if plan.preset:
        select = csrc_ck.generate.select if plan.target == "rocm" else csrc_cuda.generate.select
        selections = select(plan.archs, plan.head_dims, plan.preset)
        minutes = sum(selection.seconds for selection in selections) / 60
        lines["kernels"] = f"{len(selections)} of preset {plan.preset}, about {minutes:.0f} minutes of one core"
    if plan.jobs is not None:
        lines["jobs"] = str(plan.jobs)
    text = [f"  {name + ':':<10} {value}" for name, value in lines.items()]
    return "\n".join(text + [f"  warning:   {warning}" for warning in plan.warnings])


def metadata(settings: Settings, detection: Detection, plan: BuildPlan | None) -> dict[str, Any]:
    """Return settings in force, detection and plan as values that JSON can hold."""
    plain: dict[str, Any] = _plain(
        {
            "settings": settings.changed(),
            "found": asdict(detection),
            "plan": asdict(plan) if plan else None,
        }
    )
    return plain


def _program(program: Program) -> str:
    return f"{program.path} {program.version or f'({program.problem})'}"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
