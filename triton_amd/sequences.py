"""Where a sequence's rows and keys lie: starts and lengths, dense, packed and paged, clamped to the tensors."""

import triton
import triton.language as tl


@triton.jit
def query_sequence(batch, cu_seqlens_q, seqused_q, rows_q):
    """First row (int64) of a sequence within its batch stride, and its number of rows that count."""
    if cu_seqlens_q is None:
        start = tl.zeros((), tl.int64)
        seqlen_q = rows_q
    else:
        first = tl.minimum(tl.maximum(tl.load(cu_seqlens_q + batch), 0), rows_q)
        last = tl.minimum(tl.load(cu_seqlens_q + batch + 1), rows_q)
        start = first.to(tl.int64)
        seqlen_q = tl.maximum(last - first, 0)
    if seqused_q is not None:
        seqlen_q = tl.maximum(tl.minimum(tl.load(seqused_q + batch), seqlen_q), 0)
    return start, seqlen_q


@triton.jit
def key_sequence(
    batch, cu_seqlens_k, seqused_k, leftpad_k, cache_batch_idx, rows_k, sequences_k, PAGE_SIZE: tl.constexpr
):
    """Index (int64) into k's batch stride, first key (int64) and number of keys that a sequence sees."""
    index = batch
    if cache_batch_idx is not None:
        index = tl.minimum(tl.maximum(tl.load(cache_batch_idx + batch).to(tl.int32), 0), sequences_k - 1)
    start = tl.zeros((), tl.int64)
    seqlen_k = rows_k
    if cu_seqlens_k is not None:
        first = tl.maximum(tl.load(cu_seqlens_k + batch), 0)
        last = tl.load(cu_seqlens_k + batch + 1)
        if PAGE_SIZE == 0:
            first = tl.minimum(first, rows_k)
            last = tl.minimum(last, rows_k)
            start = first.to(tl.int64)
        seqlen_k = tl.minimum(last - first, rows_k)
    if seqused_k is not None:
        limit = rows_k if PAGE_SIZE > 0 else seqlen_k
        seqlen_k = tl.minimum(tl.load(seqused_k + batch), limit)
    if leftpad_k is not None:
        leftpad = tl.maximum(tl.load(leftpad_k + batch), 0)
        start += leftpad
        seqlen_k -= leftpad
    return index.to(tl.int64), start, tl.maximum(seqlen_k, 0)
