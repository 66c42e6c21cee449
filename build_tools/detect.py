"""Find what this machine offers to a build: CUDA, ROCm, PyTorch, host. Decides nothing."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .host import Host, detect_host
from .programs import Program, find, probe, run
from .settings import Settings
from .torch_build import TorchBuild, find_torch, python_folders


@dataclass(frozen=True)
class CudaToolkit:
    """A CUDA toolkit with its compiler."""

    home: Path
    nvcc: Program


@dataclass(frozen=True)
class Rocm:
    """A ROCm with its HIP compiler (hipcc, else its clang) and the architectures of the cards here."""

    path: Path
    version: str | None
    compiler: Program
    gpu_archs: tuple[str, ...]


@dataclass(frozen=True)
class Detection:
    """Everything that was found; None stands for not found."""

    cuda: CudaToolkit | None
    rocm: Rocm | None
    torch: TorchBuild | None
    cutlass_include: Path | None
    ck_include: Path | None
    host: Host


@dataclass(frozen=True)
class Places:
    """Where to look when no setting says: the usual places of a Linux machine."""

    cuda_home: Path = Path("/usr/local/cuda")
    rocm_path: Path = Path("/opt/rocm")
    meminfo: Path = Path("/proc/meminfo")
    cgroup: Path = Path("/sys/fs/cgroup")
    python_folders: tuple[Path, ...] = field(default_factory=python_folders)


def detect(settings: Settings, places: Places | None = None) -> Detection:
    """Look at this machine. Runs the compilers found for their versions and imports nothing."""
    places = places or Places()
    rocm = detect_rocm(settings, places.rocm_path)
    return Detection(
        cuda=detect_cuda(settings, places.cuda_home),
        rocm=rocm,
        torch=find_torch(places.python_folders),
        cutlass_include=_find_cutlass(settings, places.python_folders),
        ck_include=_find_ck(settings, rocm, places.python_folders),
        host=detect_host(settings.search_path, places.meminfo, places.cgroup),
    )


def detect_cuda(settings: Settings, default_home: Path) -> CudaToolkit | None:
    """Find nvcc: in CUDA_HOME alone if that is set, else on PATH, else in the default home."""
    if settings.cuda_home:
        nvcc = find("nvcc", str(settings.cuda_home / "bin"))
    else:
        nvcc = find("nvcc", settings.search_path) or find("nvcc", str(default_home / "bin"))
    if nvcc is None:
        return None
    home = settings.cuda_home or _toolkit_of(nvcc)
    return CudaToolkit(home, probe(nvcc, r"release \d+\.\d+, V(\d+(?:\.\d+)+)"))


def _toolkit_of(nvcc: Path) -> Path:
    """Return the toolkit that nvcc belongs to; nvcc itself knows, even behind a wrapper script."""
    output, _ = run(nvcc, "--dryrun", "-x", "cu", os.devnull)
    top = re.search(r"^#\$ TOP=(.+)$", output, re.MULTILINE)
    return Path(top.group(1).strip()).resolve() if top else nvcc.resolve().parent.parent


def detect_rocm(settings: Settings, default_path: Path) -> Rocm | None:
    """Find the HIP compiler: in ROCM_PATH alone if that is set, else on PATH, else in the default path."""
    if settings.rocm_path:
        compiler = _hip_compiler(settings.rocm_path)
    else:
        compiler = find("hipcc", settings.search_path) or _hip_compiler(default_path)
    if compiler is None:
        return None
    path = settings.rocm_path or _rocm_of(compiler, default_path)
    program = probe(compiler, r"(?:HIP|clang) version:? (\d+(?:\.\d+)+)")
    return Rocm(path, _rocm_version(path, program), program, _gpu_archs(path, settings.search_path))


def _hip_compiler(rocm_path: Path) -> Path | None:
    llvm = str(rocm_path / "llvm" / "bin")
    own = str(rocm_path / "bin")
    return find("hipcc", own) or find("amdclang++", llvm) or find("clang++", llvm) or find("clang++", own)


def _rocm_of(compiler: Path, default_path: Path) -> Path:
    if default_path in compiler.parents:
        return default_path
    return compiler.resolve().parent.parent


def _rocm_version(path: Path, compiler: Program) -> str | None:
    """Return ROCm's version: its version file's, else the HIP version that hipcc reports."""
    version_file = path / ".info" / "version"
    if version_file.is_file():
        match = re.match(r"\d+(\.\d+)*", version_file.read_text().strip())
        if match:
            return match.group()
    return compiler.version if compiler.path.name == "hipcc" else None


def _gpu_archs(path: Path, search_path: str) -> tuple[str, ...]:
    """Return the architectures of the AMD cards here; gfx000 is the CPU's own agent."""
    folders = os.pathsep.join((str(path / "bin"), search_path))
    for name in ("rocm_agent_enumerator", "rocminfo"):
        program = find(name, folders)
        if program:
            output, _ = run(program)
            archs = tuple(dict.fromkeys(re.findall(r"^\s*(?:Name:\s+)?(gfx[0-9a-f]+)\s*$", output, re.MULTILINE)))
            archs = tuple(arch for arch in archs if arch != "gfx000")
            if archs:
                return archs
    return ()


def _find_cutlass(settings: Settings, folders: Iterable[Path]) -> Path | None:
    if settings.cutlass_dir:
        return _with_header(Path("cute/tensor.hpp"), settings.cutlass_dir / "include", settings.cutlass_dir)
    packaged = (folder / "cutlass_library" / "source" / "include" for folder in folders)
    return _with_header(Path("cute/tensor.hpp"), *packaged)


def _find_ck(settings: Settings, rocm: Rocm | None, folders: Iterable[Path]) -> Path | None:
    """Find CK-tile: in CK_DIR alone if that is set, else in ROCm, else in the package amd-aiter."""
    header = Path("ck_tile/ops/fmha.hpp")
    if settings.ck_dir:
        return _with_header(header, settings.ck_dir / "include", settings.ck_dir)
    if rocm is None:
        return None
    packaged = (folder / "aiter_meta/3rdparty/composable_kernel/include" for folder in folders)
    return _with_header(header, rocm.path / "include", rocm.path / "composable_kernel" / "include", *packaged)


def _with_header(header: Path, *folders: Path) -> Path | None:
    return next((folder for folder in folders if (folder / header).is_file()), None)
