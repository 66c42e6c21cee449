// The forward over caches or pages whose keys are split among blocks of threads: configuration of
// an instance, its kernel and launch. csrc_common/combine.cu merges the splits.
#pragma once

#include "attend.h"
#include "common/split_work.h"

namespace flash_attn::cuda::sm80 {

// kBlockM packed rows and kBlockN keys. The smallest is 16 rows for each warp.
template <int kBlockM_, int kBlockN_, int kWarps_>
struct SplitTile {
  static constexpr int kBlockM = kBlockM_, kBlockN = kBlockN_, kWarps = kWarps_;
};

struct SplitFeatures {
  bool paged = false, masked = false, softcap = false, alibi = false;
};

template <class Element, class Tile, int kHeadDim, SplitFeatures kFeatures_>
struct Split {
  using Attend = AttendTile<Element, Tile::kBlockM, Tile::kBlockN, Tile::kWarps, kHeadDim>;
  static constexpr SplitFeatures kFeatures = kFeatures_;
  static constexpr int kSharedBytes = sizeof(typename Attend::Shared);
};

// A split of the keys, for a block of the packed rows of one key head of one sequence.
template <class Instance>
__global__ void __launch_bounds__(Instance::Attend::kThreads)
    split_kernel(const __grid_constant__ SplitParams p) {
  using Tile = typename Instance::Attend;
  using Element = typename Tile::Element;
  constexpr auto kFeatures = Instance::kFeatures;
  extern __shared__ __align__(128) char memory[];
  auto& shared = *reinterpret_cast<typename Tile::Shared*>(memory);

  const SplitWork<Tile::kBlockM, Tile::kBlockN, kFeatures.masked> work(p, blockIdx.x);
  if (!work.has_rows()) return;
  const typename Tile::Positions positions(threadIdx.x);
  const auto rows = SplitRows<Tile::kRows>::template of<kFeatures.alibi>(p, work, positions);
  const auto keys = work.template cached<kFeatures.paged, Element>(p, p.k, p.k_strides);
  const auto values = work.template cached<kFeatures.paged, Element>(p, p.v, p.v_strides);
  const auto queries = work.template queries<Element>(p);
  const AttendInputs<PackedRows<const Element>, std::remove_const_t<decltype(keys)>> in{
      queries,    keys,        values, work.first_row, work.num_rows, work.band.seqlen_k,
      p.head_dim, p.head_dim_v};
  const Logits<kFeatures.softcap, kFeatures.alibi> logits(p);

  typename Tile::Accumulator out;
  OnlineSoftmax<Tile::kRows> softmax;
  attend<Tile>(
      shared, in, work.band, logits, NoDropout(p, work.batch, 0),
      [&](int i, int) { return rows.position[i]; }, [&](int i) { return rows.slope[i]; },
      work.first_position, work.last_position, work.blocks, out, softmax);

  auto out_rows = rows_and_columns(out);
  softmax.finish(out_rows, logits.factor, 1.f);
  store_split(p, work, positions, rows, out_rows, softmax.row_max);
}

template <class Instance>
void launch_split(const SplitParams& p, cudaStream_t stream) {
  using Tile = typename Instance::Attend;
  launch(split_kernel<Instance>, split_blocks(p, Tile::kBlockM), Tile::kThreads,
         Instance::kSharedBytes, p, stream);
}

}  // namespace flash_attn::cuda::sm80
