// The order in which persistent blocks of threads take the tiles of a call.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "common/math.h"
#include "params.h"

namespace flash_attn::cuda::sm90 {

// A block of queries of a head of a sequence.
struct TileIndex {
  int block_m, head, batch;
};

// Tiles in sections of heads whose keys and values fit in the L2 cache together. A section orders
// its tiles by their place in the sequence, which under a causal mask is by work: the last section
// the longest first, so that short tiles fill the end, and each section before it the other way
// round than its successor, so that neighbours in the order have about equal work.
struct TileOrder {
  int blocks_m, nheads, pairs, section_pairs, sections;  // pairs of head and sequence

  __host__ TileOrder(const AttentionParams& p, int block_m, int64_t cache_bytes, int element_bytes)
      : blocks_m(ceil_div(p.seqlen_q, block_m)), nheads(p.nheads_q) {
    const int64_t all = int64_t{p.nheads_q} * p.batch;
    constexpr int64_t kMostTiles = 1 << 30;
    if (all * blocks_m > kMostTiles) {
      throw std::runtime_error("the call has " + std::to_string(all * blocks_m) +
                               " blocks of rows; the kernel takes " + std::to_string(kMostTiles));
    }
    const int64_t group = p.nheads_q / p.nheads_k;
    const int64_t head_bytes =
        int64_t{p.seqlen_k} * (p.head_dim + p.head_dim_v) * element_bytes + 1;
    pairs = static_cast<int>(all);
    section_pairs =
        static_cast<int>(std::min(all, group * std::max<int64_t>(cache_bytes / head_bytes, 1)));
    sections = ceil_div(pairs, section_pairs);
  }

  __host__ __device__ int tiles() const { return blocks_m * pairs; }

  __device__ TileIndex operator[](int tile) const {
    const int section = tile / (blocks_m * section_pairs);
    const int first_pair = section * section_pairs;
    const int width = min(section_pairs, pairs - first_pair);
    const int within = tile - first_pair * blocks_m;
    const int rank = within / width, pair = first_pair + within - rank * width;
    const bool longest_first = (sections - 1 - section) % 2 == 0;
    const int batch = pair / nheads;
    return {longest_first ? blocks_m - 1 - rank : rank, pair - batch * nheads, batch};
  }
};

// The tiles of this block of threads: one of each round of gridDim.x, alternately from the front
// and from the back of the round.
class TileWalk {
 public:
  __device__ explicit TileWalk(const TileOrder& order)
      : tiles_(order.tiles()), tile_(blockIdx.x), step_(2 * (gridDim.x - 1 - blockIdx.x) + 1) {}
  __device__ bool valid() const { return tile_ < tiles_; }
  __device__ int tile() const { return tile_; }
  __device__ void next() {
    tile_ += step_;
    step_ = 2 * static_cast<int>(gridDim.x) - step_;
  }

 private:
  int tiles_, tile_, step_;
};

}  // namespace flash_attn::cuda::sm90
