"""Public figures of other projects' attention kernels, to be read beside what a card measures here.

None of them was measured by this project, and each had its own shapes, clocks and versions: a ratio to one says where a
result stands, not which kernel is better. FLOPs are counted as in :mod:`benchmarks.gpu_attention`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

_AITER = "ROCm/aiter, assembly kernel v3"
_MOONMATH = "moonmath.ai/cdna3attention"
_MI300X_COMPARISON = "midiareshadi.github.io/blog/attn-dsl-bench"
_HIPKITTENS = "HipKittens, arXiv 2511.08083"
_CUDNN = "cuDNN 9.19, 64 heads over 8"
_FLASH3 = "FlashAttention-3, arXiv 2407.08608"
_UNRECORDED = "page not recorded"


class Anchor(NamedTuple):
    """One figure: TFLOP/s of a kernel on a product; a length or mask that is not stated is ``None``.

    ``source`` is where it was published, or the kernel's project where the page was not recorded.
    """

    architecture: str
    product: str
    phase: str
    dtype: str
    head_dim: int
    causal: bool | None
    seqlen: int | None
    kernel: str
    tflops: float
    source: str

    def __str__(self) -> str:
        """Kernel and what it ran."""
        mask = {True: "causal", False: "full", None: "mask not stated"}[self.causal]
        length = "length not stated" if self.seqlen is None else f"s{self.seqlen}"
        return f"{self.kernel} on {self.product}, {self.dtype}, {mask}, {length}"


ANCHORS = (
    Anchor("gfx942", "MI300X", "forward", "bfloat16", 128, False, 8192, "AITER", 591, _AITER),
    Anchor("gfx942", "MI300X", "forward", "bfloat16", 128, True, 10240, "AITER", 547, _AITER),
    Anchor("gfx942", "MI300X", "backward", "bfloat16", 128, None, None, "AITER", 550, _AITER),
    Anchor("gfx942", "MI300X", "forward", "bfloat16", 128, False, None, "moonmath HIP", 614, _MOONMATH),
    Anchor("gfx942", "MI300X", "forward", "bfloat16", 128, True, 1024, "Triton", 139, _MI300X_COMPARISON),
    Anchor("gfx942", "MI300X", "forward", "bfloat16", 128, True, 4096, "Triton", 260, _MI300X_COMPARISON),
    Anchor("gfx942", "MI300X", "forward", "bfloat16", 128, True, 16384, "Triton", 364, _MI300X_COMPARISON),
    Anchor("gfx942", "MI300X", "forward", "bfloat16", 128, True, 1024, "AOTriton", 164, _MI300X_COMPARISON),
    Anchor("gfx942", "MI300X", "forward", "bfloat16", 128, True, 4096, "AOTriton", 257, _MI300X_COMPARISON),
    Anchor("gfx942", "MI300X", "forward", "bfloat16", 128, True, 16384, "AOTriton", 307, _MI300X_COMPARISON),
    Anchor("gfx950", "MI355X", "forward", "bfloat16", 128, False, 16384, "HipKittens", 1326, _HIPKITTENS),
    Anchor("gfx950", "MI355X", "backward", "bfloat16", 128, None, None, "HipKittens", 1176, _HIPKITTENS),
    Anchor("gfx950", "MI355X", "forward", "bfloat16", 128, None, None, "AITER", 1438, _AITER),
    Anchor("gfx950", "MI355X", "backward", "bfloat16", 128, None, None, "AITER", 1213, _AITER),
    Anchor("gfx950", "MI355X", "forward", "bfloat16", 128, None, None, "CK", 908, "ROCm/composable_kernel"),
    Anchor("gfx950", "MI355X", "forward", "bfloat16", 128, None, None, "Triton", 990, _UNRECORDED),
    Anchor("gfx950", "MI355X", "forward", "bfloat16", 128, True, 1024, "Triton", 333, _UNRECORDED),
    Anchor("gfx1100", "RX 7900 XTX", "forward", "bfloat16", 128, None, None, "Triton", 60, _UNRECORDED),
    Anchor("gfx1201", "RX 9070 XT", "forward", "bfloat16", 128, None, None, "Triton", 83, _UNRECORDED),
    Anchor("sm_90", "H200", "forward", "bfloat16", 128, False, 16384, "cuDNN", 702, _CUDNN),
    Anchor("sm_90", "H200", "forward", "bfloat16", 128, True, 16384, "cuDNN", 673, _CUDNN),
    Anchor("sm_90", "H200", "backward", "bfloat16", 128, None, None, "cuDNN", 612, _CUDNN),
    Anchor("sm_90", "H200", "forward", "float8_e4m3fn", 128, None, None, "cuDNN", 1062, _CUDNN),
    Anchor("sm_90", "H100", "forward", "float16", 64, None, None, "FlashAttention-3", 497, _FLASH3),
    Anchor("sm_90", "H100", "forward", "float16", 128, None, None, "FlashAttention-3", 648, _FLASH3),
    Anchor("sm_90", "H100", "forward", "float16", 256, None, None, "FlashAttention-3", 756, _FLASH3),
    Anchor("sm_90", "H100", "backward", "float16", 128, None, None, "FlashAttention-3", 561, _FLASH3),
    Anchor("sm_90", "H100", "forward", "float16", 128, None, None, "FlashAttention-2", 370, _FLASH3),
)


def nearest(architecture: str, phase: str, dtype: str, head_dim: int, causal: bool, seqlen: int) -> Anchor | None:
    """The figure to read beside a measured row, or ``None`` where there is none of its class.

    A class is architecture, phase, element width, head dim and mask. A stated mask and the closest stated length come
    first, then the highest figure.
    """
    width = _width(dtype)
    of_class = [
        anchor
        for anchor in ANCHORS
        if (anchor.architecture, anchor.phase, anchor.head_dim) == (architecture, phase, head_dim)
        and _width(anchor.dtype) == width
        and anchor.causal in (causal, None)
    ]

    def distance(anchor: Anchor) -> tuple[bool, float, float]:
        length = math.inf if anchor.seqlen is None else abs(math.log2(seqlen / anchor.seqlen))
        return anchor.causal is None, length, -anchor.tflops

    return min(of_class, key=distance, default=None)


def _width(dtype: str) -> int:
    """Bits of an element; fp16 and bf16 are of one class, as every GPU here multiplies both at one rate."""
    return {"float16": 16, "bfloat16": 16, "float8_e4m3fn": 8, "float8_e4m3fnuz": 8, "float8_e5m2": 8}[dtype]
