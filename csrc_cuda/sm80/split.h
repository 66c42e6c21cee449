// The forward over caches or pages whose keys are split among blocks of threads: configuration of
// an instance, its kernel and launch. csrc_common/combine.cu merges the splits.
//
// The query heads that share a key head are packed into the rows of a tile, so that a key is read
// once for all of them.
#pragma once

#include "attend.h"

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

// Rows of the keys or values of a sequence, in its cache or its pages.
template <bool kPaged, class Element>
__device__ auto cache_rows(const SplitParams& p, const void* tensor, const Strides& strides,
                           int batch, int head) {
  const auto* first = static_cast<const Element*>(tensor);
  if constexpr (kPaged) {
    return PagedRows<const Element>{first + head_offset(strides, 0, 0, head), strides.row,
                                    p.page_size, strides.batch,
                                    p.block_table + int64_t{batch} * p.block_table_stride};
  } else {
    const int row = p.cache_batch_idx == nullptr ? batch : p.cache_batch_idx[batch];
    return DenseRows<const Element>{first + head_offset(strides, row, 0, head), strides.row};
  }
}

// A split of the keys, for a block of the packed rows of one key head of one sequence.
template <class Instance>
__global__ void __launch_bounds__(Instance::Attend::kThreads)
    split_kernel(const __grid_constant__ SplitParams p) {
  using Tile = typename Instance::Attend;
  using Element = typename Tile::Element;
  constexpr auto kFeatures = Instance::kFeatures;
  extern __shared__ __align__(128) char memory[];
  auto& shared = *reinterpret_cast<typename Tile::Shared*>(memory);

  const int group = p.nheads_q / p.nheads_k, num_rows = p.seqlen_q * group;
  const int blocks_m = ceil_div(num_rows, Tile::kBlockM);
  int index = blockIdx.x;
  const int first_row = index % blocks_m * Tile::kBlockM;
  index /= blocks_m;
  const int split = index % p.num_splits;
  index /= p.num_splits;
  const int head_k = index % p.nheads_k, batch = index / p.nheads_k;
  const int seqlen_k =
      p.seqused_k == nullptr ? p.seqlen_k : max(min(p.seqused_k[batch], p.seqlen_k), 0);

  const typename Tile::Positions positions(threadIdx.x);
  int row_position[Tile::kRows], row_head[Tile::kRows];
  float slopes[Tile::kRows];
  CUTE_UNROLL
  for (int i = 0; i < Tile::kRows; ++i) {
    const int row = min(first_row + positions.row(i), num_rows - 1);
    row_position[i] = row / group;
    row_head[i] = head_k * group + row % group;
    slopes[i] = alibi_slope<kFeatures.alibi>(p, batch, row_head[i]);
  }

  const auto keys = cache_rows<kFeatures.paged, Element>(p, p.k, p.k_strides, batch, head_k);
  const auto values = cache_rows<kFeatures.paged, Element>(p, p.v, p.v_strides, batch, head_k);
  const PackedRows<const Element> queries{
      static_cast<const Element*>(p.q) + head_offset(p.q_strides, batch, 0, head_k * group),
      p.q_strides.row, p.q_strides.head, group};
  const AttendInputs<PackedRows<const Element>, std::remove_const_t<decltype(keys)>> in{
      queries, keys, values, first_row, num_rows, seqlen_k, p.head_dim, p.head_dim_v};
  const Band<kFeatures.masked> band{p.seqlen_q, seqlen_k, p.window_left, p.window_right};
  const Logits<kFeatures.softcap, kFeatures.alibi> logits(p);
  const int first_position = first_row / group;
  const int last_position = (min(first_row + Tile::kBlockM, num_rows) - 1) / group;
  const auto all = band.template key_blocks<Tile::kBlockN>(first_position, last_position);
  const int blocks = ceil_div(max(all.end - all.begin, 0), p.num_splits);
  const int begin = all.begin + split * blocks;

  typename Tile::Accumulator out;
  OnlineSoftmax<Tile::kRows> softmax;
  attend<Tile>(
      shared, in, band, logits, NoDropout(p, batch, 0), [&](int i, int) { return row_position[i]; },
      [&](int i) { return slopes[i]; }, first_position, last_position,
      {begin, min(begin + blocks, all.end)}, out, softmax);

  auto out_rows = rows_and_columns(out);
  softmax.finish(out_rows, logits.factor, 1.f);
  const int64_t split_batch = int64_t{split} * p.batch + batch;
  CUTE_UNROLL
  for (int i = 0; i < Tile::kRows; ++i) {
    if (first_row + positions.row(i) >= num_rows) continue;
    const int64_t row = split_batch * p.seqlen_q + row_position[i];
    float* target = p.out + (row * p.nheads_q + row_head[i]) * p.head_dim_v;
    CUTE_UNROLL
    for (int j = 0; j < size<1>(out_rows); j += 2) {
      const int column = positions.column(j);
      if (column >= p.head_dim_v) continue;
      *reinterpret_cast<float2*>(target + column) = {out_rows(i, j), out_rows(i, j + 1)};
    }
    if (threadIdx.x % 4 == 0) {
      const int64_t head = split_batch * p.nheads_q + row_head[i];
      p.softmax_lse[head * p.seqlen_q + row_position[i]] = softmax.row_max[i];
    }
  }
}

template <class Instance>
void launch_split(const SplitParams& p, cudaStream_t stream) {
  using Tile = typename Instance::Attend;
  const int blocks_m = ceil_div(p.seqlen_q * (p.nheads_q / p.nheads_k), Tile::kBlockM);
  launch(split_kernel<Instance>, int64_t{blocks_m} * p.num_splits * p.nheads_k * p.batch,
         Tile::kThreads, Instance::kSharedBytes, p, stream);
}

}  // namespace flash_attn::cuda::sm80
