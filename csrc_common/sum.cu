// Sums of gradients: of dQ over blocks of keys, of dK and dV over the query heads of a group.
#include "portable.h"
#include "vectors.h"

namespace flash_attn {
namespace portable {
namespace {

template <class Term, class Element>
__global__ void __launch_bounds__(kThreads) sum_kernel(SumParams p) {
  const uint32_t index = blockIdx.x * kThreads + threadIdx.x;
  if (index >= static_cast<uint32_t>(p.outer * p.inner)) return;
  const uint32_t outer = index / p.inner, inner = index % p.inner;
  const auto* term =
      static_cast<const Term*>(p.parts) + (offset(outer, p.terms) * p.inner + inner) * kVector;
  float sum[kVector] = {};
#pragma unroll 4
  for (int number = 0; number < p.terms; ++number, term += offset(p.inner, kVector)) {
    const auto loaded = Vector<Term>::load(term);
#pragma unroll
    for (int i = 0; i < kVector; ++i) sum[i] += to_float(loaded.values[i]);
  }
  Vector<Element> rounded;
#pragma unroll
  for (int i = 0; i < kVector; ++i) rounded.values[i] = from_float<Element>(sum[i]);
  rounded.store(static_cast<Element*>(p.sums) + offset(index, kVector));
}

template <class Term, class Element>
void launch(const SumParams& p, void* stream) {
  const auto blocks = static_cast<unsigned>(blocks_for(p.outer * p.inner));
  sum_kernel<Term, Element><<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(p);
}

}  // namespace
}  // namespace portable

void run_sum(const SumParams& p, void* stream) {
  using namespace portable;
  for_element(p.dtype, [&](auto element) {
    if (p.float_terms) {
      launch<float, decltype(element)>(p, stream);
    } else {
      launch<decltype(element), decltype(element)>(p, stream);
    }
  });
  check_launch("the launch of sum");
}

}  // namespace flash_attn
