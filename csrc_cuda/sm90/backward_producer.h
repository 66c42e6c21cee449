// The producers of the backward: a thread that reads tiles of q, k, v and dout, and a warp that
// reads what is known of every query.
#pragma once

#include "backward_work.h"
#include "common/math.h"
#include "pipeline.h"
#include "tensor_maps.h"

namespace flash_attn::cuda::sm90 {

// Read the tensors of every tile of the walk.
template <class Instance>
__device__ void produce_tiles(typename Instance::Shared& shared,
                              const typename Instance::Arguments& arguments) {
  using Tile = typename Instance::Tile;
  using Element = typename Instance::Element;
  constexpr bool kVarlen = Instance::kFeatures.varlen;
  constexpr int kHeadDim = Instance::kHeadDim, kRowBytes = kHeadDim * sizeof(Element);
  const BackwardParams& p = arguments.params;
  typename Instance::KeyRing::Position key;
  typename Instance::QueryRing::Position query;

  for (TileWalk walk(arguments.order.tile_order()); walk.valid(); walk.next()) {
    const typename Instance::Work work(p, arguments.order[walk.tile()]);
    if (!work.has_keys() || !work.has_queries()) continue;
    const auto& sequence = work.sequence;
    const auto load_keys = [&](const CUtensorMap& map, const Strides& strides, auto& ring,
                               Element* tile) {
      uint64_t* barrier = ring.begin_fill(key, Tile::kBlockN * kRowBytes);
      const auto origin = tile_origin(strides, work.first_key, work.head_k, work.batch,
                                      sequence.first_k, sequence.seqlen_k);
      load_tile<kVarlen, Tile::kBlockN, kHeadDim>(map, origin, tile, barrier,
                                                  CacheHint::EVICT_FIRST);
    };
    const auto load_queries = [&](const CUtensorMap& map, const Strides& strides, auto& ring,
                                  auto& tiles, int block) {
      uint64_t* barrier = ring.begin_fill(query, Tile::kBlockM * kRowBytes);
      const auto origin = tile_origin(strides, block * Tile::kBlockM, work.head, work.batch,
                                      sequence.first_q, sequence.seqlen_q);
      load_tile<kVarlen, Tile::kBlockM, kHeadDim>(map, origin, tiles[query.stage], barrier,
                                                  CacheHint::EVICT_LAST);
    };

#pragma unroll 1
    for (int block = work.blocks.begin; block < work.blocks.end; ++block) {
      // the first queries need not wait for the end of the tile before
      load_queries(arguments.maps.q, p.q_strides, shared.query_ring, shared.q, block);
      if (block == work.blocks.begin) {
        load_keys(arguments.maps.k, p.k_strides, shared.key_ring, shared.k);
        load_keys(arguments.maps.v, p.v_strides, shared.value_ring, shared.v);
        key.advance();
      }
      load_queries(arguments.dout, p.dout_strides, shared.dout_ring, shared.dout, block);
      query.advance();
    }
  }
}

// Read log-sum-exp and softmax_d of the queries of every tile of the walk. A warp calls it.
template <class Instance>
__device__ void produce_statistics(typename Instance::Shared& shared,
                                   const typename Instance::Arguments& arguments) {
  constexpr int kBlockM = Instance::Tile::kBlockM;
  const BackwardParams& p = arguments.params;
  const int lane = remade(threadIdx.x) % kWarpThreads;
  typename Instance::QueryRing::Position position;

  for (TileWalk walk(arguments.order.tile_order()); walk.valid(); walk.next()) {
    const typename Instance::Work work(p, arguments.order[walk.tile()]);
    if (!work.has_keys()) continue;
    const int64_t offset = lse_offset(p, work.batch, work.sequence.first_q, work.head);
#pragma unroll 1
    for (int block = work.blocks.begin; block < work.blocks.end; ++block) {
      shared.statistics_ring.empty[position.stage].wait(position.phase ^ 1);
#pragma unroll 2
      for (int row = lane; row < kBlockM; row += kWarpThreads) {
        const int query = block * kBlockM + row;
        const bool exists = query < work.sequence.seqlen_q;
        const float lse = exists ? p.softmax_lse[offset + query] : -INFINITY;
        // a row that saw no key has probabilities of 0
        shared.statistics[position.stage][row] = {lse == -INFINITY ? INFINITY : lse * kLog2E,
                                                  exists ? p.softmax_d[offset + query] : 0.f};
      }
      __syncwarp();
      if (lane == 0) shared.statistics_ring.full[position.stage].arrive();
      position.advance();
    }
  }
}

}  // namespace flash_attn::cuda::sm90
