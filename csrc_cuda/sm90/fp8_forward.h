// The forward of 8-bit floats (e4m3) for Hopper: that of forward.h with values transposed on the
// way, scales for each head of k, and output in bfloat16.
#pragma once

#include "forward.h"
#include "fp8_transpose.h"

namespace flash_attn::cuda::sm90 {

// Scale of a head of k of a sequence.
__device__ inline float descale_of(const Descale& descale, int batch, int head_k) {
  if (descale.values == nullptr) return 1.f;
  return descale.values[int64_t{batch} * descale.batch + int64_t{head_k} * descale.head];
}

// Scales of scores and of values.
class Fp8Scales {
 public:
  __device__ Fp8Scales(const AttentionParams& p, int batch, int head_k)
      : score_(descale_of(p.q_descale, batch, head_k) * descale_of(p.k_descale, batch, head_k)),
        value_(descale_of(p.v_descale, batch, head_k)) {}
  __device__ float score() const { return score_; }
  __device__ float value() const { return value_; }

 private:
  float score_, value_;
};

// `Tile` is a ForwardTile whose kBlockN is a multiple of 64.
template <class Element_, class Tile_, int kHeadDim_, ForwardFeatures kFeatures_>
struct Fp8Forward : Forward<Element_, Tile_, kHeadDim_, kFeatures_> {
  using Base = Forward<Element_, Tile_, kHeadDim_, kFeatures_>;
  using Base::kBlockN, Base::kConsumerWarps, Base::kHeadDim;
  using typename Base::Arguments, typename Base::Element, typename Base::KeyRing,
      typename Base::Tile;
  static_assert(sizeof(Element) == 1);

  // of the producer warpgroup; its first warp reads
  static constexpr int kTransposeWarps = 3;

  using OutElement = cutlass::bfloat16_t;
  using OutColumns = Fp8Columns;
  using Scales = Fp8Scales;
  // probabilities of up to 2^8 fill e4m3, which ends at 448
  static constexpr int kHeadroom = 8;

  struct Shared : Base::Shared {
    alignas(1024) Element v_transposed[Tile::kStages][kHeadDim * kBlockN];
    KeyRing transposed_ring;

    __device__ void init() {
      this->query_ring.init(kConsumerWarps);
      this->key_ring.init(kConsumerWarps);
      this->value_ring.init(kTransposeWarps);
      transposed_ring.init(kConsumerWarps, kTransposeWarps);
    }
    __device__ Element* value_operand() { return v_transposed[0]; }
    __device__ KeyRing& value_operand_ring() { return transposed_ring; }
  };
  static constexpr int kSharedBytes = sizeof(Shared);
  static_assert(kSharedBytes <= Base::kMostSharedBytes);

  // Warp `warp` of the producer.
  __device__ static void load(Shared& shared, const Arguments& arguments, int warp) {
    if (warp > 0) {
      transpose_values<Fp8Forward>(shared, arguments, warp - 1);
    } else if (cute::elect_one_sync()) {
      produce<Fp8Forward>(shared, arguments);
    }
  }
};

}  // namespace flash_attn::cuda::sm90
