"""How the CUDA extension is compiled."""

from collections.abc import Sequence
from dataclasses import dataclass

from csrc_cuda.architectures import gencode
from csrc_cuda.generate import select
from csrc_cuda.instances import LANGUAGE

from .detect import Detection
from .errors import BuildError
from .instances import Selection
from .native_build import COMMON, ROOT, NativeBuild, Words

KERNEL_FLAGS = (
    "-O3",
    "-std=c++20",
    "--expt-relaxed-constexpr",
    "-DNDEBUG",
    "-Xcompiler=-fPIC,-fvisibility=hidden",
    "-Xptxas=-v",
)


@dataclass(frozen=True)
class CudaBuild(NativeBuild):
    """A build of CUDA kernels.

    ``threads`` architectures are compiled at a time by each nvcc. The runtime is linked in, so that the library needs
    none on the machine; one that is ``simulated`` has PTX in place of machine code and takes the runtime that the
    process has loaded.
    """

    threads: int = 1
    simulated: bool = False

    kernels = "CUDA"
    arch_setting = "FLASH_ATTN_CUDA_ARCHS"
    operators = "flash_attn_cuda"
    language = LANGUAGE

    def select(self) -> list[Selection]:
        """Return the instances that the generator has for this build; BuildError for an unknown architecture."""
        try:
            return select(self.archs, self.head_dims, self.preset, self.only)
        except ValueError as error:
            raise BuildError(str(error)) from None

    def kernel_command(self, detection: Detection) -> Words:
        """Return nvcc and its flags."""
        assert detection.cuda
        assert detection.cutlass_include
        threads = [f"--threads={self.threads}"] if self.threads > 1 else []
        host = [f"-ccbin={detection.host.compiler.path}"] if detection.host.compiler else []
        includes = (f"-I{COMMON}", f"-I{ROOT / 'csrc_cuda'}", "-isystem", detection.cutlass_include)
        return [detection.cuda.nvcc.path, "$archs", *threads, *host, *includes, *KERNEL_FLAGS]

    def arch_flags(self, archs: Sequence[str]) -> str:
        """Return the flags for the architectures of a kernel."""
        return " ".join(gencode(arch, ptx=self.simulated) for arch in archs)

    def host_flags(self, detection: Detection) -> Words:
        """Return the host compiler's flags for CUDA."""
        assert detection.cuda
        return ["-isystem", f"{detection.cuda.home}/include"]

    def libraries(self, detection: Detection) -> Words:
        """Return the linker's flags for CUDA's runtime."""
        assert detection.cuda
        folders = [f"-L{detection.cuda.home}/{name}" for name in ("lib64", "lib")]
        if self.simulated:
            return [*folders, "-lcudart"]
        return [*folders, "-lcudart_static", "-lrt", "-lpthread", "-ldl", "-Wl,--exclude-libs,ALL"]
