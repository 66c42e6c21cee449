// The producer: one thread that reads the tiles of q, k and v.
#pragma once

#include "pipeline.h"
#include "tensor_maps.h"
#include "work.h"

namespace flash_attn::cuda::sm90 {

// Read, for every tile of the walk, the keys of a block ahead of the values of the block before, in
// the order in which the consumers want them.
template <class Instance>
__device__ void produce(typename Instance::Shared& shared,
                        const typename Instance::Arguments& arguments) {
  using Tile = typename Instance::Tile;
  using Element = typename Instance::Element;
  constexpr bool kVarlen = Instance::kFeatures.varlen;
  constexpr int kHeadDim = Instance::kHeadDim, kRowBytes = kHeadDim * sizeof(Element);
  const AttentionParams& p = arguments.params;
  typename Instance::QueryRing::Position query;
  typename Instance::KeyRing::Position key, value;

  for (TileWalk walk(arguments.order); walk.valid(); walk.next()) {
    const typename Instance::Work work(p, arguments.order[walk.tile()]);
    if (!work.has_rows() || !work.has_keys()) continue;
    const auto& sequence = work.sequence;
    const auto load_keys = [&](int block) {
      uint64_t* barrier = shared.key_ring.begin_fill(key, Tile::kBlockN * kRowBytes);
      const auto origin = tile_origin(p.k_strides, block * Tile::kBlockN, work.head_k, work.batch,
                                      sequence.first_k, sequence.seqlen_k);
      load_tile<kVarlen, Tile::kBlockN, kHeadDim>(arguments.maps.k, origin, shared.k[key.stage],
                                                  barrier, CacheHint::EVICT_LAST);
      key.advance();
    };
    const auto load_values = [&](int block) {
      uint64_t* barrier = shared.value_ring.begin_fill(value, Tile::kBlockN * kRowBytes);
      const auto origin = tile_origin(p.v_strides, block * Tile::kBlockN, work.head_k, work.batch,
                                      sequence.first_k, sequence.seqlen_k);
      load_tile<kVarlen, Tile::kBlockN, kHeadDim>(arguments.maps.v, origin, shared.v[value.stage],
                                                  barrier, CacheHint::EVICT_LAST);
      value.advance();
    };

    int block = work.blocks.end - 1;
    load_keys(block);
    uint64_t* barrier = shared.query_ring.begin_fill(query, Tile::kBlockM * kRowBytes);
    const auto origin = tile_origin(p.q_strides, work.first_row, work.head, work.batch,
                                    sequence.first_q, sequence.seqlen_q);
    load_tile<kVarlen, Tile::kBlockM, kHeadDim>(arguments.maps.q, origin, shared.q, barrier,
                                                CacheHint::EVICT_FIRST);
    query.advance();
    for (; block > work.blocks.begin; --block) {
      load_keys(block - 1);
      load_values(block);
    }
    load_values(block);
  }
}

}  // namespace flash_attn::cuda::sm90
