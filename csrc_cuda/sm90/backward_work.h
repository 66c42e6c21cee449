// What is to be done for a block of keys, in the backward.
#pragma once

#include "common/mask.h"
#include "common/sequences.h"
#include "scheduler.h"

namespace flash_attn::cuda::sm90 {

// Blocks of keys in the order of TileOrder, whose rows are queries: the roles are exchanged. Under
// a causal mask the first keys have the most work, as the last queries have.
class KeyOrder {
 public:
  __host__ KeyOrder(AttentionParams p, int block_n, int64_t cache_bytes, int element_bytes)
      : order_(transposed(p), block_n, cache_bytes, element_bytes) {}
  __host__ __device__ const TileOrder& tile_order() const { return order_; }
  __device__ TileIndex operator[](int tile) const {
    TileIndex index = order_[tile];
    index.block_m = order_.blocks_m - 1 - index.block_m;
    return index;
  }

 private:
  __host__ static AttentionParams transposed(AttentionParams p) {
    std::swap(p.seqlen_q, p.seqlen_k);
    p.nheads_k = p.nheads_q;  // every head has queries of its own
    return p;
  }
  TileOrder order_;
};

// Keys first_key to last_key of a query head of a sequence, and the blocks of queries that see
// them. `band` has keys for rows.
template <class Tile, bool kVarlen, bool kMasked>
struct KeyWork {
  int batch, head, head_k, block_n, first_key, last_key;
  Sequence sequence;
  Band<kMasked> band;
  BlockRange blocks;

  __device__ KeyWork(const AttentionParams& p, const TileIndex& index)
      : batch(index.batch),
        head(index.head),
        head_k(index.head / (p.nheads_q / p.nheads_k)),
        block_n(index.block_m),
        first_key(index.block_m * Tile::kBlockN),
        sequence(sequence_of<kVarlen>(p, index.batch)),
        band(Band<kMasked>{sequence.seqlen_q, sequence.seqlen_k, p.window_left, p.window_right}
                 .transposed()) {
    last_key = min(first_key + Tile::kBlockN, sequence.seqlen_k) - 1;
    blocks = band.template key_blocks<Tile::kBlockM>(first_key, last_key);
  }

  // A varlen call has tiles for the longest sequence; others have fewer keys.
  __device__ bool has_keys() const { return first_key <= last_key; }
  __device__ bool has_queries() const { return blocks.begin < blocks.end; }
};

}  // namespace flash_attn::cuda::sm90
