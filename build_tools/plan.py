"""Decide what to build from what is asked, what is found, and what kernels the source tree has."""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .detect import Detection
from .errors import BuildError
from .instances import Preset
from .obstacles import CK_ARCHS, CUDA_ARCHS, KERNEL_NAMES, VENDOR_NAMES, ck_serves, nvcc_knows, obstacles_to
from .programs import version_numbers
from .settings import Settings
from .torch_build import Vendor

# Peak of the heaviest translation unit, compiled for one architecture.
GIB_PER_JOB: dict[Vendor, float] = {"cuda": 3.5, "rocm": 1.5}

KERNEL_FOLDERS: dict[Vendor, str] = {"cuda": "csrc_cuda", "rocm": "csrc_ck"}
PURE = "building the pure-Python package, which computes on CPU tensors"


@dataclass(frozen=True)
class BuildPlan:
    """What is built and why. Without a target, ``archs`` is empty and ``jobs`` is None.

    Each of ``jobs`` compiles ``threads`` architectures at a time.
    """

    target: Literal["rocm", "cuda", "none"]
    reason: str
    archs: tuple[str, ...] = ()
    head_dims: tuple[int, ...] = ()
    preset: Preset | None = None
    jobs: int | None = None
    warnings: tuple[str, ...] = ()
    threads: int = 1


def vendors_with_kernels(root: Path) -> frozenset[Vendor]:
    """Return the vendors whose kernels are in the source tree: those whose instances can be generated."""
    return frozenset(vendor for vendor, folder in KERNEL_FOLDERS.items() if (root / folder / "generate.py").is_file())


def decide(settings: Settings, detection: Detection, sources: Set[Vendor]) -> BuildPlan:
    """Turn settings and detection into a plan.

    Args:
        settings: what the environment asks.
        detection: what was found.
        sources: the vendors whose kernels the source tree has.

    Raises:
        BuildError: native kernels were asked for (BUILD_TARGET, FLASH_ATTENTION_FORCE_BUILD) and cannot be
            built, two settings exclude each other, or all of ROCm is here but CK's headers; the message says
            what to install or change.
    """
    named = None if settings.build_target == "auto" else settings.build_target
    left_out = _reason_to_leave_out(settings, detection)
    if left_out:
        return BuildPlan("none", f"{left_out}: {PURE}", warnings=_unused(settings))

    candidates = (named,) if named else _candidates(detection)
    demanded = named is not None or settings.force_build
    if demanded and not candidates:
        candidates = ("rocm", "cuda")
    failures: list[tuple[Vendor, list[str]]] = []
    for vendor in candidates:
        obstacles = obstacles_to(vendor, settings, detection, sources)
        if not obstacles:
            return _native_plan(vendor, settings, detection)
        failures.append((vendor, obstacles))
        if not demanded and vendor == "rocm" and _lacks_only_ck(detection, obstacles):
            raise BuildError(
                f"found {_found(vendor, detection)}, but {obstacles[0]}. "
                "FLASH_ATTENTION_SKIP_CUDA_BUILD=1 builds without CK kernels."
            )

    if demanded:
        asker = f"BUILD_TARGET={named}" if named else "FLASH_ATTENTION_FORCE_BUILD"
        lines = [f"  {VENDOR_NAMES[vendor]}: {why}" for vendor, reasons in failures for why in reasons]
        raise BuildError("\n".join((f"{asker} asks for native kernels, which cannot be built here:", *lines)))
    if not failures:
        return BuildPlan("none", f"found neither CUDA nor ROCm: {PURE}", warnings=_unused(settings))
    found = "; ".join(
        f"found {_found(vendor, detection)}; {'; '.join(reasons if vendor in sources else reasons[:1])}"
        for vendor, reasons in failures
    )
    return BuildPlan("none", f"{found}: {PURE}", warnings=_unused(settings))


def _lacks_only_ck(detection: Detection, obstacles: Sequence[str]) -> bool:
    return detection.rocm is not None and detection.ck_include is None and len(obstacles) == 1


