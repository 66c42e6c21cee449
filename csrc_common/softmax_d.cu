// Row sums of dout * out, which the backward of softmax subtracts (FlashAttention-2, arXiv
// 2307.08691, algorithm 2, line 4).
#include "portable.h"
#include "vectors.h"

namespace flash_attn {
namespace portable {
namespace {

constexpr int kMaxLanes = 32;

// `lanes`, a power of two, neighbours make the sum of a row (batch, query, head).
template <class Element>
__global__ void __launch_bounds__(kThreads) softmax_d_kernel(SoftmaxDParams p, int lanes) {
  const uint32_t row = blockIdx.x * (kThreads / lanes) + threadIdx.x / lanes;
  const uint32_t rows = p.batch * p.seqlen * p.nheads, lane = threadIdx.x % lanes;
  const uint32_t token = row / p.nheads, batch = token / p.seqlen;
  const uint32_t query = token % p.seqlen, head = row % p.nheads;
  const auto begin = [&](const void* tensor, const Strides& strides) {
    return static_cast<const Element*>(tensor) + offset(batch, strides.batch) +
           offset(query, strides.row) + offset(head, strides.head);
  };
  const auto *out = begin(p.out, p.out_strides), *dout = begin(p.dout, p.dout_strides);
  float sum = 0.f;
  const int channels = row < rows ? p.head_dim : 0;
  for (int c = lane * kVector; c < channels; c += lanes * kVector) {
    const auto a = Vector<Element>::load(out + c), b = Vector<Element>::load(dout + c);
#pragma unroll
    for (int i = 0; i < kVector; ++i) sum += to_float(a.values[i]) * to_float(b.values[i]);
  }
  for (int mask = lanes / 2; mask > 0; mask /= 2) sum += exchange(sum, mask);
  if (row >= rows || lane != 0) return;
  const uint32_t place = (batch * p.nheads + head) * p.seqlen + query;
  if (p.dlse != nullptr) sum -= p.dlse[place];
  p.softmax_d[place] = sum;
  if (p.scaled_d != nullptr) p.scaled_d[place] = sum * p.scale;
}

}  // namespace
}  // namespace portable

void run_softmax_d(const SoftmaxDParams& p, void* stream) {
  using namespace portable;
  int lanes = 1;
  while (lanes < kMaxLanes && lanes * kVector < p.head_dim) lanes *= 2;
  for_element(p.dtype, [&](auto element) {
    softmax_d_kernel<decltype(element)>
        <<<static_cast<unsigned>(blocks_for(p.batch * p.seqlen * p.nheads, kThreads / lanes)),
           kThreads, 0, static_cast<cudaStream_t>(stream)>>>(p, lanes);
  });
  check_launch("the launch of softmax_d");
}

}  // namespace flash_attn
