"""How the CK extension is compiled."""

import sys
from collections.abc import Sequence
from pathlib import Path

from csrc_ck.generate import select
from csrc_ck.instances import LANGUAGE

from .detect import Detection
from .instances import Selection
from .native_build import COMMON, ROOT, NativeBuild, Words, portable_kernels
from .ninja_file import Edge, Rule

# CK-tile's exponential with base 2 folded into the scale, and bf16 rounded to nearest even.
KERNEL_FLAGS = (
    "-O3",
    "-std=c++20",
    "-fPIC",
    "-fvisibility=hidden",
    "-fgpu-flush-denormals-to-zero",
    "-w",
    "-DCK_TILE_FMHA_FWD_FAST_EXP2=1",
    "-DCK_TILE_FLOAT_TO_BFLOAT16_DEFAULT=3",
    "-Rpass-analysis=kernel-resource-usage",
)
_CK = ROOT / "csrc_ck"


class CkBuild(NativeBuild):
    """A build of CK kernels."""

    kernels = "CK"
    arch_setting = "GPU_ARCHS"
    operators = "flash_attn_ck"
    language = LANGUAGE

    def select(self) -> list[Selection]:
        """Return the instances that the generator has for this build."""
        return select(self.archs, self.head_dims, self.preset, self.only)

    def kernel_command(self, detection: Detection) -> Words:
        """Return ROCm's clang and its flags."""
        rocm = detection.rocm
        assert rocm
        assert detection.ck_include
        return [
            *(rocm.compiler.path, "-x", "hip", "$archs", f"--rocm-path={rocm.path}"),
            *(f"-I{COMMON}", f"-I{_CK}", f"-I{detection.ck_include}", f"-I{rocm.path}/include"),
            *KERNEL_FLAGS,
        ]

    def arch_flags(self, archs: Sequence[str]) -> str:
        """Return the flags for the architectures of a kernel."""
        return " ".join(f"--offload-arch={arch}" for arch in archs)

    def host_flags(self, detection: Detection) -> Words:
        """Return the host compiler's flags for HIP."""
        assert detection.rocm
        return ["-DUSE_ROCM", "-D__HIP_PLATFORM_AMD__=1", "-isystem", f"{detection.rocm.path}/include"]

    def libraries(self, detection: Detection) -> Words:
        """Return the linker's flags: a library of ROCm may need a newer C library, which matters only where it runs."""
        assert detection.rocm
        return [f"-L{detection.rocm.path}/lib", "-lamdhip64"]

    def translations(self, detection: Detection) -> tuple[list[Rule], list[Edge]]:
        """Return the translation of device.cpp and of the portable kernels to HIP."""
        assert detection.torch
        script = ROOT / "build_tools/hipify.py"
        rule = Rule("hipify", [sys.executable, script, detection.torch.path, "$in", "$out"])
        outputs = {COMMON / "device.cpp": self.device_source}
        outputs |= {source: self.portable_source(source) for source in portable_kernels()}
        return [rule], [Edge("hipify", output, [source], 1.0, implicit=[script]) for source, output in outputs.items()]

    def portable_source(self, source: Path) -> Path:
        """Return the translation of a portable kernel."""
        return self.folder / "portable" / f"{source.stem}.hip"

    @property
    def device_source(self) -> Path:
        """The translation."""
        return self.folder / "generated" / "device_hip.cpp"
