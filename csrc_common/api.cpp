// The operators of a native backend, registered in torch.library through LibTorch's stable ABI.
//
// Python allocates every tensor, results included: what a call writes is visible there, and no
// allocator crosses the binding.

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "device.h"
#include "kernels.h"
#include "tensor_checks.h"

// Weak, so that the library loads on a PyTorch without GPU support.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void**);

namespace flash_attn {
namespace {

// The device of a call is current while this lives. CPU tensors are for a simulated device, whose
// kernels compute in host memory.
class Launch {
 public:
  explicit Launch(const Tensor& q) {
    if (q.is_cpu()) {
      if (!is_simulated()) fail("q is on the CPU, and the device here is not a simulated one");
      return;
    }
    const auto index = q.get_device_index();
    if (aoti_torch_get_current_cuda_stream == nullptr) fail("this PyTorch has no GPU support");
    guard_.emplace(index);
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(index, &stream_));
  }
  void* stream() const { return stream_; }

 private:
  std::optional<torch::stable::accelerator::DeviceGuard> guard_;
  void* stream_ = nullptr;
};

// Bytes that one head's keys or values span; kernels address them with 31 bits.
void check_span(const Tensor& tensor, const Strides& strides, int64_t seqlen, const char* name) {
  const int64_t bytes = seqlen * strides.row * tensor.element_size();
  if (bytes > std::numeric_limits<int32_t>::max()) {
    fail("a sequence of ", name, " spans ", bytes, " bytes; native kernels address 2 GiB");
  }
}

// A window side is unbounded when it is negative or reaches beyond every sequence.
int32_t window(int64_t side, int64_t longest) {
  return to_int32(side < 0 ? longest : std::min(side, longest), "a window");
}

void set_problem(AttentionParams& p, const Tensor& q, const Tensor& k, const Tensor& v,
                 const OptionalTensor& cu_seqlens_q, const OptionalTensor& cu_seqlens_k,
                 const OptionalTensor& alibi_slopes, const OptionalTensor& rng_state,
                 int64_t max_seqlen_q, int64_t max_seqlen_k, double softmax_scale, double softcap,
                 double dropout_p, int64_t window_left, int64_t window_right) {
  p.varlen = cu_seqlens_q.has_value();
  if (cu_seqlens_k.has_value() != p.varlen) fail("cu_seqlens_q and cu_seqlens_k come together");
  const int64_t dims = p.varlen ? 3 : 4;
  if (q.dim() != dims || k.dim() != dims || v.dim() != dims) {
    fail("q, k and v have ", q.dim(), ", ", k.dim(), ", ", v.dim(), " dimensions; expected ", dims);
  }
  p.dtype = data_type(q, "q");
  if (k.scalar_type() != q.scalar_type() || v.scalar_type() != q.scalar_type()) {
    fail("k and v do not have the dtype of q");
  }
  check_device(k, "k", q);
  check_device(v, "v", q);
  const int64_t head_dim = q.size(dims - 1), head_dim_v = v.size(dims - 1);
  const int64_t nheads_q = q.size(dims - 2), nheads_k = k.size(dims - 2);
  const int64_t batch = p.varlen ? cu_seqlens_q->numel() - 1 : q.size(0);
  if (p.varlen) {
    check_shape(k, "k", {k.size(0), nheads_k, head_dim});
    check_shape(v, "v", {k.size(0), nheads_k, head_dim_v});
  } else {
    max_seqlen_q = q.size(1), max_seqlen_k = k.size(1);
    check_shape(k, "k", {batch, max_seqlen_k, nheads_k, head_dim});
    check_shape(v, "v", {batch, max_seqlen_k, nheads_k, head_dim_v});
  }
  if (batch < 1 || nheads_k < 1 || nheads_q % nheads_k != 0) {
    fail("q has ", nheads_q, " heads and k ", nheads_k, " in a batch of ", batch);
  }
  p.batch = to_int32(batch, "the batch size");
  p.nheads_q = to_int32(nheads_q, "nheads_q");
  p.nheads_k = to_int32(nheads_k, "nheads_k");
  p.head_dim = to_int32(head_dim, "head_dim");
  p.head_dim_v = to_int32(head_dim_v, "head_dim_v");
  // positions are sums of two lengths and a window
  constexpr int64_t kLongest = 1 << 28;
  if (std::max(max_seqlen_q, max_seqlen_k) > kLongest) fail("a sequence is longer than ", kLongest);
  p.seqlen_q = to_int32(max_seqlen_q, "seqlen_q");
  p.seqlen_k = to_int32(max_seqlen_k, "seqlen_k");

  const int64_t longest = max_seqlen_q + max_seqlen_k;
  p.masked = window_left >= 0 || window_right >= 0;
  p.window_left = window(window_left, longest);
  p.window_right = window(window_right, longest);
  p.softmax_scale = static_cast<float>(softmax_scale);
  p.softcap = softcap > 0;
  p.softcap_value = static_cast<float>(softcap);
  p.dropout = dropout_p > 0;
  p.dropout_p = static_cast<float>(dropout_p);
  if (p.dropout != rng_state.has_value()) fail("rng_state comes with dropout_p, and only then");

  p.cu_seqlens_q = data_of<int32_t>(cu_seqlens_q, "cu_seqlens_q", ScalarType::Int, {batch + 1}, q);
  p.cu_seqlens_k = data_of<int32_t>(cu_seqlens_k, "cu_seqlens_k", ScalarType::Int, {batch + 1}, q);
  p.alibi = alibi_slopes.has_value();
  const bool per_batch = p.alibi && alibi_slopes->dim() == 2;
  p.alibi_slopes =
      per_batch ? data_of<float>(alibi_slopes, "alibi_slopes", ScalarType::Float, {batch, nheads_q}, q)
                : data_of<float>(alibi_slopes, "alibi_slopes", ScalarType::Float, {nheads_q}, q);
  p.alibi_batch_stride = per_batch ? p.nheads_q : 0;
  p.rng_state = data_of<uint64_t>(rng_state, "rng_state", ScalarType::Long, {2}, q);

  p.q = q.const_data_ptr(), p.q_strides = strides_of(q, "q");
  p.k = k.const_data_ptr(), p.k_strides = strides_of(k, "k");
  p.v = v.const_data_ptr(), p.v_strides = strides_of(v, "v");
  check_span(q, p.q_strides, max_seqlen_q, "q");
  check_span(k, p.k_strides, max_seqlen_k, "k");
  check_span(v, p.v_strides, max_seqlen_k, "v");
}

// softmax_lse: (batch, nheads_q, seqlen_q), or (nheads_q, total_q) of a varlen call.
float* set_lse(AttentionParams& p, const Tensor& softmax_lse, const Tensor& q) {
  check_device(softmax_lse, "softmax_lse", q);
  if (softmax_lse.scalar_type() != ScalarType::Float || !softmax_lse.is_contiguous()) {
    fail("softmax_lse is not contiguous float32");
  }
  if (p.varlen) {
    check_shape(softmax_lse, "softmax_lse", {p.nheads_q, q.size(0)});
  } else {
    check_shape(softmax_lse, "softmax_lse", {p.batch, p.nheads_q, p.seqlen_q});
  }
  p.lse_head_stride = to_int32(p.varlen ? q.size(0) : p.seqlen_q, "a stride");
  p.lse_batch_stride = p.varlen ? 0 : to_int32(int64_t{p.nheads_q} * p.seqlen_q, "a stride");
  return static_cast<float*>(softmax_lse.mutable_data_ptr());
}

void forward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
             const Tensor& softmax_lse, const OptionalTensor& cu_seqlens_q,
             const OptionalTensor& cu_seqlens_k, const OptionalTensor& seqused_k,
             const OptionalTensor& alibi_slopes, const OptionalTensor& rng_state,
             int64_t max_seqlen_q, int64_t max_seqlen_k, double softmax_scale, double softcap,
             double dropout_p, int64_t window_left, int64_t window_right) {
  ForwardParams p{};
  set_problem(p, q, k, v, cu_seqlens_q, cu_seqlens_k, alibi_slopes, rng_state, max_seqlen_q,
              max_seqlen_k, softmax_scale, softcap, dropout_p, window_left, window_right);
  p.softmax_lse = set_lse(p, softmax_lse, q);
  check_device(out, "out", q);
  if (out.scalar_type() != q.scalar_type()) fail("out does not have the dtype of q");
  if (p.varlen) {
    check_shape(out, "out", {q.size(0), p.nheads_q, p.head_dim_v});
  } else {
    check_shape(out, "out", {p.batch, p.seqlen_q, p.nheads_q, p.head_dim_v});
    if (seqused_k) fail("seqused_k needs cu_seqlens");
  }
  p.out = out.mutable_data_ptr(), p.out_strides = strides_of(out, "out");
  p.seqused_k = data_of<int32_t>(seqused_k, "seqused_k", ScalarType::Int, {p.batch}, q);
  if (q.numel() == 0 || p.head_dim_v == 0) return;
  const Launch launch(q);
  run_forward(p, launch.stream());
}

