// The forward for Hopper: configuration of an instance, its kernel and launch.
//
// A block of threads stays on its multiprocessor and takes tiles of queries in turn. One warpgroup
// is the producer, each of the others the consumer of 64 rows of the tile.
#pragma once

#include <cutlass/arch/reg_reconfig.h>

#include "chip.h"
#include "common/launch.h"
#include "consumer.h"
#include "producer.h"

namespace flash_attn::cuda::sm90 {

// A tile of kBlockM queries (64 for each of two or three consumers) and kBlockN keys; kStages
// blocks of keys and as many of values are in shared memory. Softcap and ALiBi make 192 queries
// 128.
template <int kBlockM_, int kBlockN_, int kStages_>
struct ForwardTile {
  static constexpr int kBlockM = kBlockM_, kBlockN = kBlockN_, kStages = kStages_;
  static_assert(kBlockM == 128 || kBlockM == 192);
};

struct ForwardFeatures {
  bool varlen = false, masked = false, softcap = false, alibi = false;
};

// Scales of 16-bit operands: none.
struct NoScales {
  __device__ NoScales(const AttentionParams&, int, int) {}
  __device__ static constexpr float score() { return 1.f; }
  __device__ static constexpr float value() { return 1.f; }
};

struct ForwardArguments {
  TensorMaps maps;
  ForwardParams params;
  TileOrder order;
};

template <class Element_, class Tile_, int kHeadDim_, ForwardFeatures kFeatures_>
struct Forward {
  using Element = Element_;
  // three consumers have too few registers to compute more than a product's softmax without spills
  using Tile = std::conditional_t<(kFeatures_.softcap || kFeatures_.alibi) && Tile_::kBlockM == 192,
                                  ForwardTile<128, Tile_::kBlockN, Tile_::kStages>, Tile_>;
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr ForwardFeatures kFeatures = kFeatures_;
  static constexpr int kBlockM = Tile::kBlockM, kBlockN = Tile::kBlockN;
  static_assert(kHeadDim % kBoxColumns == 0 && kHeadDim <= 256);

  static constexpr int kConsumers = kBlockM / kWarpgroupRows;
  static constexpr int kConsumerWarps = kConsumers * kWarpgroupThreads / kWarpThreads;
  static constexpr int kThreads = (1 + kConsumers) * kWarpgroupThreads;
  // registers of a thread; together those that launch_bounds gives
  static constexpr int kProducerRegisters = kConsumers == 2 ? 24 : 32;
  static constexpr int kConsumerRegisters = kConsumers == 2 ? 240 : 160;

  using OutElement = Element;
  using OutColumns = AccumulatorColumns;
  using Scales = NoScales;
  static constexpr int kHeadroom = 0;

  using Work = sm90::Work<Tile, kFeatures.varlen, kFeatures.masked>;
  using Arguments = ForwardArguments;
  using ScoreMma = sm90::ScoreMma<Element, kBlockM, kBlockN, kHeadDim>;
  using OutMma = sm90::OutMma<Element, kBlockM, kBlockN, kHeadDim>;
  using QueryLayout = RowsLayout<Element, kBlockM, kHeadDim, 1>;
  using KeyLayout = RowsLayout<Element, kBlockN, kHeadDim, Tile::kStages>;
  using ValueLayout = ColumnsLayout<Element, kBlockN, kHeadDim, Tile::kStages>;
  using QueryRing = Ring<1>;
  using KeyRing = Ring<Tile::kStages>;

  struct Shared {
    alignas(1024) Element q[kBlockM * kHeadDim];
    alignas(1024) Element k[Tile::kStages][kBlockN * kHeadDim];
    alignas(1024) Element v[Tile::kStages][kBlockN * kHeadDim];
    QueryRing query_ring;
    KeyRing key_ring, value_ring;

    __device__ void init() {
      query_ring.init(kConsumerWarps);
      key_ring.init(kConsumerWarps);
      value_ring.init(kConsumerWarps);
    }
    // what the second product reads
    __device__ Element* value_operand() { return v[0]; }
    __device__ KeyRing& value_operand_ring() { return value_ring; }
  };
  static constexpr int kSharedBytes = sizeof(Shared), kMostSharedBytes = 227 << 10;
  static_assert(kSharedBytes <= kMostSharedBytes);

  // Warp `warp` of the producer.
  __device__ static void load(Shared& shared, const Arguments& arguments, int warp) {
    if (warp == 0 && cute::elect_one_sync()) produce<Forward>(shared, arguments);
  }
};

template <class Instance>
__global__ void __launch_bounds__(Instance::kThreads, 1)
    forward_kernel(const __grid_constant__ ForwardArguments arguments) {
  extern __shared__ __align__(1024) char memory[];
  auto& shared = *reinterpret_cast<typename Instance::Shared*>(memory);
  if (threadIdx.x == 0) {
    shared.init();
    cutlass::arch::fence_barrier_init();
  }
  __syncthreads();

  // uniform, so that addresses of operands stay in uniform registers
  const int warpgroup = __shfl_sync(0xffffffffu, threadIdx.x / kWarpgroupThreads, 0);
  if (warpgroup == 0) {
    cutlass::arch::warpgroup_reg_dealloc<Instance::kProducerRegisters>();
    const int warp = __shfl_sync(0xffffffffu, threadIdx.x / kWarpThreads, 0);
    Instance::load(shared, arguments, warp);
  } else {
    cutlass::arch::warpgroup_reg_alloc<Instance::kConsumerRegisters>();
    consume<Instance>(shared, arguments, warpgroup - 1);
  }
}

template <class Instance>
void launch_forward(const ForwardParams& p, cudaStream_t stream) {
  using Tile = typename Instance::Tile;
  const auto chip = current_chip();
  if (!chip) return;
  // half of the cache: the other half is for q, out and the section that follows
  const ForwardArguments arguments{
      tensor_maps<typename Instance::Element, Instance::kFeatures.varlen, Tile::kBlockM,
                  Tile::kBlockN, Instance::kHeadDim>(p),
      p, TileOrder(p, Tile::kBlockM, chip->cache_bytes / 2, sizeof(typename Instance::Element))};
  launch(forward_kernel<Instance>, std::min(chip->multiprocessors, arguments.order.tiles()),
         Instance::kThreads, Instance::kSharedBytes, arguments, stream);
}

}  // namespace flash_attn::cuda::sm90
