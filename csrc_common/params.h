// What crosses from host code to a vendor's kernels: plain structs, no torch, no vendor header.
#pragma once

#include <cstdint>

namespace flash_attn {

enum class DataType : int32_t { kFloat16, kBFloat16 };

// Elements between neighbours; the last dimension is contiguous. `batch` is 0 for varlen layouts.
struct Strides {
  int32_t batch, row, head;
};

// What selects a compiled kernel.
struct Features {
  DataType dtype;
  int32_t head_dim, head_dim_v;
  bool varlen, masked, softcap, alibi, dropout;
};

// What every phase knows of a call.
//
// A varlen call has `cu_seqlens_q` and `cu_seqlens_k` (batch + 1 int32), a dense one null there;
// its `seqlen_q` and `seqlen_k` are those of the longest sequence. Windows are inclusive and never
// negative: an unbounded side is longer than any sequence.
struct AttentionParams : Features {
  int32_t batch, nheads_q, nheads_k, seqlen_q, seqlen_k;
  int32_t window_left, window_right;
  float softmax_scale, softcap_value, dropout_p;
  const int32_t* cu_seqlens_q;
  const int32_t* cu_seqlens_k;
  const float* alibi_slopes;   // (nheads_q) or (batch, nheads_q), else null
  int32_t alibi_batch_stride;  // 0 for (nheads_q)
  const uint64_t* rng_state;   // seed and offset in device memory, null without dropout
  const void* q;
  const void* k;
  const void* v;
  Strides q_strides, k_strides, v_strides;
  int32_t lse_batch_stride, lse_head_stride;
};

struct ForwardParams : AttentionParams {
  void* out;
  float* softmax_lse;
  Strides out_strides;
  const int32_t* seqused_k;  // (batch) keys in use of a varlen call, else null
};

}  // namespace flash_attn
