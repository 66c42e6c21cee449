"""Cases for CK kernels as simulated machine code: ``python ck_cases.py ARCH LIBRARY CASE...`` runs them."""

import sys
from dataclasses import replace

import torch

from flash_attn.testing import AttentionCase, DecodeCase
from tests.native_cases import main

_FORWARD = AttentionCase(
    seqlens_q=(70, 70),
    seqlens_k=(140, 140),
    nheads_q=2,
    nheads_k=1,
    head_dim=128,
    head_dim_v=128,
    dtype=torch.bfloat16,
    backward=False,
)
_VARLEN = replace(_FORWARD, varlen=True, seqlens_q=(5, 131, 64, 0), seqlens_k=(17, 140, 64, 3))
_BACKWARD = replace(_FORWARD, backward=True)
_FP8 = replace(_FORWARD, dtype=torch.float8_e4m3fn, nheads_q=4, nheads_k=2, descale=True)
_FP8_VARLEN = replace(_FP8, varlen=True, seqlens_q=_VARLEN.seqlens_q, seqlens_k=_VARLEN.seqlens_k, causal=True)
_PAGED = DecodeCase(
    cache_seqlens=(17, 300),
    capacity=512,
    page_size=128,
    nheads_q=2,
    nheads_k=1,
    head_dim=128,
    head_dim_v=128,
    dtype=torch.bfloat16,
)
# The kernels that the tests build for each architecture.
KERNELS = {
    "gfx942": (
        "*_bf16_d128_*_masked",
        "forward_*_fp16_d128_dense_masked",
        "*_bf16_d128_dense_masked_dropout",
        "forward_*_fp8fnuz_d128_*_masked",
    ),
    "gfx90a": ("forward_*_bf16_d128_*_masked",),
    "gfx950": ("forward_*_bf16_d128_*_masked", "forward_*_fp8_d128_dense_masked"),
    "gfx1201": (
        "forward_*_bf16_d128_*_masked",
        "forward_*_bf16_d128_dense_masked_dropout",
        "forward_*_fp8_d128_dense_masked",
    ),
}
# What the slow tests build for gfx942 too, and the cases that run on it.
SLOW_KERNELS = ("*_bf16_d96_dense_masked", "*_bf16_d192_dense_masked", "*_bf16_d128_varlen_masked_dropout")
SLOW_CASES = (
    "forward head_dim 96",
    "forward head_dim 192",
    "forward head_dim 192, 128 of v",
    "backward head_dim 96",
    "backward head_dim 192",
    "backward varlen dropout",
)
CASES: dict[str, AttentionCase | DecodeCase] = {
    "forward": _FORWARD,
    "forward float16": replace(_FORWARD, dtype=torch.float16),
    "forward causal": replace(_FORWARD, causal=True),
    "forward causal, rows without keys": replace(_FORWARD, causal=True, seqlens_q=(140,), seqlens_k=(70,)),
    "forward window": replace(_FORWARD, window_size=(20, 5)),
    "forward grouped": replace(_FORWARD, causal=True, nheads_q=4, nheads_k=2),
    "forward head_dim 72": replace(_FORWARD, head_dim=72, head_dim_v=72),
    "forward head_dim 96": replace(_FORWARD, causal=True, head_dim=96, head_dim_v=96),
    "forward head_dim 192": replace(_FORWARD, causal=True, head_dim=192, head_dim_v=192),
    "forward head_dim 192, 128 of v": replace(_FORWARD, head_dim=192),
    "forward varlen": _VARLEN,
    "forward varlen causal": replace(_VARLEN, causal=True),
    "forward varlen seqused": replace(_VARLEN, seqused=True),
    "backward": _BACKWARD,
    "backward causal grouped": replace(_BACKWARD, causal=True, nheads_q=4, nheads_k=2),
    "backward window": replace(_BACKWARD, window_size=(20, 5)),
    "backward rows without keys": replace(_BACKWARD, causal=True, seqlens_q=(140,), seqlens_k=(70,)),
    "backward head_dim 96": replace(_BACKWARD, causal=True, head_dim=96, head_dim_v=96),
    "backward head_dim 192": replace(_BACKWARD, causal=True, head_dim=192, head_dim_v=192),
    "backward varlen causal": replace(_VARLEN, causal=True, backward=True),
    "forward dropout": replace(_FORWARD, dropout_p=0.2),
    "backward dropout": replace(_BACKWARD, causal=True, dropout_p=0.2),
    "backward varlen dropout": replace(_VARLEN, backward=True, dropout_p=0.3),
    "fp8": _FP8,
    "fp8 window": replace(_FP8, window_size=(20, 5)),
    "fp8fnuz": replace(_FP8, dtype=torch.float8_e4m3fnuz),
    "fp8fnuz without descales": replace(_FP8, dtype=torch.float8_e4m3fnuz, descale=False, causal=True),
    "fp8fnuz rows without keys": replace(
        _FP8, dtype=torch.float8_e4m3fnuz, causal=True, seqlens_q=(140,), seqlens_k=(70,)
    ),
    "fp8fnuz varlen": replace(_FP8_VARLEN, dtype=torch.float8_e4m3fnuz),
    "fp8fnuz varlen seqused": replace(_FP8_VARLEN, dtype=torch.float8_e4m3fnuz, seqused=True),
    "decode paged": _PAGED,
    "decode paged, three splits": replace(_PAGED, num_splits=3),
    "decode paged, append": replace(_PAGED, seqlen_new=2, seqlen_q=2, rotary_dim=64),
    "decode cache_batch_idx": replace(_PAGED, page_size=0, batch_idx=True),
}


if __name__ == "__main__":
    main("ck", CASES, sys.argv[1:])
