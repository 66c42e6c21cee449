// What a block of threads does where keys are split among blocks, and where its results go.
//
// The query heads that share a key head are packed into the rows of a tile, so that a key is read
// once for all of them.
#pragma once

#include "logits.h"
#include "mask.h"
#include "rows.h"
#include "sequences.h"

namespace flash_attn::cuda {

// Blocks of packed rows of the longest sequence.
__host__ __device__ inline int split_row_blocks(const SplitParams& p, int block_m) {
  return ceil_div(p.seqlen_q * (p.nheads_q / p.nheads_k), block_m);
}

// Blocks of threads of a call.
inline int64_t split_blocks(const SplitParams& p, int block_m) {
  return int64_t{split_row_blocks(p, block_m)} * p.num_splits * p.nheads_k * p.batch;
}

// The packed rows from first_row on of a key head of a sequence, and the blocks of keys of a split.
// Keys and positions count from first_key, where the padding on the left ends.
template <int kBlockM, int kBlockN, bool kMasked>
struct SplitWork {
  int first_row, split, head_k, batch, group, first_q, num_rows, first_key;
  int first_position, last_position;  // of the rows
  Band<kMasked> band;
  BlockRange blocks;

  __device__ SplitWork(const SplitParams& p, int index)
      : group(p.nheads_q / p.nheads_k), first_q(0), first_key(0) {
    const int blocks_m = split_row_blocks(p, kBlockM);
    first_row = index % blocks_m * kBlockM;
    index /= blocks_m;
    split = index % p.num_splits;
    index /= p.num_splits;
    batch = index / p.nheads_k;
    head_k = index - batch * p.nheads_k;

    int seqlen_q = p.seqlen_q, seqlen_k = p.seqlen_k;
    if (p.cu_seqlens_q != nullptr) {
      first_q = p.cu_seqlens_q[batch];
      seqlen_q = max(p.cu_seqlens_q[batch + 1] - first_q, 0);
    }
    if (p.seqused_k != nullptr) seqlen_k = max(min(p.seqused_k[batch], seqlen_k), 0);
    if (p.leftpad_k != nullptr) first_key = max(min(p.leftpad_k[batch], seqlen_k), 0);
    band = {seqlen_q, seqlen_k - first_key, p.window_left, p.window_right};
    num_rows = seqlen_q * group;
    first_position = first_row / group;
    last_position = (min(first_row + kBlockM, num_rows) - 1) / group;

    const auto all = band.template key_blocks<kBlockN>(first_position, last_position);
    const int share = ceil_div(max(all.end - all.begin, 0), p.num_splits);
    const int begin = all.begin + split * share;
    blocks = {begin, min(begin + share, all.end)};
  }

  // Tiles are made for the longest sequence; others have fewer rows.
  __device__ bool has_rows() const { return first_row < num_rows; }
  __device__ bool has_keys() const { return blocks.begin < blocks.end; }

  // Rows of q as the tile packs them.
  template <class Element>
  __device__ PackedRows<const Element> queries(const SplitParams& p) const {
    return {
        static_cast<const Element*>(p.q) + head_offset(p.q_strides, batch, first_q, head_k * group),
        p.q_strides.row, p.q_strides.head, group};
  }

  // Row of the caches.
  __device__ int cache_row(const SplitParams& p) const {
    return p.cache_batch_idx == nullptr ? batch : p.cache_batch_idx[batch];
  }

  // Rows of the keys or values, in a cache or in pages.
  template <bool kPaged, class Element>
  __device__ auto cached(const SplitParams& p, const void* tensor, const Strides& strides) const {
    const auto* first = static_cast<const Element*>(tensor);
    if constexpr (kPaged) {
      return PagedRows<const Element>{first + head_offset(strides, 0, 0, head_k),
                                      strides.row,
                                      p.page_size,
                                      strides.batch,
                                      p.block_table + int64_t{batch} * p.block_table_stride,
                                      first_key};
    } else {
      return DenseRows<const Element>{first + head_offset(strides, cache_row(p), first_key, head_k),
                                      strides.row};
    }
  }
};

// Position, head and ALiBi slope of a thread's kRows rows; rows that do not exist repeat the
// last one.
template <int kRows>
struct SplitRows {
  int position[kRows], head[kRows];
  float slope[kRows];

  template <bool kAlibi, class Work, class Positions>
  __device__ static SplitRows of(const SplitParams& p, const Work& work,
                                 const Positions& positions) {
    SplitRows rows;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int row = min(work.first_row + positions.row(i), work.num_rows - 1);
      rows.position[i] = row / work.group;
      rows.head[i] = work.head_k * work.group + row % work.group;
      rows.slope[i] = alibi_slope<kAlibi>(p, work.batch, rows.head[i]);
    }
    return rows;
  }
};

// Write a split's `out` (rows, columns) and `lse` of a thread in float32.
template <int kRows, class Work, class Positions, class Out>
__device__ void store_split(const SplitParams& p, const Work& work, const Positions& positions,
                            const SplitRows<kRows>& rows, const Out& out,
                            const float (&lse)[kRows]) {
  const int64_t all_rows =
      p.cu_seqlens_q == nullptr ? int64_t{p.batch} * p.seqlen_q : p.lse_head_stride;
  const int64_t sequence_row =
      p.cu_seqlens_q == nullptr ? int64_t{work.batch} * p.seqlen_q : work.first_q;
  const int64_t split_row = work.split * all_rows;
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    if (work.first_row + positions.row(i) >= work.num_rows) continue;
    const int64_t row = split_row + sequence_row + rows.position[i];
    float* target = p.out + (row * p.nheads_q + rows.head[i]) * p.head_dim_v;
#pragma unroll
    for (int j = 0; j < cute::size<1>(out); j += 2) {
      const int column = positions.column(j);
      if (column >= p.head_dim_v) continue;
      *reinterpret_cast<float2*>(target + column) = {out(i, j), out(i, j + 1)};
    }
    if (threadIdx.x % 4 == 0) {
      p.softmax_lse[split_row * p.nheads_q +
                    lse_offset(p, work.batch, work.first_q + rows.position[i], rows.head[i])] =
          lse[i];
    }
  }
}

}  // namespace flash_attn::cuda
