// The operators of the portable kernels, registered beside those of api.cpp.

#include <torch/csrc/stable/library.h>

#include "launch.h"
#include "portable.h"

namespace flash_attn {
namespace {

constexpr int64_t kVectorElements = 8;

// `value` as a head dim that kernels read 16 bytes at a time; a block has a vector for each thread.
int32_t head_dim_of(int64_t value, const char* name) {
  constexpr int64_t kLargest = 2048;
  if (value < 1 || value > kLargest || value % kVectorElements != 0) {
    fail(name, " has head dim ", value, "; accepted are multiples of ", kVectorElements, " up to ",
         kLargest);
  }
  return static_cast<int32_t>(value);
}

void check_dense(const Tensor& tensor, const char* name) {
  if (!tensor.is_contiguous()) fail(name, " is not contiguous");
  if (reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 16 != 0) {
    fail(name, " does not begin at a multiple of 16 bytes");
  }
}

// The dtype of 16-bit elements.
DataType element_type(const Tensor& tensor, const char* name) {
  const auto dtype = tensor.scalar_type();
  if (dtype != ScalarType::Half && dtype != ScalarType::BFloat16) {
    fail(name, " is neither float16 nor bfloat16");
  }
  return dtype == ScalarType::Half ? DataType::kFloat16 : DataType::kBFloat16;
}

void combine(const Tensor& out_parts, const Tensor& lse_parts, const Tensor& out,
             const Tensor& softmax_lse) {
  const int64_t dims = out_parts.dim();
  if (dims != 4 && dims != 5) {
    fail("out_parts has shape ", shape_of(out_parts),
         "; expected (num_splits, batch, seqlen_q, nheads, head_dim) or (num_splits, total_q, "
         "nheads, head_dim)");
  }
  const bool varlen = dims == 4;
  const int64_t splits = out_parts.size(0), batch = varlen ? 1 : out_parts.size(1);
  const int64_t seqlen_q = out_parts.size(dims - 3), nheads = out_parts.size(dims - 2);
  const int64_t head_dim = out_parts.size(dims - 1);
  CombineParams p{};
  p.dtype = element_type(out, "out");
  if (varlen) {
    p.out_parts = dense_floats(out_parts, "out_parts", {splits, seqlen_q, nheads, head_dim}, out);
    p.lse_parts = dense_floats(lse_parts, "lse_parts", {splits, nheads, seqlen_q}, out);
    p.softmax_lse = dense_floats(softmax_lse, "softmax_lse", {nheads, seqlen_q}, out);
    check_shape(out, "out", {seqlen_q, nheads, head_dim});
  } else {
    p.out_parts =
        dense_floats(out_parts, "out_parts", {splits, batch, seqlen_q, nheads, head_dim}, out);
    p.lse_parts = dense_floats(lse_parts, "lse_parts", {splits, batch, nheads, seqlen_q}, out);
    p.softmax_lse = dense_floats(softmax_lse, "softmax_lse", {batch, nheads, seqlen_q}, out);
    check_shape(out, "out", {batch, seqlen_q, nheads, head_dim});
  }
  if (splits < 1) fail("out_parts has no splits");
  if (out.numel() == 0) return;
  p.head_dim = head_dim_of(head_dim, "out_parts");
  check_dense(out_parts, "out_parts");
  check_dense(out, "out");
  to_int32(batch * seqlen_q * nheads, "the number of rows");
  p.num_splits = to_int32(splits, "num_splits");
  p.batch = to_int32(batch, "the batch size");
  p.seqlen_q = to_int32(seqlen_q, "seqlen_q");
  p.nheads = to_int32(nheads, "nheads");
  p.out = out.mutable_data_ptr();
  const Launch launch(out);
  run_combine(p, launch.stream());
}

// Rows (token, head) of `tensor`, (batch, seqlen, nheads, head_dim) or with `cu_seqlens` (tokens,
// nheads, head_dim).
Tokens tokens_of(const Tensor& tensor, const char* name, const OptionalTensor& cu_seqlens,
                 const char* cu_name, int64_t batch, const Tensor& like) {
  const int64_t dims = cu_seqlens ? 3 : 4;
  if (tensor.dim() != dims || (!cu_seqlens && tensor.size(0) != batch)) {
    fail(name, " has shape ", shape_of(tensor), "; expected ",
         cu_seqlens ? "(tokens, nheads, head_dim)" : "(batch, seqlen, nheads, head_dim)",
         " for a batch of ", batch);
  }
  Tokens rows{};
  rows.cu_seqlens = data_of<int32_t>(cu_seqlens, cu_name, ScalarType::Int, {batch + 1}, like);
  rows.seqlen = cu_seqlens ? 0 : to_int32(tensor.size(1), "seqlen");
  rows.tokens = to_int32(cu_seqlens ? tensor.size(0) : batch * tensor.size(1), "tokens");
  rows.nheads = to_int32(tensor.size(dims - 2), "nheads");
  to_int32(tensor.numel() / kVectorElements, "the vectors of a tensor");
  return rows;
}

// Check a tensor of heads x head_dim rows of the dtype and device of `like`; returns its strides.
Strides rows_of(const Tensor& tensor, const char* name, int64_t nheads, int64_t head_dim,
                const Tensor& like, bool may_repeat) {
  check_device(tensor, name, like);
  if (tensor.scalar_type() != like.scalar_type()) fail(name, " does not have the dtype of k_cache");
  const int64_t dims = tensor.dim();
  if (dims < 3 || tensor.size(dims - 2) != nheads || tensor.size(dims - 1) != head_dim) {
    fail(name, " has shape ", shape_of(tensor), "; expected (..., ", nheads, ", ", head_dim, ")");
  }
  return strides_of(tensor, name, may_repeat);
}

void set_rotation(AppendParams& p, const OptionalTensor& cos, const OptionalTensor& sin,
                  const OptionalTensor& q, const OptionalTensor& rotated_q,
                  const OptionalTensor& cu_seqlens_q, const Tensor& k_cache) {
  if (!cos || !sin || !q || !rotated_q) {
    if (cos || sin || q || rotated_q || cu_seqlens_q) {
      fail("rotary_cos, rotary_sin, q and rotated_q come together, and cu_seqlens_q with them");
    }
    return;
  }
  const auto table = [&](const Tensor& tensor, const char* name) {
    check_device(tensor, name, k_cache);
    if (tensor.scalar_type() != k_cache.scalar_type()) {
      fail(name, " does not have the dtype of k_cache");
    }
    if (tensor.dim() != 2) {
      fail(name, " has shape ", shape_of(tensor), "; expected (seqlen_ro, rotary_dim / 2)");
    }
    check_shape(tensor, name, {cos->size(0), cos->size(1)});
    if (tensor.size(1) > 1 && tensor.stride(1) != 1) {
      fail(name, "'s last dimension is not contiguous");
    }
    return to_int32(tensor.size(0) > 1 ? tensor.stride(0) : 0, "a stride");
  };
  p.cos_stride = table(*cos, "rotary_cos"), p.sin_stride = table(*sin, "rotary_sin");
  p.rotary_cos = cos->const_data_ptr(), p.rotary_sin = sin->const_data_ptr();
  p.rotary_rows = to_int32(cos->size(0), "seqlen_ro");
  p.rotary_dim = to_int32(2 * cos->size(1), "rotary_dim");
  if (p.rotary_dim < 2 || p.rotary_dim > p.head_dim) {
    fail("rotary_dim is ", p.rotary_dim, "; accepted are 2 to head_dim ", p.head_dim);
  }
  p.queries = tokens_of(*q, "q", cu_seqlens_q, "cu_seqlens_q", p.batch, k_cache);
  const int64_t nheads_q = p.queries.nheads;
  p.q_strides = rows_of(*q, "q", nheads_q, p.head_dim, k_cache, true);
  p.rotated_q_strides = rows_of(*rotated_q, "rotated_q", nheads_q, p.head_dim, k_cache, false);
  const auto rotated = tokens_of(*rotated_q, "rotated_q", cu_seqlens_q, "", p.batch, k_cache);
  if (rotated.tokens != p.queries.tokens) fail("rotated_q does not have the shape of q");
  p.q = q->const_data_ptr(), p.rotated_q = rotated_q->mutable_data_ptr();
}

void append(const Tensor& k_cache, const Tensor& v_cache, const Tensor& k_new, const Tensor& v_new,
            const Tensor& cache_seqlens, const Tensor& seqused_k,
            const OptionalTensor& cu_seqlens_k_new, const OptionalTensor& cache_batch_idx,
            const OptionalTensor& block_table, const OptionalTensor& rotary_cos,
            const OptionalTensor& rotary_sin, const OptionalTensor& rotary_seqlens,
            const OptionalTensor& q, const OptionalTensor& rotated_q,
            const OptionalTensor& cu_seqlens_q, bool interleaved, bool follows) {
  if (k_cache.dim() != 4 || v_cache.dim() != 4) {
    fail("k_cache and v_cache have shapes ", shape_of(k_cache), " and ", shape_of(v_cache),
         "; expected (rows, seqlen, nheads, head_dim)");
  }
  if (block_table && (block_table->dim() != 2 || cache_batch_idx)) {
    fail("block_table is (batch, max_pages) and comes without cache_batch_idx");
  }
  AppendParams p{};
  p.dtype = element_type(k_cache, "k_cache");
  p.batch = to_int32(cache_seqlens.numel(), "the batch size");
  const int64_t nheads = k_cache.size(2), head_dim = k_cache.size(3), head_dim_v = v_cache.size(3);
  p.head_dim = head_dim_of(head_dim, "k_cache"), p.head_dim_v = head_dim_of(head_dim_v, "v_cache");
  check_shape(v_cache, "v_cache", {k_cache.size(0), k_cache.size(1), nheads, head_dim_v});
  p.k_strides = rows_of(k_cache, "k_cache", nheads, head_dim, k_cache, false);
  p.v_strides = rows_of(v_cache, "v_cache", nheads, head_dim_v, k_cache, false);
  p.appended = tokens_of(k_new, "k_new", cu_seqlens_k_new, "cu_seqlens_k_new", p.batch, k_cache);
  const auto values =
      tokens_of(v_new, "v_new", cu_seqlens_k_new, "cu_seqlens_k_new", p.batch, k_cache);
  if (values.tokens != p.appended.tokens) fail("v_new does not have the rows of k_new");
  p.k_new_strides = rows_of(k_new, "k_new", nheads, head_dim, k_cache, true);
  p.v_new_strides = rows_of(v_new, "v_new", nheads, head_dim_v, k_cache, true);
  p.cache_rows = to_int32(k_cache.size(0), "the rows of k_cache");
  p.page_size = to_int32(k_cache.size(1), "the page size");
  p.max_pages = block_table ? to_int32(block_table->size(1), "the pages of a sequence") : 1;
  to_int32(int64_t{p.page_size} * p.max_pages, "the capacity of a sequence");
  const auto ints = [&](const OptionalTensor& tensor, const char* name, auto... columns) {
    return data_of<int32_t>(tensor, name, ScalarType::Int, {p.batch, columns...}, k_cache);
  };
  p.block_table = ints(block_table, "block_table", int64_t{p.max_pages});
  p.cache_batch_idx = ints(cache_batch_idx, "cache_batch_idx");
  if (!block_table && !cache_batch_idx && p.cache_rows != p.batch) {
    fail("k_cache has ", p.cache_rows, " rows for a batch of ", p.batch,
         " without cache_batch_idx");
  }
  p.cache_seqlens = ints(cache_seqlens, "cache_seqlens");
  p.first_position = rotary_seqlens ? ints(rotary_seqlens, "rotary_seqlens") : p.cache_seqlens;
  ints(seqused_k, "seqused_k");
  p.seqused_k = static_cast<int32_t*>(seqused_k.mutable_data_ptr());
  set_rotation(p, rotary_cos, rotary_sin, q, rotated_q, cu_seqlens_q, k_cache);
  p.interleaved = interleaved, p.follows = follows;
  p.k_new = k_new.const_data_ptr(), p.v_new = v_new.const_data_ptr();
  p.k_cache = k_cache.mutable_data_ptr(), p.v_cache = v_cache.mutable_data_ptr();
  if (p.batch == 0) return;
  const Launch launch(k_cache);
  run_append(p, launch.stream());
}

void softmax_d(const Tensor& out, const Tensor& dout, const OptionalTensor& dlse,
               const Tensor& softmax_d, const OptionalTensor& scaled_d, double scale) {
  const int64_t dims = out.dim();
  if (dims != 3 && dims != 4) {
    fail("out has shape ", shape_of(out), "; expected (batch, seqlen_q, nheads, head_dim) or ",
         "(total_q, nheads, head_dim)");
  }
  const int64_t batch = dims == 4 ? out.size(0) : 1, seqlen = out.size(dims - 3);
  const int64_t nheads = out.size(dims - 2), head_dim = out.size(dims - 1);
  const auto floats = [&](const Tensor& tensor, const char* name) {
    return dims == 4 ? dense_floats(tensor, name, {batch, nheads, seqlen}, out)
                     : dense_floats(tensor, name, {nheads, seqlen}, out);
  };
  SoftmaxDParams p{};
  p.dtype = element_type(out, "out");
  check_device(dout, "dout", out);
  if (dout.scalar_type() != out.scalar_type()) fail("dout does not have the dtype of out");
  dims == 4 ? check_shape(dout, "dout", {batch, seqlen, nheads, head_dim})
            : check_shape(dout, "dout", {seqlen, nheads, head_dim});
  p.softmax_d = floats(softmax_d, "softmax_d");
  p.scaled_d = scaled_d ? floats(*scaled_d, "scaled_d") : nullptr;
  p.dlse = dlse ? floats(*dlse, "dlse") : nullptr;
  if (out.numel() == 0) return;
  p.head_dim = head_dim_of(head_dim, "out");
  p.out_strides = strides_of(out, "out", true);
  p.dout_strides = strides_of(dout, "dout", true);
  to_int32(batch * seqlen * nheads, "the number of rows");
  p.batch = to_int32(batch, "the batch size");
  p.seqlen = to_int32(seqlen, "seqlen_q");
  p.nheads = to_int32(nheads, "nheads");
  p.out = out.const_data_ptr(), p.dout = dout.const_data_ptr();
  p.scale = static_cast<float>(scale);
  const Launch launch(out);
  run_softmax_d(p, launch.stream());
}

void sum(const Tensor& parts, const Tensor& sums) {
  if (parts.dim() != 3 || parts.size(2) % kVectorElements != 0) {
    fail("parts has shape ", shape_of(parts),
         "; expected (outer, terms, inner) with inner a multiple of ", kVectorElements);
  }
  check_device(parts, "parts", sums);
  check_shape(sums, "sums", {parts.size(0), parts.size(2)});
  SumParams p{};
  p.dtype = element_type(sums, "sums");
  p.float_terms = parts.scalar_type() == ScalarType::Float;
  if (!p.float_terms && parts.scalar_type() != sums.scalar_type()) {
    fail("parts is neither float32 nor of the dtype of sums");
  }
  check_dense(parts, "parts");
  check_dense(sums, "sums");
  const int64_t vectors = parts.size(2) / kVectorElements;
  to_int32(parts.size(0) * vectors, "the vectors of a tensor");
  p.outer = to_int32(parts.size(0), "outer");
  p.terms = to_int32(parts.size(1), "terms");
  p.inner = to_int32(vectors, "inner");
  p.parts = parts.const_data_ptr(), p.sums = sums.mutable_data_ptr();
  if (sums.numel() == 0) return;
  const Launch launch(sums);
  run_sum(p, launch.stream());
}

}  // namespace
}  // namespace flash_attn

