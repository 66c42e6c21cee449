// The operators of a native backend, registered in torch.library through LibTorch's stable ABI.
//
// Python allocates every tensor, results included: what a call writes is visible there, and no
// allocator crosses the binding.

#include <torch/csrc/stable/library.h>

#include "device.h"
#include "kernels.h"
#include "launch.h"
#include "problem.h"

namespace flash_attn {
namespace {

// A float32 for each row: (batch, nheads_q, seqlen_q), or (nheads_q, total_q) of a varlen call.
float* row_floats(AttentionParams& p, const Tensor& tensor, const char* name, const Tensor& q) {
  p.lse_head_stride = to_int32(p.varlen ? q.size(0) : p.seqlen_q, "a stride");
  p.lse_batch_stride = p.varlen ? 0 : to_int32(int64_t{p.nheads_q} * p.seqlen_q, "a stride");
  return p.varlen ? dense_floats(tensor, name, {p.nheads_q, q.size(0)}, q)
                  : dense_floats(tensor, name, {p.batch, p.nheads_q, p.seqlen_q}, q);
}

// Check a tensor of rows x heads x head_dim like `rows` (q or k), in the dtype of an output, and
// return its strides.
Strides rows_like(const Tensor& tensor, const char* name, const Tensor& rows, int64_t nheads,
                  int64_t head_dim, const Tensor& q) {
  check_device(tensor, name, q);
  if (tensor.scalar_type() != out_type(q.scalar_type())) {
    fail(name, " does not have the dtype of q, or bfloat16 where that is an 8-bit float");
  }
  if (rows.dim() == 3) {
    check_shape(tensor, name, {rows.size(0), nheads, head_dim});
  } else {
    check_shape(tensor, name, {rows.size(0), rows.size(1), nheads, head_dim});
  }
  return strides_of(tensor, name);
}

void forward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
             const Tensor& softmax_lse, const OptionalTensor& cu_seqlens_q,
             const OptionalTensor& cu_seqlens_k, const OptionalTensor& seqused_k,
             const OptionalTensor& alibi_slopes, const OptionalTensor& rng_state,
             const OptionalTensor& q_descale, const OptionalTensor& k_descale,
             const OptionalTensor& v_descale, int64_t max_seqlen_q, int64_t max_seqlen_k,
             double softmax_scale, double softcap, double dropout_p, int64_t window_left,
             int64_t window_right) {
  ForwardParams p{};
  set_problem(
      p, {q, k, v, cu_seqlens_q, cu_seqlens_k, seqused_k, alibi_slopes, rng_state, max_seqlen_q,
          max_seqlen_k, softmax_scale, softcap, dropout_p, window_left, window_right});
  p.softmax_lse = row_floats(p, softmax_lse, "softmax_lse", q);
  p.out_strides = rows_like(out, "out", q, p.nheads_q, p.head_dim_v, q);
  p.out = out.mutable_data_ptr();
  p.q_descale = descale_of(q_descale, "q_descale", p.batch, p.nheads_k, q);
  p.k_descale = descale_of(k_descale, "k_descale", p.batch, p.nheads_k, q);
  p.v_descale = descale_of(v_descale, "v_descale", p.batch, p.nheads_k, q);
  const bool scaled = q_descale || k_descale || v_descale;
  if (scaled && q.element_size() != 1) fail("q has a 16-bit dtype, whose kernels read no descales");
  if (q.numel() == 0) return;
  const Launch launch(q);
  run_forward(p, launch.stream());
}

void backward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& dout,
              const Tensor& softmax_lse, const Tensor& softmax_d, const Tensor& dq_accumulator,
              const Tensor& dk, const Tensor& dv, const OptionalTensor& cu_seqlens_q,
              const OptionalTensor& cu_seqlens_k, const OptionalTensor& seqused_k,
              const OptionalTensor& alibi_slopes, const OptionalTensor& rng_state,
              int64_t max_seqlen_q, int64_t max_seqlen_k, double softmax_scale, double softcap,
              double dropout_p, int64_t window_left, int64_t window_right, bool deterministic) {
  BackwardParams p{};
  set_problem(
      p, {q, k, v, cu_seqlens_q, cu_seqlens_k, seqused_k, alibi_slopes, rng_state, max_seqlen_q,
          max_seqlen_k, softmax_scale, softcap, dropout_p, window_left, window_right});
  p.deterministic = deterministic;
  p.softmax_lse = row_floats(p, softmax_lse, "softmax_lse", q);
  p.softmax_d = row_floats(p, softmax_d, "softmax_d", q);
  p.dout_strides = rows_like(dout, "dout", q, p.nheads_q, p.head_dim_v, q);
  p.dk_strides = rows_like(dk, "dk", k, p.nheads_q, p.head_dim, q);
  p.dv_strides = rows_like(dv, "dv", k, p.nheads_q, p.head_dim_v, q);
  p.dout = dout.const_data_ptr(), p.dk = dk.mutable_data_ptr(), p.dv = dv.mutable_data_ptr();
  if (q.numel() == 0 || k.numel() == 0) return;

  const Launch launch(q);
  const int64_t block =
      deterministic ? kernel_block("backward", architecture(current_device()), p) : 0;
  const int64_t splits = block > 0 ? (p.seqlen_k + block - 1) / block : 1;
  const int64_t rows = p.varlen ? q.size(0) : int64_t{p.batch} * p.seqlen_q;
  const int64_t row = int64_t{p.nheads_q} * p.head_dim;
  p.dq_accumulator =
      dense_floats(dq_accumulator, "dq_accumulator", {splits, rows, p.nheads_q, p.head_dim}, q);
  p.dq_strides = {p.varlen ? 0 : to_int32(p.seqlen_q * row, "a stride"), to_int32(row, "a stride"),
                  p.head_dim};
  p.dq_split_stride = splits > 1 ? to_int32(rows * row, "a stride") : 0;
  run_backward(p, launch.stream());
}

