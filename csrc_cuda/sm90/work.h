// What is to be done for a tile.
#pragma once

#include "common/mask.h"
#include "common/sequences.h"
#include "scheduler.h"

namespace flash_attn::cuda::sm90 {

// Rows first_row to last_row of a head of a sequence, and the blocks of keys that they see.
template <class Tile, bool kVarlen, bool kMasked>
struct Work {
  int batch, head, head_k, first_row, last_row;
  Sequence sequence;
  Band<kMasked> band;
  BlockRange blocks;

  __device__ Work(const AttentionParams& p, const TileIndex& index)
      : batch(index.batch),
        head(index.head),
        head_k(index.head / (p.nheads_q / p.nheads_k)),
        first_row(index.block_m * Tile::kBlockM),
        sequence(sequence_of<kVarlen>(p, index.batch)),
        band{sequence.seqlen_q, sequence.seqlen_k, p.window_left, p.window_right} {
    last_row = min(first_row + Tile::kBlockM, sequence.seqlen_q) - 1;
    blocks = band.template key_blocks<Tile::kBlockN>(first_row, last_row);
  }

  // A varlen call has tiles for the longest sequence; others have fewer rows.
  __device__ bool has_rows() const { return first_row <= last_row; }
  __device__ bool has_keys() const { return blocks.begin < blocks.end; }
};

}  // namespace flash_attn::cuda::sm90
