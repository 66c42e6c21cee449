// What crosses from host code to a vendor's kernels: plain structs, no torch, no vendor header.
#pragma once

#include <cstdint>

namespace flash_attn {

// kFloat8E4M3 is OCP's; gfx942 multiplies kFloat8E4M3Fnuz, which has no -0 and no infinities.
enum class DataType : int32_t { kFloat16, kBFloat16, kFloat8E4M3, kFloat8E4M3Fnuz };

// Elements between neighbours; the last dimension is contiguous. `batch` is 0 for varlen layouts.
struct Strides {
  int32_t batch, row, head;
};

// What one unit of an 8-bit tensor is worth: a float32 for each sequence and head of k, `batch` and
// `head` elements between neighbours; null means 1.
struct Descale {
  const float* values;
  int32_t batch, head;
};

// What selects a compiled kernel.
struct Features {
  DataType dtype;
  int32_t head_dim, head_dim_v;
  bool varlen, paged, masked, softcap, alibi, dropout, deterministic;
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
  uint32_t dropout_threshold;  // a 32-bit random word below it drops its element
  const int32_t* cu_seqlens_q;
  const int32_t* cu_seqlens_k;
  const float* alibi_slopes;   // (nheads_q) or (batch, nheads_q), else null
  int32_t alibi_batch_stride;  // 0 for (nheads_q)
  const uint64_t* rng_state;   // seed and offset in device memory, null without dropout
  const void* q;
  const void* k;
  const void* v;
  Strides q_strides, k_strides, v_strides;
  const int32_t* seqused_k;  // (batch) keys in use of a varlen or split call, else null
  int32_t lse_batch_stride, lse_head_stride;
  Descale q_descale, k_descale, v_descale;
};

// `out` has the dtype of q, or bfloat16 where that is an 8-bit float.
struct ForwardParams : AttentionParams {
  void* out;
  float* softmax_lse;
  Strides out_strides;
};

// `dk` and `dv` have a head for each head of q. `softmax_d` is the row sum of dout * out, less the
// gradient of softmax_lse, times 1 - dropout_p; it has the strides of softmax_lse.
// `dq_accumulator` is zeroed float32; a deterministic kernel writes one for each block of keys,
// `dq_split_stride` elements apart, and the others add to a single one.
struct BackwardParams : AttentionParams {
  const void* dout;
  const float* softmax_lse;
  const float* softmax_d;
  float* dq_accumulator;
  void* dk;
  void* dv;
  Strides dout_strides, dq_strides, dk_strides, dv_strides;
  int32_t dq_split_stride;
};

// A forward whose keys are split among work-groups: every split writes float32 results, dense, as
// (num_splits, batch, seqlen_q, nheads_q, head_dim_v) and (num_splits, batch, nheads_q, seqlen_q).
//
// Queries of several lengths have `cu_seqlens_q`, results of (num_splits, total_q, nheads_q,
// head_dim_v) and (num_splits, nheads_q, total_q), and no `cu_seqlens_k`; `varlen` is false, since
// a kernel takes both kinds of queries.
//
// Keys and values are caches of (rows, seqlen_k, nheads_k, head_dim) whose row is that of the batch
// or `cache_batch_idx` (batch); or pages of (pages, page_size, nheads_k, head_dim) that
// `block_table` (batch, max_pages) names. The first `leftpad_k` (batch) keys are out of sight, and
// positions count from there.
struct SplitParams : AttentionParams {
  float* out;
  float* softmax_lse;
  int32_t num_splits;
  const int32_t* cache_batch_idx;
  const int32_t* block_table;
  int32_t block_table_stride, page_size;
  const int32_t* leftpad_k;
};

}  // namespace flash_attn
