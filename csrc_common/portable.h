// Kernels that are written once for both vendors: what crosses to them, and their launches.
//
// Each has a .cu file of its name, which a build compiles for all of its architectures. A launch is
// on `stream` of the current device; std::runtime_error if it fails. No tensor is empty, rows
// begin at multiples of 16 bytes, head dims are multiples of 8, and rows, or the vectors of 8
// elements of one tensor in AppendParams and SumParams, are counted with 31 bits.
#pragma once

#include "params.h"

namespace flash_attn {

// Results of splits of the keys, dense float32 (num_splits, batch, seqlen_q, nheads, head_dim) and
// (num_splits, batch, nheads, seqlen_q), and the dense tensors they become; a varlen call is a
// batch of 1.
struct CombineParams {
  DataType dtype;  // of `out`
  int32_t num_splits, batch, seqlen_q, nheads, head_dim;
  const float* out_parts;
  const float* lse_parts;
  void* out;
  float* softmax_lse;
};

// Rows (token, head) of queries or of new keys and values: (batch, seqlen, nheads, head_dim), or
// (tokens, nheads, head_dim) with `cu_seqlens` (batch + 1).
struct Tokens {
  int32_t tokens, seqlen, nheads;
  const int32_t* cu_seqlens;
};

// New keys and values, written into caches as SplitParams describes them, at `cache_seqlens` on;
// keys and queries turned by the rows of cos and sin (rotary_rows, rotary_dim / 2) that begin with
// `first_position`. `rotary_dim` is 0 without, and `queries.tokens` where none are turned.
struct AppendParams {
  DataType dtype;
  int32_t batch, head_dim, head_dim_v;
  Tokens queries, appended;
  const void* q;
  void* rotated_q;
  const void* k_new;
  const void* v_new;
  void* k_cache;
  void* v_cache;
  Strides q_strides, rotated_q_strides, k_new_strides, v_new_strides, k_strides, v_strides;
  int32_t cache_rows, page_size, max_pages;  // `max_pages` is 1 without pages
  const int32_t* cache_batch_idx;
  const int32_t* block_table;
  const int32_t* cache_seqlens;
  const int32_t* first_position;
  int32_t* seqused_k;  // (batch) keys in use after the step
  const void* rotary_cos;
  const void* rotary_sin;
  int32_t cos_stride, sin_stride, rotary_dim, rotary_rows;
  bool interleaved;
  bool follows;  // whether a query stands at its place after the first, or at the first itself
};

// Row sums of dout * out, less `dlse` (may be null): float32 like softmax_lse, dense (batch,
// nheads, seqlen); a varlen call is a batch of 1. `scaled_d` (may be null) gets them times `scale`.
struct SoftmaxDParams {
  DataType dtype;
  int32_t batch, seqlen, nheads, head_dim;
  const void* out;
  const void* dout;
  Strides out_strides, dout_strides;
  const float* dlse;
  float* softmax_d;
  float* scaled_d;
  float scale;
};

// Dense (outer, terms, inner), float32 or of the dtype of `sums`, added up in float32 to dense
// (outer, inner).
struct SumParams {
  DataType dtype;  // of `sums`
  bool float_terms;
  int32_t outer, terms, inner;  // `inner` in vectors of 8 elements
  const void* parts;
  void* sums;
};

void run_combine(const CombineParams& params, void* stream);
void run_append(const AppendParams& params, void* stream);
void run_softmax_d(const SoftmaxDParams& params, void* stream);
void run_sum(const SumParams& params, void* stream);

}  // namespace flash_attn
