"""What the backends of compiled kernels say of fp8, whatever was built."""

from dataclasses import replace

import pytest
import torch

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends.ck import CKBackend
from flash_attn.backends.cuda import CUDABackend
from flash_attn.backends.native import NativeBackend
from flash_attn.testing import AttentionCase, make_attention

F8 = torch.float8_e4m3fn
CASE = AttentionCase(head_dim=64, head_dim_v=64, dtype=F8, backward=False)


def reasons(backend: NativeBackend, case: AttentionCase, **changes: object) -> list[str]:
    backend.library = replace(backend.library, fp8_dtypes=(F8,))
    spec: AttentionSpec = make_attention(case)[0]._replace(**changes)  # type: ignore[arg-type]
    return backend.unsupported_reasons(spec, torch.device("cuda"))


@pytest.mark.parametrize("backend", [CKBackend, CUDABackend])
@pytest.mark.parametrize(
    "case",
    [CASE, replace(CASE, descale=True, causal=True, nheads_k=1), replace(CASE, varlen=True, seqused=True)],
)
def test_what_fp8_kernels_do(backend: type[CKBackend | CUDABackend], case: AttentionCase) -> None:
    assert reasons(backend(), case) == []


@pytest.mark.parametrize("backend", [CKBackend, CUDABackend])
@pytest.mark.parametrize(
    ("case", "changes", "reason"),
    [
        (
            replace(CASE, dtype=torch.float8_e5m2),
            {},
            "dtype float8_e5m2 is not one of float16, bfloat16, float8_e4m3fn",
        ),
        (replace(CASE, dtype=torch.bfloat16, kv_dtype=F8), {}, "no bfloat16 queries with float8_e4m3fn keys"),
        (replace(CASE, dtype=torch.bfloat16, descale=True), {}, "no descales of 16-bit dtypes"),
        (CASE, {"needs_backward": True}, "no backward of fp8"),
        (CASE, {"has_cache_batch_idx": True}, "no fp8 over pages and cache_batch_idx"),
        (CASE, {"kv_layout": "paged", "page_size": 64}, "no fp8 over pages and cache_batch_idx"),
        (replace(CASE, head_dim=72), {}, "fp8 head dims that are no multiple of 16"),
    ],
)
def test_what_they_do_not(
    backend: type[CKBackend | CUDABackend], case: AttentionCase, changes: dict[str, object], reason: str
) -> None:
    assert reason in reasons(backend(), case, **changes)
