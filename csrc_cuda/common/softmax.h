// Online softmax in base 2 (Milakov and Gimelshein, "Online normalizer calculation for softmax",
// 2018) of rows that four neighbouring threads share.
#pragma once

#include <cute/tensor.hpp>

#include "math.h"

namespace flash_attn::cuda {

__device__ inline float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

__device__ inline float quad_sum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// What two scores ago was a maximum; -inf, of a row that saw no key yet, must not meet itself.
__device__ inline float finite_shift(float maximum) { return maximum == -INFINITY ? 0.f : maximum; }

// A thread holds kRows rows. Sums are partial until `finish`. Probabilities come times 2^kHeadroom,
// which lets them fill the range of the type that they are rounded to.
template <int kRows, int kHeadroom = 0>
struct OnlineSoftmax {
  float row_max[kRows], row_sum[kRows];

  __device__ OnlineSoftmax() {
#pragma unroll
    for (int i = 0; i < kRows; ++i) row_max[i] = -INFINITY, row_sum[i] = 0.f;
  }

  // Logits (kRows, keys), less their `factor`, become unnormalised probabilities; `out` (kRows, n),
  // what was accumulated with earlier ones, is rescaled.
  template <class Scores, class Out>
  __device__ void update(Scores& scores, Out& out, float factor) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      float maximum = row_max[i];
#pragma unroll
      for (int j = 0; j < cute::size<1>(scores); ++j) maximum = fmaxf(maximum, scores(i, j));
      maximum = quad_max(maximum);
      const float shift = finite_shift(maximum) * factor;
      const float decay = exp2_fast(row_max[i] * factor - shift);
      float sum = row_sum[i] * decay;
#pragma unroll
      for (int j = 0; j < cute::size<1>(scores); ++j) {
        scores(i, j) = exp2_fast(scores(i, j) * factor - (shift - kHeadroom));
        sum += scores(i, j);
      }
      row_sum[i] = sum;
      row_max[i] = maximum;
#pragma unroll
      for (int j = 0; j < cute::size<1>(out); ++j) out(i, j) *= decay;
    }
  }

  // Divide `out` by the sums, times `multiplier`, and return the natural log-sum-exp of every row
  // in row_max; 0 and -inf for a row that saw no key.
  template <class Out>
  __device__ void finish(Out& out, float factor, float multiplier) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const float sum = quad_sum(row_sum[i]);
      const bool empty = sum == 0.f;
      const float scale = empty ? 0.f : multiplier / sum;
      row_max[i] = empty ? -INFINITY : (row_max[i] * factor + (log2f(sum) - kHeadroom)) * kLn2;
#pragma unroll
      for (int j = 0; j < cute::size<1>(out); ++j) out(i, j) *= scale;
    }
  }
};

}  // namespace flash_attn::cuda
