"""Why a vendor's kernels cannot be built on this machine, each reason with what to do about it."""

from collections.abc import Set

from csrc_ck.families import FAMILIES, family_of

from .detect import Detection, Rocm
from .programs import version_numbers
from .settings import Settings
from .torch_build import Vendor

MINIMUM_TORCH = (2, 10)  # the first whose stable ABI has every call the binding needs
MINIMUM_NVCC = (12, 0)  # the first that compiles sm_90a

CUDA_ARCHS = ("80", "90", "100", "120")
FIRST_NVCC = {"100": (12, 8), "103": (12, 9), "110": (13, 0), "120": (12, 8), "121": (12, 9)}
# Composable_kernel's attention does not compile for RDNA3 (gfx11); Triton serves what is not listed.
CK_ARCHS = tuple(arch for family in FAMILIES for arch in family.archs)
CUTLASS_WHEEL = "nvidia-cutlass==4.2.0.0"
CK_WHEEL = "amd-aiter==0.1.7.post2.dev18"

VENDOR_NAMES: dict[Vendor, str] = {"cuda": "CUDA", "rocm": "ROCm"}
KERNEL_NAMES: dict[Vendor, str] = {"cuda": "CUDA kernels (csrc_cuda/)", "rocm": "CK kernels (csrc_ck/)"}


def obstacles_to(
    vendor: Vendor, settings: Settings, detection: Detection, sources: Set[Vendor], *, cross: bool = False
) -> list[str]:
    """Return every reason why this vendor's kernels cannot be built, each with what to do.

    A ``cross`` build is for another machine: any PyTorch has the headers for it.
    """
    reasons = [] if vendor in sources else [f"this source tree has no {KERNEL_NAMES[vendor]}"]
    reasons += _torch_obstacles(vendor, detection, cross)
    reasons += _rocm_obstacles(settings, detection) if vendor == "rocm" else _cuda_obstacles(settings, detection)
    if detection.host.compiler is None:
        reasons.append("no C++ compiler (g++, clang++ or c++) on PATH: install g++")
    if detection.host.ninja is None:
        reasons.append("no ninja on PATH: pip install ninja")
    return reasons


def _torch_obstacles(vendor: Vendor, detection: Detection, cross: bool) -> list[str]:
    torch, name = detection.torch, VENDOR_NAMES[vendor]
    if torch is None:
        return [
            f"no PyTorch found: install torch >= 2.10 built for {name}, then run pip install --no-build-isolation ."
        ]
    reasons = []
    if version_numbers(torch.version) < MINIMUM_TORCH:
        reasons.append(f"PyTorch {torch.version} is too old: install torch >= 2.10")
    if torch.vendor != vendor and not cross:
        built_for = VENDOR_NAMES[torch.vendor] if torch.vendor else "CPU"
        reasons.append(f"PyTorch {torch.version} is a {built_for} build: install one built for {name}")
    return reasons


def _rocm_obstacles(settings: Settings, detection: Detection) -> list[str]:
    rocm, torch = detection.rocm, detection.torch
    if rocm is None:
        where = f"in ROCM_PATH={settings.rocm_path}" if settings.rocm_path else "on PATH or in /opt/rocm"
        return [f"no hipcc {where}: install ROCm's HIP SDK (package rocm-hip-sdk) or set ROCM_PATH"]
    if rocm.compiler.problem:
        return [f"the HIP compiler does not run: {rocm.compiler.problem}"]
    reasons = []
    if torch and torch.hip and rocm.version and _major(torch.hip) != _major(rocm.version):
        reasons.append(
            f"PyTorch {torch.version} is built with HIP {torch.hip} but ROCm here is {rocm.version}: "
            "install the ROCm of the same major version"
        )
    if detection.ck_include is None:
        reasons.append(no_ck_headers(settings, rocm))
    asked = settings.gpu_archs or rocm.gpu_archs
    unserved = [arch for arch in asked if not ck_serves(arch)]
    if unserved and (settings.gpu_archs or len(unserved) == len(asked)):
        reasons.append(f"CK has no attention kernels for {', '.join(unserved)}, which Triton serves")
    return reasons


def no_ck_headers(settings: Settings, rocm: Rocm) -> str:
    """Return where CK-tile was looked for and how to get it."""
    where = f"CK_DIR={settings.ck_dir}" if settings.ck_dir else f"{rocm.path}/include"
    return (
        f"no ck_tile/ops/fmha.hpp in {where}: install ROCm's package composablekernel-dev or set CK_DIR to a checkout "
        f"of composable_kernel, or pip install --no-deps --pre {CK_WHEEL}, which carries the headers"
    )


def _cuda_obstacles(settings: Settings, detection: Detection) -> list[str]:
    cuda, torch = detection.cuda, detection.torch
    if cuda is None:
        where = f"in CUDA_HOME={settings.cuda_home}" if settings.cuda_home else "on PATH or in /usr/local/cuda"
        return [f"no nvcc {where}: install the CUDA toolkit >= 12.0 or set CUDA_HOME"]
    if cuda.nvcc.version is None:
        return [f"nvcc does not run: {cuda.nvcc.problem}"]
    reasons = []
    version = version_numbers(cuda.nvcc.version)
    if version < MINIMUM_NVCC:
        reasons.append(f"nvcc {cuda.nvcc.version} is too old: install the CUDA toolkit >= 12.0")
    if torch and torch.cuda and _major(torch.cuda) != _major(cuda.nvcc.version):
        reasons.append(
            f"PyTorch {torch.version} is built with CUDA {torch.cuda} but nvcc is {cuda.nvcc.version}: "
            f"install the CUDA toolkit {_major(torch.cuda)} or set CUDA_HOME to it"
        )
    if detection.cutlass_include is None:
        where = f" in CUTLASS_DIR={settings.cutlass_dir}" if settings.cutlass_dir else ""
        reasons.append(
            f"no CUTLASS headers{where}: pip install --no-deps {CUTLASS_WHEEL}, or set CUTLASS_DIR to a checkout"
        )
    unknown = [arch for arch in settings.cuda_archs if not nvcc_knows(arch, version)]
    if unknown:
        reasons.append(f"nvcc {cuda.nvcc.version} does not compile for sm_{', sm_'.join(unknown)}")
    return reasons


def ck_serves(arch: str) -> bool:
    """Whether CK has attention kernels for an AMD architecture."""
    return family_of(arch) is not None


def nvcc_knows(arch: str, version: tuple[int, ...]) -> bool:
    """Whether this nvcc compiles for the architecture; one that is not listed is left to nvcc itself."""
    return version >= FIRST_NVCC.get(arch.rstrip("af"), MINIMUM_NVCC)


def _major(version: str) -> int:
    return version_numbers(version)[0]