// Architecture of a device, or the runtime's reason why there is none.
std::string device_architecture(int64_t index) { return architecture(static_cast<int>(index)); }

bool supports_forward(const std::string& arch, bool bfloat16, int64_t head_dim, int64_t head_dim_v,
                      bool varlen, bool masked, bool softcap, bool alibi, bool dropout) {
  return has_forward(arch, {bfloat16 ? DataType::kBFloat16 : DataType::kFloat16,
                            to_int32(head_dim, "head_dim"), to_int32(head_dim_v, "head_dim_v"),
                            varlen, masked, softcap, alibi, dropout});
}

}  // namespace
}  // namespace flash_attn

STABLE_TORCH_LIBRARY(FLASH_ATTN_LIBRARY, m) {
  m.def("instances() -> str");
  m.def("device_architecture(int index) -> str");
  m.def(
      "supports_forward(str arch, bool bfloat16, int head_dim, int head_dim_v, bool varlen, "
      "bool masked, bool softcap, bool alibi, bool dropout) -> bool");
  m.def(
      "forward(Tensor q, Tensor k, Tensor v, Tensor(a!) out, Tensor(b!) softmax_lse, "
      "Tensor? cu_seqlens_q, Tensor? cu_seqlens_k, Tensor? seqused_k, Tensor? alibi_slopes, "
      "Tensor? rng_state, int max_seqlen_q, int max_seqlen_k, float softmax_scale, float softcap, "
      "float dropout_p, int window_left, int window_right) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(FLASH_ATTN_LIBRARY, CompositeExplicitAutograd, m) {
  m.impl("instances", TORCH_BOX(&flash_attn::instances));
  m.impl("device_architecture", TORCH_BOX(&flash_attn::device_architecture));
  m.impl("supports_forward", TORCH_BOX(&flash_attn::supports_forward));
}

STABLE_TORCH_LIBRARY_IMPL(FLASH_ATTN_LIBRARY, CUDA, m) {
  m.impl("forward", TORCH_BOX(&flash_attn::forward));
}

STABLE_TORCH_LIBRARY_IMPL(FLASH_ATTN_LIBRARY, CPU, m) {
  m.impl("forward", TORCH_BOX(&flash_attn::forward));
}
