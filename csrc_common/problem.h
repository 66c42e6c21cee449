// The part of a call that every phase has, from tensors to AttentionParams.
#pragma once

#include <algorithm>
#include <cmath>

#include "tensor_checks.h"

namespace flash_attn {

// Arguments as they come from Python; the shapes are those of flash_attn/backends/base.py.
struct Request {
  const Tensor& q;
  const Tensor& k;
  const Tensor& v;
  const OptionalTensor& cu_seqlens_q;
  const OptionalTensor& cu_seqlens_k;
  const OptionalTensor& seqused_k;
  const OptionalTensor& alibi_slopes;
  const OptionalTensor& rng_state;
  int64_t max_seqlen_q, max_seqlen_k;
  double softmax_scale, softcap, dropout_p;
  int64_t window_left, window_right;
};

// Bytes that one head's rows span; kernels address them with 31 bits.
inline void check_span(const Tensor& tensor, const Strides& strides, int64_t seqlen,
                       const char* name) {
  const int64_t bytes = seqlen * strides.row * tensor.element_size();
  if (bytes > std::numeric_limits<int32_t>::max()) {
    fail("a sequence of ", name, " spans ", bytes, " bytes; native kernels address 2 GiB");
  }
}

// A window side is unbounded when it is negative or reaches beyond every sequence.
inline int32_t window(int64_t side, int64_t longest) {
  return to_int32(side < 0 ? longest : std::min(side, longest), "a window");
}

inline void set_scores(AttentionParams& p, const Request& r, int64_t batch, int64_t nheads_q) {
  const int64_t longest = int64_t{p.seqlen_q} + p.seqlen_k;
  p.masked = r.window_left >= 0 || r.window_right >= 0;
  p.window_left = window(r.window_left, longest);
  p.window_right = window(r.window_right, longest);
  p.softmax_scale = static_cast<float>(r.softmax_scale);
  p.softcap = r.softcap > 0;
  p.softcap_value = static_cast<float>(r.softcap);
  p.dropout = r.dropout_p > 0;
  p.dropout_p = static_cast<float>(r.dropout_p);
  if (p.dropout_p >= 1.f) fail("dropout_p is 1 in float32; native kernels take less");
  p.dropout_threshold =
      static_cast<uint32_t>(std::min(4294967295.0, std::nearbyint(r.dropout_p * 4294967296.0)));
  if (p.dropout != r.rng_state.has_value()) fail("rng_state comes with dropout_p, and only then");
  p.rng_state = data_of<uint64_t>(r.rng_state, "rng_state", ScalarType::Long, {2}, r.q);

  p.alibi = r.alibi_slopes.has_value();
  const bool per_batch = p.alibi && r.alibi_slopes->dim() == 2;
  const auto slopes = [&](std::initializer_list<int64_t> shape) {
    return data_of<float>(r.alibi_slopes, "alibi_slopes", ScalarType::Float, shape, r.q);
  };
  p.alibi_slopes = per_batch ? slopes({batch, nheads_q}) : slopes({nheads_q});
  p.alibi_batch_stride = per_batch ? p.nheads_q : 0;
  // CK-tile takes the distance of a query and a key in 16 bits
  constexpr int32_t kLongestAlibi = 1 << 16;
  if (p.alibi && std::max(p.seqlen_q, p.seqlen_k) > kLongestAlibi) {
    fail("a sequence is longer than ", kLongestAlibi, ", which ALiBi in native kernels allows");
  }
}

// Fill `p` from a dense or varlen call; with `cached`, k and v are caches or pages, whose rows are
// not those of the batch, max_seqlen_k the keys that a sequence can have, and cu_seqlens_q may come
// alone.
inline void set_problem(AttentionParams& p, const Request& r, bool cached = false) {
  const auto &q = r.q, &k = r.k, &v = r.v;
  const bool ragged = r.cu_seqlens_q.has_value();
  p.varlen = ragged && !cached;
  if (r.seqused_k && !p.varlen && !cached) fail("seqused_k needs cu_seqlens");
  if (r.cu_seqlens_k.has_value() != p.varlen) fail("cu_seqlens_q and cu_seqlens_k come together");
  const int64_t q_dims = ragged ? 3 : 4, dims = p.varlen ? 3 : 4;
  if (q.dim() != q_dims || k.dim() != dims || v.dim() != dims) {
    fail("q, k and v have ", q.dim(), ", ", k.dim(), ", ", v.dim(), " dimensions; expected ",
         q_dims, ", ", dims, ", ", dims);
  }
  p.dtype = data_type(q.scalar_type(), "q");
  if (k.scalar_type() != q.scalar_type() || v.scalar_type() != q.scalar_type()) {
    fail("k and v do not have the dtype of q");
  }
  check_device(k, "k", q);
  check_device(v, "v", q);
  const int64_t head_dim = q.size(q_dims - 1), head_dim_v = v.size(dims - 1);
  const int64_t nheads_q = q.size(q_dims - 2), nheads_k = k.size(dims - 2);
  const int64_t batch = ragged ? r.cu_seqlens_q->numel() - 1 : q.size(0);
  const int64_t rows = p.varlen ? r.max_seqlen_k : k.size(1);
  if (p.varlen) {
    check_shape(k, "k", {k.size(0), nheads_k, head_dim});
    check_shape(v, "v", {k.size(0), nheads_k, head_dim_v});
  } else {
    check_shape(k, "k", {cached ? k.size(0) : batch, rows, nheads_k, head_dim});
    check_shape(v, "v", {k.size(0), rows, nheads_k, head_dim_v});
  }
  if (batch < 1 || nheads_k < 1 || nheads_q % nheads_k != 0) {
    fail("q has ", nheads_q, " heads and k ", nheads_k, " in a batch of ", batch);
  }
  p.batch = to_int32(batch, "the batch size");
  p.nheads_q = to_int32(nheads_q, "nheads_q");
  p.nheads_k = to_int32(nheads_k, "nheads_k");
  p.head_dim = to_int32(head_dim, "head_dim");
  p.head_dim_v = to_int32(head_dim_v, "head_dim_v");
  const int64_t seqlen_q = ragged ? r.max_seqlen_q : q.size(1);
  const int64_t seqlen_k = p.varlen || cached ? r.max_seqlen_k : rows;
  // positions are sums of two lengths and a window
  constexpr int64_t kLongest = 1 << 28;
  if (std::max(seqlen_q, seqlen_k) > kLongest) fail("a sequence is longer than ", kLongest);
  p.seqlen_q = to_int32(seqlen_q, "seqlen_q");
  p.seqlen_k = to_int32(seqlen_k, "seqlen_k");
  set_scores(p, r, batch, nheads_q);

  const auto ints = [&](const OptionalTensor& tensor, const char* name, int64_t size) {
    return data_of<int32_t>(tensor, name, ScalarType::Int, {size}, q);
  };
  p.cu_seqlens_q = ints(r.cu_seqlens_q, "cu_seqlens_q", batch + 1);
  p.cu_seqlens_k = ints(r.cu_seqlens_k, "cu_seqlens_k", batch + 1);
  p.seqused_k = ints(r.seqused_k, "seqused_k", batch);
  p.q = q.const_data_ptr(), p.q_strides = strides_of(q, "q");
  p.k = k.const_data_ptr(), p.k_strides = strides_of(k, "k");
  p.v = v.const_data_ptr(), p.v_strides = strides_of(v, "v");
  check_span(q, p.q_strides, seqlen_q, "q");
  check_span(k, p.k_strides, rows, "k");
  check_span(v, p.v_strides, rows, "v");
}

}  // namespace flash_attn
