// The backward for Hopper: configuration of an instance, its kernel and launch.
//
// After FlashAttention-3 (Shah et al., 2024). A block of threads stays on its multiprocessor and
// takes tiles of keys of a query head in turn. One warpgroup is the producer, each of the others
// the consumer of 64 keys of the tile.
#pragma once

#include <cutlass/arch/reg_reconfig.h>

#include "backward_consumer.h"
#include "backward_producer.h"
#include "chip.h"
#include "common/launch.h"

namespace flash_attn::cuda::sm90 {

// Blocks of kBlockM queries, of which kStages are in shared memory, and a tile of 128 keys.
// Softcap, ALiBi and dropout make 128 queries 64, for want of registers.
template <int kBlockM_, int kBlockN_, int kStages_>
struct BackwardTile {
  static constexpr int kBlockM = kBlockM_, kBlockN = kBlockN_, kStages = kStages_;
  static_assert((kBlockM == 64 || kBlockM == 128) && kBlockN == 128);
};

struct BackwardFeatures {
  bool varlen = false, masked = false, softcap = false, alibi = false, dropout = false;
  bool deterministic = false;
};

struct BackwardArguments {
  TensorMaps maps;
  CUtensorMap dout, dq;
  BackwardParams params;
  KeyOrder order;
};

template <class Element_, class Tile_, int kHeadDim_, BackwardFeatures kFeatures_>
struct Backward {
  using Element = Element_;
  using Tile =
      std::conditional_t<kFeatures_.softcap || kFeatures_.alibi || kFeatures_.dropout,
                         BackwardTile<kWarpgroupRows, Tile_::kBlockN, Tile_::kStages>, Tile_>;
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr BackwardFeatures kFeatures = kFeatures_;
  static constexpr int kBlockM = Tile::kBlockM, kBlockN = Tile::kBlockN;
  static_assert(kHeadDim % kBoxColumns == 0 && kHeadDim <= 128);
  static_assert(!kFeatures.softcap || !kFeatures.alibi);

  static constexpr int kConsumers = kBlockN / kWarpgroupRows;
  static constexpr int kConsumerWarps = kConsumers * kWarpgroupThreads / kWarpThreads;
  static constexpr int kThreads = (1 + kConsumers) * kWarpgroupThreads;
  // registers of a thread; together those that launch_bounds gives
  static constexpr int kProducerRegisters = 24, kConsumerRegisters = 240;

  using Work = KeyWork<Tile, kFeatures.varlen, kFeatures.masked>;
  using Arguments = BackwardArguments;
  // warpgroups share the rows of dQ, or its columns
  static constexpr int kWarpgroupsM = kBlockM / kWarpgroupRows;
  static constexpr int kWarpgroupsD = kConsumers / kWarpgroupsM;
  static constexpr int kGradientColumns = kHeadDim / kWarpgroupsD;
  using ScoreMma = sm90::ScoreMma<Element, kBlockN, kBlockM, kHeadDim>;  // keys x queries
  using KeyMma = sm90::OutMma<Element, kBlockN, kBlockM, kHeadDim>;      // dK, dV
  using QueryMma = sm90::AcrossMma<Element, kBlockM, kHeadDim, kBlockN, kWarpgroupsD>;  // dQ
  using KeyRing = Ring<1>;
  using QueryRing = Ring<Tile::kStages>;
  // warpgroups that write one need not wait for those that still read the other
  static constexpr int kScoreStages = 2;
  using DropoutTile = cuda::DropoutTile<kBlockM, kWarpgroupRows, kWarpgroupThreads>;

  // dQ of the warps of a consumer
  using Staged = float[kWarpgroupRows / kStagedRows][kStagedRows * kGradientColumns];

  struct Shared {
    alignas(1024) Element k[kBlockN * kHeadDim];
    alignas(1024) Element v[kBlockN * kHeadDim];
    alignas(1024) Element q[Tile::kStages][kBlockM * kHeadDim];
    alignas(1024) Element dout[Tile::kStages][kBlockM * kHeadDim];
    alignas(1024) Element dscores[kScoreStages][kBlockN * kBlockM];
    alignas(1024) Staged dq[kConsumers];
    // of every query log-sum-exp in base 2 and softmax_d
    alignas(16) float2 statistics[Tile::kStages][kBlockM];
    KeyRing key_ring, value_ring;
    QueryRing query_ring, dout_ring, statistics_ring;
    DropoutTile dropout[kFeatures.dropout ? kConsumers : 1];
  };
  static constexpr int kSharedBytes = sizeof(Shared), kMostSharedBytes = 227 << 10;
  static_assert(kSharedBytes <= kMostSharedBytes);
};

template <class Instance>
__global__ void __launch_bounds__(Instance::kThreads, 1)
    backward_kernel(const __grid_constant__ BackwardArguments arguments) {
  extern __shared__ __align__(1024) char memory[];
  auto& shared = *reinterpret_cast<typename Instance::Shared*>(memory);
  if (threadIdx.x == 0) {
    shared.key_ring.init(Instance::kConsumerWarps);
    shared.value_ring.init(Instance::kConsumerWarps);
    shared.query_ring.init(Instance::kConsumerWarps);
    shared.dout_ring.init(Instance::kConsumerWarps);
    shared.statistics_ring.init(Instance::kConsumerWarps);
    cutlass::arch::fence_barrier_init();
  }
  __syncthreads();

  // uniform, so that addresses of operands stay in uniform registers
  const int warpgroup = __shfl_sync(0xffffffffu, threadIdx.x / kWarpgroupThreads, 0);
  if (warpgroup == 0) {
    cutlass::arch::warpgroup_reg_dealloc<Instance::kProducerRegisters>();
    const int warp = __shfl_sync(0xffffffffu, threadIdx.x / kWarpThreads, 0);
    if (warp == 1) {
      produce_statistics<Instance>(shared, arguments);
    } else if (warp == 0 && cute::elect_one_sync()) {
      produce_tiles<Instance>(shared, arguments);
    }
  } else {
    cutlass::arch::warpgroup_reg_alloc<Instance::kConsumerRegisters>();
    consume_backward<Instance>(shared, arguments, warpgroup - 1);
  }
}

template <class Instance>
void launch_backward(const BackwardParams& p, cudaStream_t stream) {
  using Element = typename Instance::Element;
  constexpr bool kVarlen = Instance::kFeatures.varlen;
  constexpr int kBlockM = Instance::kBlockM, kBlockN = Instance::kBlockN;
  const auto chip = current_chip();
  if (!chip) return;
  // half of the cache: the other half is for k, v and the accumulator
  const BackwardArguments arguments{
      tensor_maps<Element, kVarlen, kBlockM, kBlockN>(p),
      tensor_map<Element, kVarlen>("dout", p.dout, p.dout_strides, p.head_dim_v, p.seqlen_q,
                                   p.nheads_q, p.batch, kBlockM),
      query_gradient_map<kVarlen>(p, kBlockN), p,
      KeyOrder(p, kBlockN, chip->cache_bytes / 2, sizeof(Element))};
  launch(backward_kernel<Instance>,
         std::min(chip->multiprocessors, arguments.order.tile_order().tiles()), Instance::kThreads,
         Instance::kSharedBytes, arguments, stream);
}

}  // namespace flash_attn::cuda::sm90