void split(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
           const Tensor& softmax_lse, const OptionalTensor& cu_seqlens_q,
           const OptionalTensor& seqused_k, const OptionalTensor& leftpad_k,
           const OptionalTensor& cache_batch_idx, const OptionalTensor& block_table,
           const OptionalTensor& alibi_slopes, int64_t max_seqlen_q, double softmax_scale,
           double softcap, int64_t window_left, int64_t window_right) {
  if (k.dim() != 4) fail("k has ", k.dim(), " dimensions; expected 4");
  if (block_table && (block_table->dim() != 2 || cache_batch_idx)) {
    fail("block_table is (batch, max_pages) and comes without cache_batch_idx");
  }
  const int64_t pages = block_table ? block_table->size(1) : 1;
  const OptionalTensor none;
  SplitParams p{};
  set_problem(p,
              {q, k, v, cu_seqlens_q, none, seqused_k, alibi_slopes, none, max_seqlen_q,
               k.size(1) * pages, softmax_scale, softcap, 0.0, window_left, window_right},
              true);
  const auto rows = [&](const OptionalTensor& tensor, const char* name, auto... columns) {
    return data_of<int32_t>(tensor, name, ScalarType::Int, {p.batch, columns...}, q);
  };
  p.paged = block_table.has_value();
  p.block_table = rows(block_table, "block_table", pages);
  p.block_table_stride = to_int32(pages, "the pages of a sequence");
  p.page_size = to_int32(k.size(1), "the page size");
  p.cache_batch_idx = rows(cache_batch_idx, "cache_batch_idx");
  p.leftpad_k = rows(leftpad_k, "leftpad_k");
  if (!p.paged && p.cache_batch_idx == nullptr && k.size(0) != p.batch) {
    fail("k has ", k.size(0), " cache rows for a batch of ", p.batch, " without cache_batch_idx");
  }
  p.num_splits = to_int32(out.size(0), "num_splits");
  if (cu_seqlens_q) {
    const int64_t total_q = q.size(0);
    p.lse_head_stride = to_int32(total_q, "a stride");
    p.softmax_lse =
        dense_floats(softmax_lse, "softmax_lse", {p.num_splits, p.nheads_q, total_q}, q);
    p.out = dense_floats(out, "out", {p.num_splits, total_q, p.nheads_q, p.head_dim_v}, q);
  } else {
    p.lse_head_stride = p.seqlen_q;
    p.lse_batch_stride = to_int32(int64_t{p.nheads_q} * p.seqlen_q, "a stride");
    p.softmax_lse = dense_floats(softmax_lse, "softmax_lse",
                                 {p.num_splits, p.batch, p.nheads_q, p.seqlen_q}, q);
    p.out =
        dense_floats(out, "out", {p.num_splits, p.batch, p.seqlen_q, p.nheads_q, p.head_dim_v}, q);
    to_int32(p.batch * int64_t{p.seqlen_q} * p.nheads_q * p.head_dim_v, "a stride");
  }
  if (q.numel() == 0) return;
  const Launch launch(q);
  run_split(p, launch.stream());
}

