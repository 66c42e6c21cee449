"""What a program of the forward and of the split-KV kernel starts with: its keys, its queries and their scales."""

import triton
import triton.language as tl

from .tiles import load_tile


@triton.jit
def point_to_keys(
    k_ptr, v_ptr, key_index, key_start, head_k,
    stride_kb, stride_ks, stride_kh, stride_vb, stride_vs, stride_vh, PAGE_SIZE: tl.constexpr,
):  # fmt: skip
    """Where k and v of a KV head (int64) start: at the first key that counts or, paged, at page 0."""
    k_ptr += head_k * stride_kh
    v_ptr += head_k * stride_vh
    if PAGE_SIZE == 0:
        k_ptr += key_index * stride_kb + key_start * stride_ks
        v_ptr += key_index * stride_vb + key_start * stride_vs
    return k_ptr, v_ptr


@triton.jit
def load_queries(
    ptr, offsets, rows_left, DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
    UPCAST: tl.constexpr, NEGATIVE_SCALE: tl.constexpr,
):  # fmt: skip
    """A tile of queries as it is multiplied: 8 bits widened where the product is in bfloat16, the sign of the scale."""
    q = load_tile(ptr, offsets, rows_left, True, DIM, BLOCK_M, BLOCK_D)
    if UPCAST:
        q = q.to(tl.bfloat16)
    if NEGATIVE_SCALE:
        q = (-q.to(tl.float32)).to(q.dtype)
    return q


@triton.jit
def score_scales(
    scale_log2, q_descale, k_descale, v_descale, stride_q_descale_b, stride_q_descale_h,
    stride_k_descale_b, stride_k_descale_h, stride_v_descale_b, stride_v_descale_h, batch, head_k,
    HAS_QV: tl.constexpr,
):  # fmt: skip
    """Factors of a score in the softmax, of its q.k and of its qv.v; without qv only the first counts."""
    qk_scale = tl.full((), 1.0, tl.float32)
    qv_scale = tl.full((), 1.0, tl.float32)
    if HAS_QV:
        qk_scale = descaled(qk_scale, q_descale, stride_q_descale_b, stride_q_descale_h, batch, head_k)
        qk_scale = descaled(qk_scale, k_descale, stride_k_descale_b, stride_k_descale_h, batch, head_k)
        qv_scale = descaled(qv_scale, v_descale, stride_v_descale_b, stride_v_descale_h, batch, head_k)
    else:
        scale_log2 = descaled(scale_log2, q_descale, stride_q_descale_b, stride_q_descale_h, batch, head_k)
        scale_log2 = descaled(scale_log2, k_descale, stride_k_descale_b, stride_k_descale_h, batch, head_k)
    return scale_log2, qk_scale, qv_scale


@triton.jit
def descaled(x, descale, stride_b, stride_h, batch, head_k):
    """``x`` times the scale of a sequence and a KV head, where there is one."""
    if descale is not None:
        x *= tl.load(descale + batch * stride_b + head_k * stride_h)
    return x