STABLE_TORCH_LIBRARY_FRAGMENT(FLASH_ATTN_LIBRARY, m) {
  m.def(
      "combine(Tensor out_parts, Tensor lse_parts, Tensor(a!) out, Tensor(b!) softmax_lse) -> ()");
  m.def(
      "append(Tensor(a!) k_cache, Tensor(b!) v_cache, Tensor k_new, Tensor v_new, "
      "Tensor cache_seqlens, Tensor(c!) seqused_k, Tensor? cu_seqlens_k_new, "
      "Tensor? cache_batch_idx, Tensor? block_table, Tensor? rotary_cos, Tensor? rotary_sin, "
      "Tensor? rotary_seqlens, Tensor? q, Tensor(d!)? rotated_q, Tensor? cu_seqlens_q, "
      "bool interleaved, bool follows) -> ()");
  m.def(
      "softmax_d(Tensor out, Tensor dout, Tensor? dlse, Tensor(a!) softmax_d, "
      "Tensor(b!)? scaled_d, float scale) -> ()");
  m.def("sum(Tensor parts, Tensor(a!) sums) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(FLASH_ATTN_LIBRARY, CUDA, m) {
  m.impl("combine", TORCH_BOX(&flash_attn::combine));
  m.impl("append", TORCH_BOX(&flash_attn::append));
  m.impl("softmax_d", TORCH_BOX(&flash_attn::softmax_d));
  m.impl("sum", TORCH_BOX(&flash_attn::sum));
}

STABLE_TORCH_LIBRARY_IMPL(FLASH_ATTN_LIBRARY, CPU, m) {
  m.impl("combine", TORCH_BOX(&flash_attn::combine));
  m.impl("append", TORCH_BOX(&flash_attn::append));
  m.impl("softmax_d", TORCH_BOX(&flash_attn::softmax_d));
  m.impl("sum", TORCH_BOX(&flash_attn::sum));
}