// Architecture of a device, or the runtime's reason why there is none.
std::string device_architecture(int64_t index) { return architecture(static_cast<int>(index)); }

// Keys of a block of the kernel that serves such calls, 0 if there is none.
int64_t block_size(const std::string& phase, const std::string& arch, ScalarType dtype,
                   int64_t head_dim, int64_t head_dim_v, bool varlen, bool paged, bool masked,
                   bool softcap, bool alibi, bool dropout, bool deterministic) {
  const Features features{data_type(dtype, "dtype"),
                          to_int32(head_dim, "head_dim"),
                          to_int32(head_dim_v, "head_dim_v"),
                          varlen,
                          paged,
                          masked,
                          softcap,
                          alibi,
                          dropout,
                          deterministic};
  return kernel_block(phase, arch, features);
}

}  // namespace
}  // namespace flash_attn

STABLE_TORCH_LIBRARY(FLASH_ATTN_LIBRARY, m) {
  m.def("instances() -> str");
  m.def("device_architecture(int index) -> str");
  m.def(
      "block_size(str phase, str arch, ScalarType dtype, int head_dim, int head_dim_v, "
      "bool varlen, bool paged, bool masked, bool softcap, bool alibi, bool dropout, "
      "bool deterministic) -> int");
  m.def(
      "forward(Tensor q, Tensor k, Tensor v, Tensor(a!) out, Tensor(b!) softmax_lse, "
      "Tensor? cu_seqlens_q, Tensor? cu_seqlens_k, Tensor? seqused_k, Tensor? alibi_slopes, "
      "Tensor? rng_state, Tensor? q_descale, Tensor? k_descale, Tensor? v_descale, "
      "int max_seqlen_q, int max_seqlen_k, float softmax_scale, float softcap, float dropout_p, "
      "int window_left, int window_right) -> ()");
  m.def(
      "backward(Tensor q, Tensor k, Tensor v, Tensor dout, Tensor softmax_lse, Tensor softmax_d, "
      "Tensor(a!) dq_accumulator, Tensor(b!) dk, Tensor(c!) dv, Tensor? cu_seqlens_q, "
      "Tensor? cu_seqlens_k, Tensor? seqused_k, Tensor? alibi_slopes, Tensor? rng_state, "
      "int max_seqlen_q, int max_seqlen_k, float softmax_scale, float softcap, float dropout_p, "
      "int window_left, int window_right, bool deterministic) -> ()");
  m.def(
      "split(Tensor q, Tensor k, Tensor v, Tensor(a!) out, Tensor(b!) softmax_lse, "
      "Tensor? cu_seqlens_q, Tensor? seqused_k, Tensor? leftpad_k, Tensor? cache_batch_idx, "
      "Tensor? block_table, Tensor? alibi_slopes, int max_seqlen_q, float softmax_scale, "
      "float softcap, int window_left, int window_right) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(FLASH_ATTN_LIBRARY, CompositeExplicitAutograd, m) {
  m.impl("instances", TORCH_BOX(&flash_attn::instances));
  m.impl("device_architecture", TORCH_BOX(&flash_attn::device_architecture));
  m.impl("block_size", TORCH_BOX(&flash_attn::block_size));
}

STABLE_TORCH_LIBRARY_IMPL(FLASH_ATTN_LIBRARY, CUDA, m) {
  m.impl("forward", TORCH_BOX(&flash_attn::forward));
  m.impl("backward", TORCH_BOX(&flash_attn::backward));
  m.impl("split", TORCH_BOX(&flash_attn::split));
}

STABLE_TORCH_LIBRARY_IMPL(FLASH_ATTN_LIBRARY, CPU, m) {
  m.impl("forward", TORCH_BOX(&flash_attn::forward));
  m.impl("backward", TORCH_BOX(&flash_attn::backward));
  m.impl("split", TORCH_BOX(&flash_attn::split));
}
