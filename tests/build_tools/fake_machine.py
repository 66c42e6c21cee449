"""A machine made of shell scripts and text files, for detection to look at and builds to run."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from build_tools.detect import Detection, Places, detect
from build_tools.settings import Settings

NVCC_VERSION = "Cuda compilation tools, release {short}, V{version}"
HIPCC_VERSION = "HIP version: {version}-abc\nAMD clang version 20.0.0git (https://example.invalid)"


# A compiler that answers --version and otherwise writes what it was asked for, noting that it ran.
COMPILER = """
case "$1" in --version) echo "{version}"; exit 0;; esac
echo "$0 $*" >> "{log}"
while [ $# -gt 0 ]; do
    case "$1" in
        -o) out=$2; shift;;
        -MF) dep=$2; shift;;
        -c) source=$2; shift;;
    esac
    shift
done
echo "compiled" > "$out"
[ -z "$dep" ] || echo "$out: $source {header}" > "$dep"
"""


def program(path: Path, body: str) -> Path:
    """Write an executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def says(text: str) -> str:
    """Return a script body that prints a text using the shell alone."""
    return "\n".join(f"echo '{line}'" for line in text.splitlines())


def compilers_that_note(machine: "FakeMachine", versions: Mapping[Path, str], folder: Path) -> None:
    """Put compilers into the machine that note in ``folder`` what they ran, with the real ninja and a few tools."""
    header = folder / "header.h"  # a depfile escapes spaces, which the script does not
    header.touch()
    for path, version in versions.items():
        program(path, COMPILER.format(version=version, log=folder / "log", header=header))
    ninja = shutil.which("ninja")
    assert ninja, "the tests need ninja on PATH"
    program(machine.bin / "ninja", f'exec "{ninja}" "$@"')
    for tool in ("env", "sh", "cat", "echo"):
        found = shutil.which(tool)
        assert found
        (machine.bin / tool).symlink_to(found)


def compilations(folder: Path) -> list[str]:
    """Return the commands of the compilers that made a file since the last call of :func:`compiled`."""
    log = folder / "log"
    return [line for line in log.read_text().splitlines() if " -o " in line] if log.exists() else []


def compiled(folder: Path) -> list[str]:
    """Return the outputs of the compilers since the last time."""
    lines = compilations(folder)
    (folder / "log").unlink(missing_ok=True)
    return sorted(Path(line.split(" -o ")[1].split()[0]).name for line in lines)


@dataclass
class FakeMachine:
    """A folder that stands for a whole machine: nothing outside it is found."""

    root: Path
    search: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bin = self.root / "usr" / "bin"
        self.bin.mkdir(parents=True)
        self.site = self.root / "site-packages"
        self.site.mkdir()
        self.memory(gib=32)

    @property
    def cuda_home(self) -> Path:
        return self.root / "usr" / "local" / "cuda"

    @property
    def rocm_path(self) -> Path:
        return self.root / "opt" / "rocm"

    def host_tools(self) -> None:
        program(self.bin / "g++", says("g++ (Debian 12.2.0-14) 12.2.0"))
        program(self.bin / "ninja", says("1.11.1"))

    def memory(self, gib: float) -> None:
        (self.root / "meminfo").write_text(
            f"MemTotal: 99999999 kB\nMemAvailable:   {int(gib * 1024**2)} kB\nBuffers: 1 kB\n"
        )

    def cuda(self, version: str = "13.0.88", home: Path | None = None) -> Path:
        short = ".".join(version.split(".")[:2])
        return program(
            (home or self.cuda_home) / "bin" / "nvcc", says(NVCC_VERSION.format(short=short, version=version))
        )

    def cutlass(self) -> Path:
        include = self.site / "cutlass_library" / "source" / "include"
        (include / "cute").mkdir(parents=True)
        (include / "cute" / "tensor.hpp").touch()
        return include

    def rocm(self, version: str = "7.0.0", archs: tuple[str, ...] = ("gfx942",), path: Path | None = None) -> Path:
        path = path or self.rocm_path
        (path / ".info").mkdir(parents=True)
        (path / ".info" / "version").write_text(f"{version}-38\n")
        program(path / "bin" / "rocm_agent_enumerator", says("\n".join(("gfx000", *archs))))
        return program(path / "bin" / "hipcc", says(HIPCC_VERSION.format(version="7.0.51831")))

    def ck(self, folder: Path | None = None) -> Path:
        include = (folder or self.rocm_path) / "include"
        (include / "ck_tile" / "ops").mkdir(parents=True)
        (include / "ck_tile" / "ops" / "fmha.hpp").touch()
        return include

    def torch(self, version: str, cuda: str | None = None, hip: str | None = None) -> Path:
        package = self.site / "torch"
        package.mkdir()
        (package / "__init__.py").write_text("raise AssertionError('torch was imported')\n")
        (package / "version.py").write_text(
            "from typing import Optional\n"
            f"__version__ = {version!r}\ndebug = False\n"
            f"cuda: Optional[str] = {cuda!r}\nhip: Optional[str] = {hip!r}\n"
        )
        return package

    def rocm_complete(self, archs: tuple[str, ...] = ("gfx942",)) -> None:
        """Install all that CK kernels need."""
        self.host_tools()
        self.rocm(archs=archs)
        self.ck()
        self.torch("2.11.0+rocm7.0", hip="7.0.51831-abc")

    def cuda_complete(self, nvcc: str = "13.0.88", torch_cuda: str = "13.0") -> None:
        """Install all that CUDA kernels need."""
        self.host_tools()
        self.cuda(nvcc)
        self.cutlass()
        self.torch(f"2.11.0+cu{torch_cuda.replace('.', '')}", cuda=torch_cuda)

    def settings(self, **env: str) -> Settings:
        path = os.pathsep.join(str(folder) for folder in (*self.search, self.bin))
        return Settings.from_environment({"PATH": path, **env})

    def detect(self, **env: str) -> Detection:
        places = Places(
            cuda_home=self.cuda_home,
            rocm_path=self.rocm_path,
            meminfo=self.root / "meminfo",
            cgroup=self.root / "cgroup",
            python_folders=(self.site,),
        )
        return detect(self.settings(**env), places)
