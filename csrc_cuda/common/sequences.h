// Where the rows of a sequence of the batch lie.
#pragma once

#include "math.h"
#include "params.h"

namespace flash_attn::cuda {

// Lengths of a sequence and, in a varlen call, the rows that come before it.
struct Sequence {
  int seqlen_q, seqlen_k, first_q, first_k;
};

template <bool kVarlen>
__device__ Sequence sequence_of(const AttentionParams& p, int batch) {
  if constexpr (!kVarlen) {
    return {p.seqlen_q, p.seqlen_k, 0, 0};
  } else {
    const int first_q = p.cu_seqlens_q[batch], first_k = p.cu_seqlens_k[batch];
    int seqlen_k = p.cu_seqlens_k[batch + 1] - first_k;
    if (p.seqused_k != nullptr) seqlen_k = min(seqlen_k, p.seqused_k[batch]);
    return {max(p.cu_seqlens_q[batch + 1] - first_q, 0), max(seqlen_k, 0), first_q, first_k};
  }
}

// Elements before a head's first row.
__device__ inline int64_t head_offset(const Strides& strides, int batch, int first_row, int head) {
  return int64_t{batch} * strides.batch + int64_t{first_row} * strides.row +
         int64_t{head} * strides.head;
}

// Elements before a sequence in softmax_lse and softmax_d.
__device__ inline int64_t lse_offset(const AttentionParams& p, int batch, int first_row, int head) {
  return int64_t{batch} * p.lse_batch_stride + int64_t{head} * p.lse_head_stride + first_row;
}

}  // namespace flash_attn::cuda
