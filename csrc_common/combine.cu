// Merge of the results of splits of the keys, by log-sum-exp (flash-decoding).
#include "portable.h"
#include "vectors.h"

namespace flash_attn {
namespace portable {
namespace {

constexpr int kMaxLanes = 8;

// A row (batch, query, head) has `lanes` groups of threads, which take splits in turn and then add
// up what they have; a thread of a group has 8 channels.
template <class Element>
__global__ void __launch_bounds__(kThreads) combine_kernel(CombineParams p, int lanes) {
  __shared__ float sums[kVector][kThreads], maxima[kThreads], totals[kThreads];
  const int thread = threadIdx.x, vectors = p.head_dim / kVector;
  const int channel = thread % vectors * kVector, lane = thread / vectors % lanes;
  const int rows_per_block = kThreads / (vectors * lanes),
            row_in_block = thread / (vectors * lanes);
  const uint32_t rows = p.batch * p.seqlen_q * p.nheads;
  const uint32_t row = blockIdx.x * rows_per_block + row_in_block;
  const bool exists = row_in_block < rows_per_block && row < rows;

  const uint32_t query = row / p.nheads, batch = query / p.seqlen_q;
  const uint32_t lse_row = (batch * p.nheads + row % p.nheads) * p.seqlen_q + query % p.seqlen_q;
  const int num_splits = exists ? p.num_splits : 0;
  float maximum = -INFINITY;
  for (int split = lane; split < num_splits; split += lanes) {
    maximum = fmaxf(maximum, p.lse_parts[offset(split, rows) + lse_row]);
  }
  const float shift = maximum == -INFINITY ? 0.f : maximum;
  float total = 0.f, sum[kVector] = {};
#pragma unroll 4
  for (int split = lane; split < num_splits; split += lanes) {
    const float weight = expf(p.lse_parts[offset(split, rows) + lse_row] - shift);
    if (weight == 0.f) continue;
    const auto part =
        Vector<float>::load(p.out_parts + (offset(split, rows) + row) * p.head_dim + channel);
    total += weight;
#pragma unroll
    for (int i = 0; i < kVector; ++i) sum[i] += weight * part.values[i];
  }
  maxima[thread] = maximum;
  totals[thread] = total;
#pragma unroll
  for (int i = 0; i < kVector; ++i) sums[i][thread] = sum[i];
  __syncthreads();
  if (!exists || lane != 0) return;

  for (int other = 1; other < lanes; ++other) {
    maximum = fmaxf(maximum, maxima[thread + other * vectors]);
  }
  const float row_shift = maximum == -INFINITY ? 0.f : maximum;
  total = 0.f;
  float merged[kVector] = {};
  for (int other = 0; other < lanes; ++other) {
    const int from = thread + other * vectors;
    const float weight = expf(maxima[from] - row_shift);
    total += weight * totals[from];
#pragma unroll
    for (int i = 0; i < kVector; ++i) merged[i] += weight * sums[i][from];
  }
  const float scale = total == 0.f ? 0.f : 1.f / total;
  Vector<Element> out;
#pragma unroll
  for (int i = 0; i < kVector; ++i) out.values[i] = from_float<Element>(scale * merged[i]);
  out.store(static_cast<Element*>(p.out) + offset(row, p.head_dim) + channel);
  if (channel == 0) p.softmax_lse[lse_row] = total == 0.f ? -INFINITY : maximum + logf(total);
}

}  // namespace
}  // namespace portable

void run_combine(const CombineParams& p, void* stream) {
  using namespace portable;
  const int vectors = p.head_dim / kVector;
  int lanes = 1;
  while (lanes < kMaxLanes && lanes < p.num_splits && 2 * lanes * vectors <= kThreads) lanes *= 2;
  const int rows = p.batch * p.seqlen_q * p.nheads;
  const auto blocks = static_cast<unsigned>(blocks_for(rows, kThreads / (vectors * lanes)));
  for_element(p.dtype, [&](auto element) {
    combine_kernel<decltype(element)>
        <<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(p, lanes);
  });
  check_launch("the launch of combine");
}

}  // namespace flash_attn