def _reason_to_leave_out(settings: Settings, detection: Detection) -> str | None:
    """Return which switch asks for no native kernels, or None; such a switch excludes asking for some."""
    if settings.skip_native_build:
        switch = "FLASH_ATTENTION_SKIP_CUDA_BUILD"
        if settings.build_target != "auto":
            raise BuildError(f"BUILD_TARGET={settings.build_target} and {switch} exclude each other: unset one")
    elif settings.triton_on_amd and _vendor_wanted(settings, detection) == "rocm":
        switch = "FLASH_ATTENTION_TRITON_AMD_ENABLE"
    else:
        return None
    if settings.force_build:
        raise BuildError(f"FLASH_ATTENTION_FORCE_BUILD and {switch} exclude each other: unset one")
    return f"{switch} asks for no native kernels"


def _vendor_wanted(settings: Settings, detection: Detection) -> Vendor | None:
    if settings.build_target != "auto":
        return settings.build_target
    return next(iter(_candidates(detection)), None)


def _candidates(detection: Detection) -> tuple[Vendor, ...]:
    """Return the vendors worth trying: PyTorch's own, else those whose toolchain is here, AMD first."""
    if detection.torch and detection.torch.vendor:
        return (detection.torch.vendor,)
    toolchains: dict[Vendor, object] = {"rocm": detection.rocm, "cuda": detection.cuda}
    return tuple(vendor for vendor, found in toolchains.items() if found)


def _found(vendor: Vendor, detection: Detection) -> str:
    parts = []
    if vendor == "rocm" and detection.rocm:
        parts.append(f"ROCm {detection.rocm.version or 'of unknown version'}")
        parts.append(detection.rocm.compiler.path.name)
    if vendor == "cuda" and detection.cuda:
        parts.append(f"nvcc {detection.cuda.nvcc.version or 'of unknown version'}")
    if detection.torch:
        parts.append(f"PyTorch {detection.torch.version}")
    return " and ".join(parts)


def _native_plan(vendor: Vendor, settings: Settings, detection: Detection) -> BuildPlan:
    """Return the plan of a vendor that has no obstacles."""
    threads = 1
    if vendor == "cuda":
        archs = settings.cuda_archs or default_cuda_archs(detection)
        threads = min(settings.nvcc_threads, len(archs))
        preset = settings.cuda_preset
    else:
        assert detection.rocm
        present = tuple(arch for arch in detection.rocm.gpu_archs if ck_serves(arch))
        archs = settings.gpu_archs or present or CK_ARCHS
        preset = settings.ck_preset
    jobs, warnings = bounded_jobs(settings, detection, GIB_PER_JOB[vendor] * threads)
    reason = f"found {_found(vendor, detection)}: building {KERNEL_NAMES[vendor]}"
    return BuildPlan(vendor, reason, archs, settings.head_dims, preset, jobs, warnings, threads)


def default_cuda_archs(detection: Detection) -> tuple[str, ...]:
    """Return those of the default architectures that nvcc knows."""
    assert detection.cuda
    assert detection.cuda.nvcc.version
    version = version_numbers(detection.cuda.nvcc.version)
    return tuple(arch for arch in CUDA_ARCHS if nvcc_knows(arch, version))


def bounded_jobs(settings: Settings, detection: Detection, gib_per_job: float) -> tuple[int, tuple[str, ...]]:
    """Return the compilations at a time, bounded by cores and memory, and warnings about MAX_JOBS."""
    host = detection.host
    by_memory = 1 if host.memory_gib is None else max(1, int(host.memory_gib / gib_per_job))
    if settings.max_jobs is None:
        return min(host.cores, by_memory), ()
    if settings.max_jobs <= by_memory:
        return settings.max_jobs, ()
    memory = "unknown" if host.memory_gib is None else f"{host.memory_gib:g} GiB"
    return settings.max_jobs, (
        f"MAX_JOBS={settings.max_jobs} may run out of memory: a job takes up to {gib_per_job:g} GiB, "
        f"free memory is {memory}",
    )


def _unused(settings: Settings) -> tuple[str, ...]:
    """Return warnings about settings that shape native kernels when none are built."""
    given = {
        "GPU_ARCHS": settings.gpu_archs,
        "FLASH_ATTN_CUDA_ARCHS": settings.cuda_archs,
        "CK_DIR": settings.ck_dir,
        "FLASH_ATTENTION_CK_PRESET": settings.ck_preset != Settings.ck_preset,
        "FLASH_ATTENTION_CUDA_PRESET": settings.cuda_preset != Settings.cuda_preset,
        "CUTLASS_DIR": settings.cutlass_dir,
    }
    return tuple(f"{name} has no effect: no native kernels are built" for name, value in given.items() if value)
