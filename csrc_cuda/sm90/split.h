// The forward for Hopper over caches or pages whose keys are split among blocks of threads:
// configuration of an instance, its kernel and launch. The host merges the splits.
//
// A warpgroup is the producer, another one the consumer. Up to a head dim of 128 two blocks are on
// a multiprocessor, so that the softmax of one goes with the products of the other.
#pragma once

#include <cutlass/arch/reg_reconfig.h>

#include "common/launch.h"
#include "split_consumer.h"

namespace flash_attn::cuda::sm90 {

// 64 packed rows and kBlockN keys; kStages tiles, keys and values in turn, are in shared memory.
template <int kBlockM_, int kBlockN_, int kStages_>
struct SplitTile {
  static constexpr int kBlockM = kBlockM_, kBlockN = kBlockN_, kStages = kStages_;
  static_assert(kBlockM == kWarpgroupRows && kStages >= 2);
};

struct SplitFeatures {
  bool paged = false, masked = false, softcap = false, alibi = false;
};

struct SplitMaps {
  CUtensorMap k, v;
};

// Boxes of TMA have box_rows rows; 0 where rows are copied by threads.
struct SplitArguments {
  SplitMaps maps;
  SplitParams params;
  int box_rows;
};

template <class Element_, class Tile, int kHeadDim_, SplitFeatures kFeatures_>
struct Split {
  using Element = Element_;
  using Arguments = SplitArguments;
  static constexpr SplitFeatures kFeatures = kFeatures_;
  static constexpr int kBlockM = Tile::kBlockM, kBlockN = Tile::kBlockN, kHeadDim = kHeadDim_;
  static_assert(kHeadDim % kBoxColumns == 0 && kHeadDim <= 256);

  static constexpr int kThreads = 2 * kWarpgroupThreads;
  static constexpr int kBlocksOnMultiprocessor = kHeadDim <= 128 ? 2 : 1;
  // registers of a thread; together no more than launch_bounds gives
  static constexpr int kProducerRegisters = 72;
  static constexpr int kConsumerRegisters = kBlocksOnMultiprocessor == 2 ? 184 : 240;

  using Work = SplitWork<kBlockM, kBlockN, kFeatures.masked>;
  using ScoreMma = sm90::ScoreMma<Element, kBlockM, kBlockN, kHeadDim>;
  using OutMma = sm90::OutMma<Element, kBlockM, kBlockN, kHeadDim>;
  using QueryLayout = RowsLayout<Element, kBlockM, kHeadDim, 1>;
  using KeyLayout = RowsLayout<Element, kBlockN, kHeadDim, Tile::kStages>;
  using ValueLayout = ColumnsLayout<Element, kBlockN, kHeadDim, Tile::kStages>;
  using Ring = sm90::Ring<Tile::kStages>;

  struct Shared {
    alignas(1024) Element q[kBlockM * kHeadDim];
    alignas(1024) Element tiles[Tile::kStages][kBlockN * kHeadDim];
    Ring ring;
  };
  // a multiprocessor has 228 KiB, of which a block takes one for itself
  static constexpr int kSharedBytes = sizeof(Shared);
  static constexpr int kMostSharedBytes = (228 / kBlocksOnMultiprocessor - 1) << 10;
  static_assert(kSharedBytes <= kMostSharedBytes);
};

template <class Instance>
__global__ void __launch_bounds__(Instance::kThreads, Instance::kBlocksOnMultiprocessor)
    split_kernel(const __grid_constant__ SplitArguments arguments) {
  extern __shared__ __align__(1024) char memory[];
  auto& shared = *reinterpret_cast<typename Instance::Shared*>(memory);
  const typename Instance::Work work(arguments.params, blockIdx.x);
  if (!work.has_rows()) return;
  const bool copied = Instance::kFeatures.paged && arguments.box_rows == 0;
  if (threadIdx.x == 0) {
    shared.ring.init(kWarpgroupThreads / kWarpThreads, copied ? kWarpgroupThreads : 1);
    cutlass::arch::fence_barrier_init();
  }
  __syncthreads();

  const int warp = __shfl_sync(0xffffffffu, threadIdx.x / kWarpThreads, 0);
  if (warp < kWarpgroupThreads / kWarpThreads) {
    cutlass::arch::warpgroup_reg_dealloc<Instance::kProducerRegisters>();
    if (!work.has_keys()) return;
    if constexpr (Instance::kFeatures.paged) {
      if (copied) return produce_rows<Instance>(shared, arguments, work);
    }
    if (warp == 0) produce_boxes<Instance>(shared, arguments, work);
  } else {
    cutlass::arch::warpgroup_reg_alloc<Instance::kConsumerRegisters>();
    consume_split<Instance>(shared, arguments, work);
  }
}

template <class Instance>
void launch_split(const SplitParams& p, cudaStream_t stream) {
  using Element = typename Instance::Element;
  const int rows = box_rows_of<Instance::kBlockN>(p);
  const SplitArguments arguments{{cache_map<Element>("k", p, p.k, p.k_strides, p.head_dim, rows),
                                  cache_map<Element>("v", p, p.v, p.v_strides, p.head_dim_v, rows)},
                                 p,
                                 rows};
  launch(split_kernel<Instance>, split_blocks(p, Instance::kBlockM), Instance::kThreads,
         Instance::kSharedBytes, arguments, stream);
}

}  // namespace flash_attn::cuda::sm90
