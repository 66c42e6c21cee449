"""Cases for CUDA kernels as PTX: ``python cuda_cases.py ARCH LIBRARY CASE...`` runs them in ptx_sim."""

import sys
from dataclasses import replace

import torch

from flash_attn.testing import AttentionCase, DecodeCase
from tests.decode_grid import CORE, SIMULATED, is_extended, is_fp8
from tests.native_cases import main

_FORWARD = AttentionCase(
    seqlens_q=(70,),
    seqlens_k=(140,),
    nheads_q=2,
    nheads_k=1,
    head_dim=64,
    head_dim_v=64,
    dtype=torch.bfloat16,
    backward=False,
)
_PAGED = DecodeCase(
    cache_seqlens=(17, 150),
    capacity=192,
    page_size=16,
    nheads_q=2,
    nheads_k=1,
    head_dim=64,
    head_dim_v=64,
    dtype=torch.bfloat16,
)
# The kernels that the tests build.
DECODE_KERNELS = ("split_*_bf16_d64_dense_masked", "split_*_bf16_d64_paged_masked")
KERNELS = (
    "forward_*_bf16_d64_dense_masked",
    "forward_*_bf16_d64_varlen_masked",
    "backward_*_bf16_d64_dense_masked",
    *DECODE_KERNELS,
)
FP8_KERNELS = ("forward_sm90_fp8_d64_dense_masked", "forward_sm90_fp8_d64_varlen_masked")
_FP8 = replace(_FORWARD, dtype=torch.float8_e4m3fn, descale=True, causal=True, nheads_q=4, nheads_k=2)
FP8_CASES: dict[str, AttentionCase | DecodeCase] = {
    "causal grouped": _FP8,
    "no descales, head dims 48 and 32": replace(_FP8, descale=False, head_dim=48, head_dim_v=32),
    "varlen": replace(_FP8, varlen=True, seqlens_q=(5, 70, 0), seqlens_k=(17, 80, 3)),
    "cache": replace(_PAGED, page_size=0, dtype=torch.float8_e4m3fn, descale=True, seqlen_q=3),
}
# What of the grid of decoding these kernels compute, in their dtype.
GRID: dict[str, AttentionCase | DecodeCase] = {
    name: replace(case, dtype=torch.bfloat16)
    for name, case in CORE.items()
    if name in SIMULATED and not is_fp8(case) and not is_extended(case)
}
CASES: dict[str, AttentionCase | DecodeCase] = {
    "forward": _FORWARD,
    "forward causal, head dims 40 and 24": replace(_FORWARD, causal=True, head_dim=40, head_dim_v=24),
    "forward varlen": replace(_FORWARD, varlen=True, causal=True, seqlens_q=(5, 70, 0), seqlens_k=(17, 80, 3)),
    "backward causal grouped": replace(_FORWARD, causal=True, backward=True),
    "decode paged, three splits": replace(_PAGED, num_splits=3),
    "decode paged, append": replace(_PAGED, seqlen_new=2, seqlen_q=2, rotary_dim=64),
}


if __name__ == "__main__":
    main("cuda", {**CASES, **FP8_CASES, **GRID}, sys.argv[1:])
