// From products of a query and a key to what the softmax takes: scale, softcap, ALiBi.
#pragma once

#include <cfloat>
#include <cute/tensor.hpp>

#include "math.h"
#include "params.h"

namespace flash_attn::cuda {

// Logits are held without `factor`, which the exponent applies: it leads to base 2 and holds the
// softmax scale where nothing else is done with a score.
template <bool kSoftcap, bool kAlibi>
struct Logits {
  float scale, cap, factor;

  // A score of 8-bit operands counts `descale`, the product of their scales.
  __device__ explicit Logits(const AttentionParams& p, float descale = 1.f)
      : scale(p.softmax_scale * descale),
        cap(p.softcap_value),
        // not 0, which would turn a masked score into NaN
        factor(kSoftcap || kAlibi ? kLog2E
                                  : fmaxf(fabsf(p.softmax_scale * descale) * kLog2E, FLT_MIN)) {}

  // What the softcap's derivative is, from the capped score or -inf; not with ALiBi.
  __device__ float derivative(float capped) const {
    if constexpr (!kSoftcap) return 1.f;
    const float tanh = fmaxf(capped, -cap) / cap;
    return 1.f - tanh * tanh;
  }

  // Apply scale and cap; with `slope` positive, ALiBi lowers a logit by slope for each step that
  // `row(i)`, counted on the diagonal, is away from `key(j)`; rows and keys may change roles.
  // capped(i, j, tanh) hears of what the softcap's derivative needs.
  template <class Scores, class Row, class Slope, class Key, class Capped>
  __device__ void apply(Scores& scores, Row row, Slope slope, Key key, Capped capped) const {
    if constexpr (!kSoftcap && !kAlibi) {
      if (scale >= 0.f) return;
    }
    const float inner = kSoftcap ? scale / cap : kAlibi ? scale : -1.f;
#pragma unroll
    for (int i = 0; i < cute::size<0>(scores); ++i) {
#pragma unroll
      for (int j = 0; j < cute::size<1>(scores); ++j) {
        float score = scores(i, j) * inner;
        if constexpr (kSoftcap) {
          score = tanh_fast(score);
          capped(i, j, score);
          score *= cap;
        }
        if constexpr (kAlibi) score -= slope(i) * fabsf(static_cast<float>(row(i) - key(j)));
        scores(i, j) = score;
      }
    }
  }
};

// Slope of a head; 0 without ALiBi.
template <bool kAlibi>
__device__ float alibi_slope(const AttentionParams& p, int batch, int head) {
  if constexpr (!kAlibi) return 0.f;
  return p.alibi_slopes[int64_t{batch} * p.alibi_batch_stride + head];
}

}  // namespace flash_attn::cuda
