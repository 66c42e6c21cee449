"""Signatures of the rotary functions, what they refuse, and what importing them imports."""

import inspect
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from rotary_definition import tables

from flash_attn.layers import rotary
from flash_attn.layers.rotary import (
    RotaryEmbedding,
    apply_rotary_emb,
    apply_rotary_emb_kv_,
    apply_rotary_emb_qkv_,
    apply_rotary_emb_torch,
    rotate_half,
)
from flash_attn.rotary_embedding import rotate

CU = torch.tensor([0, 1, 4])
OFFSETS = torch.tensor([2, 5])
X = torch.zeros(2, 3, 2, 8)
P = torch.zeros(5, 2, 8)
C = torch.zeros(6, 4)
QKV = torch.zeros(2, 3, 3, 2, 8)
LONG = torch.int64
ERRORS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: apply_rotary_emb(P, C, C), ValueError, "x has shape"),
    (lambda: apply_rotary_emb(X, C, C, cu_seqlens=CU, max_seqlen=3), ValueError, "x has shape"),
    (lambda: apply_rotary_emb(X.int(), C, C), TypeError, "x has dtype"),
    (lambda: apply_rotary_emb(X, C[None], C[None]), ValueError, "cos has shape"),
    (lambda: apply_rotary_emb(X, C, C[:5]), ValueError, "sin has shape"),
    (lambda: apply_rotary_emb(X, C.half(), C.half()), TypeError, "cos has dtype"),
    (lambda: apply_rotary_emb(X, C, C.double()), TypeError, "sin has dtype"),
    (lambda: apply_rotary_emb(X, C.to("meta"), C), ValueError, "cos is on meta"),
    (lambda: apply_rotary_emb(X, torch.zeros(6, 5), torch.zeros(6, 5)), ValueError, "rotary_dim of 10"),
    (lambda: apply_rotary_emb(X, C[:2], C[:2]), ValueError, "cos has 2 rows"),
    (lambda: apply_rotary_emb(X, C, C, seqlen_offsets=4), ValueError, "need at least 7"),
    (lambda: apply_rotary_emb(X, C, C, seqlen_offsets=-1), ValueError, "seqlen_offsets is -1"),
    (lambda: apply_rotary_emb(X, C, C, seqlen_offsets=1.5), TypeError, "seqlen_offsets is 1.5"),  # type: ignore[arg-type]
    (
        lambda: apply_rotary_emb(X, C, C, seqlen_offsets=torch.zeros(3, dtype=LONG)),
        ValueError,
        r"accepted is \(2,\)",
    ),
    (lambda: apply_rotary_emb(X, C, C, seqlen_offsets=torch.zeros(2)), TypeError, "seqlen_offsets has dtype"),
    (lambda: apply_rotary_emb(X, C, C, seqlen_offsets=torch.tensor([0, 4])), ValueError, "need at least 7"),
    (
        lambda: apply_rotary_emb(X, C, C, seqlen_offsets=torch.tensor([0, -1])),
        ValueError,
        "values of 0 or more",
    ),
    (lambda: apply_rotary_emb(P, C, C, cu_seqlens=CU), TypeError, "max_seqlen is None"),
    (lambda: apply_rotary_emb(P, C, C, cu_seqlens=CU, max_seqlen=2), ValueError, "longest sequence"),
    (lambda: apply_rotary_emb(P, C, C, cu_seqlens=CU, max_seqlen=7), ValueError, "cos has 6 rows"),
    (
        lambda: apply_rotary_emb(P, C, C, cu_seqlens=CU.float(), max_seqlen=3),
        TypeError,
        "cu_seqlens has dtype",
    ),
    (
        lambda: apply_rotary_emb(P, C, C, cu_seqlens=CU[None], max_seqlen=3),
        ValueError,
        "cu_seqlens has shape",
    ),
    (lambda: apply_rotary_emb(P, C, C, cu_seqlens=CU[:0], max_seqlen=3), ValueError, "cu_seqlens is empty"),
    (lambda: apply_rotary_emb(P, C, C, cu_seqlens=CU + 1, max_seqlen=3), ValueError, "start at 0"),
    (lambda: apply_rotary_emb(P, C, C, cu_seqlens=2 * CU, max_seqlen=6), ValueError, "start at 0"),
    (
        lambda: apply_rotary_emb(P, C, C, cu_seqlens=torch.tensor([0, 3, 2]), max_seqlen=3),
        ValueError,
        "not decrease",
    ),
    (lambda: rotate(X, C[:0], C[:0], torch.arange(3)), ValueError, "cos has shape"),
    (lambda: apply_rotary_emb_qkv_(QKV[:, :, :2], C, C), ValueError, "qkv has shape"),
    (lambda: apply_rotary_emb_qkv_(P, C, C), ValueError, "qkv has shape"),
    (lambda: apply_rotary_emb_qkv_(X, C, C), ValueError, "num_heads_q is None"),
    (lambda: apply_rotary_emb_qkv_(X, C, C, num_heads_q=1), ValueError, "num_heads_q is 1"),
    (lambda: apply_rotary_emb_qkv_(X, C, C, num_heads_q=4), ValueError, "num_heads_q is 4"),
    (lambda: apply_rotary_emb_qkv_(QKV, C, C, C), ValueError, "cos_k and sin_k"),
    (lambda: apply_rotary_emb_kv_(QKV, C, C), ValueError, "kv has shape"),
    (lambda: apply_rotary_emb_torch(X, torch.zeros(3, 5), torch.zeros(3, 5)), ValueError, "rotary_dim of 10"),
    (lambda: apply_rotary_emb_torch(X, C[:3], C[:2]), ValueError, "sin has shape"),
    (lambda: apply_rotary_emb_torch(X, C, C), ValueError, r"cos has shape \(6, 4\); accepted is a row for every token"),
    (lambda: apply_rotary_emb_qkv_(QKV, C, C, num_heads_q=3), ValueError, "num_heads_q is 3; accepted"),
    (lambda: rotate_half(torch.zeros(2, 3)), ValueError, "accepted is an even last dimension"),
    (lambda: RotaryEmbedding(5), ValueError, "dim is 5"),
    (lambda: RotaryEmbedding(4, base=0), ValueError, "base is 0; accepted"),
    (lambda: RotaryEmbedding(4, base=-1.0), ValueError, "base is -1.0; accepted"),
    (lambda: RotaryEmbedding(4, scale_base=0), ValueError, "scale_base is 0; accepted"),
    (lambda: RotaryEmbedding(4, scale_base=float("nan")), ValueError, "scale_base is nan; accepted"),
    (lambda: RotaryEmbedding(4)(QKV, seqlen_offset=OFFSETS), ValueError, "max_seqlen is None"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_errors(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_rejected_qkv_is_left_as_it_was() -> None:
    qkv = torch.randn(1, 3, 3, 2, 4)
    kept = qkv.clone()
    cos, sin = tables(4, 4, torch.float32)
    with pytest.raises(ValueError, match="sin has shape"):
        apply_rotary_emb_qkv_(qkv, cos, sin, cos, sin[:3])
    assert torch.equal(qkv, kept)


def test_importing_does_not_import_triton() -> None:
    code = (
        "import sys, torch; before = 'triton' in sys.modules\n"
        "import flash_attn.layers.rotary, flash_attn.ops.triton.rotary\n"
        "sys.exit('triton' in sys.modules and not before)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


TAIL = "interleaved=False, inplace=False, seqlen_offsets=0, cu_seqlens=None, max_seqlen=None"
QKV_TAIL = "cos_k=None, sin_k=None, interleaved=False, seqlen_offsets=0, num_heads_q=None"
SIGNATURES = {
    "rotate_half": "x, interleaved=False",
    "apply_rotary_emb_torch": "x, cos, sin, interleaved=False",
    "ApplyRotaryEmb.forward": f"ctx, x, cos, sin, {TAIL}",
    "ApplyRotaryEmb.backward": "ctx, do",
    "apply_rotary_emb": f"x, cos, sin, {TAIL}",
    "apply_rotary_emb_func": f"x, cos, sin, {TAIL}",
    "ApplyRotaryEmbQKV_.forward": f"ctx, qkv, cos, sin, {QKV_TAIL}",
    "ApplyRotaryEmbQKV_.backward": "ctx, dqkv",
    "apply_rotary_emb_qkv_": f"qkv, cos, sin, {QKV_TAIL}",
    "ApplyRotaryEmbKV_.forward": "ctx, kv, cos, sin, interleaved=False, seqlen_offsets=0",
    "ApplyRotaryEmbKV_.backward": "ctx, dkv",
    "apply_rotary_emb_kv_": "kv, cos, sin, interleaved=False, seqlen_offsets=0",
    "RotaryEmbedding.__init__": "self, dim, base=10000.0, interleaved=False, scale_base=None, device=None",
    "RotaryEmbedding._compute_inv_freq": "self, device=None",
    "RotaryEmbedding._update_cos_sin_cache": "self, seqlen, device=None, dtype=None",
    "RotaryEmbedding.forward": "self, qkv, kv=None, seqlen_offset=0, max_seqlen=None, num_heads_q=None",
    "apply_rotary": "x, cos, sin, seqlen_offsets=0, cu_seqlens=None, max_seqlen=None, interleaved=False, "
    "inplace=False, conjugate=False",
}


@pytest.mark.parametrize(("name", "parameters"), SIGNATURES.items())
def test_signatures(name: str, parameters: str) -> None:
    found: object = rotary
    for part in name.split("."):
        found = getattr(found, part)
    bare = [p.replace(annotation=p.empty) for p in inspect.signature(found).parameters.values()]  # type: ignore[arg-type]
    assert ", ".join(map(str, bare)) == parameters
