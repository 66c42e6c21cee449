// Attention of a block of queries to blocks of keys: what forward and split have in common.
#pragma once

#include "common/copy.h"
#include "common/dropout.h"
#include "common/launch.h"
#include "common/logits.h"
#include "common/mask.h"
#include "common/rows.h"
#include "common/sequences.h"
#include "common/softmax.h"
#include "mma.h"

namespace flash_attn::cuda::sm80 {

// Types and shared memory of a tile of kBlockM queries and kBlockN keys.
template <class Element_, int kBlockM_, int kBlockN_, int kWarps_, int kHeadDim_>
struct AttendTile {
  using Element = Element_;
  static constexpr int kBlockM = kBlockM_, kBlockN = kBlockN_, kWarps = kWarps_;
  static constexpr int kHeadDim = kHeadDim_, kThreads = kWarps * kWarpThreads;
  static_assert(kBlockM % (16 * kWarps) == 0 && kBlockN % 16 == 0 && kHeadDim % 32 == 0);

  using Queries = SharedTile<kBlockM, kHeadDim>;
  using Keys = SharedTile<kBlockN, kHeadDim>;
  using QueryThreads = TileThreads<kBlockM, kHeadDim, kThreads>;
  using KeyThreads = TileThreads<kBlockN, kHeadDim, kThreads>;
  using TiledMma = Mma<Element, kWarps>;
  using Positions = ThreadPositions<kWarps>;
  static constexpr int kRows = 2 * kBlockM / (16 * kWarps);  // of a thread

  struct Shared {
    alignas(128) Element q[Queries::kSize];  // and out
    alignas(128) Element k[Keys::kSize];
    alignas(128) Element v[Keys::kSize];
  };

  // A thread's part of kBlockM x kHeadDim.
  using Accumulator =
      decltype(partition_fragment_C(TiledMma{}, Shape<Int<kBlockM>, Int<kHeadDim>>{}));
};

// What attend reads: rows of q (those below num_rows exist), and of k and v (below seqlen_k).
template <class QueryRows, class KeyRows>
struct AttendInputs {
  QueryRows q;
  KeyRows k, v;
  int first_row, num_rows, seqlen_k, head_dim, head_dim_v;
};

// Attend to the key blocks of `blocks`, the last first; `out` and `softmax` take the result.
//
// `band`, `logits` and `dropout` (or NoDropout) are those of common/. position(i, row) is the
// query's place in its sequence for row i of the thread, `row` of the tile; first_position and
// last_position are the block's extremes; slope(i) is the ALiBi slope of row i.
template <class Tile, class Inputs, class Band, class Logits, class DropoutMask, class Position,
          class Slope>
__device__ void attend(typename Tile::Shared& shared, const Inputs& in, const Band& band,
                       const Logits& logits, const DropoutMask& dropout, Position position,
                       Slope slope, int first_position, int last_position, BlockRange blocks,
                       typename Tile::Accumulator& out, OnlineSoftmax<Tile::kRows>& softmax) {
  using Element = typename Tile::Element;
  constexpr int kBlockN = Tile::kBlockN;
  using KeyRowsLayout = typename Tile::Keys::Rows;
  const int thread = threadIdx.x;
  const auto q = make_tensor(make_smem_ptr(shared.q), typename Tile::Queries::Rows{});
  const auto k = make_tensor(make_smem_ptr(shared.k), KeyRowsLayout{});
  const auto v = make_tensor(make_smem_ptr(shared.v), typename Tile::Keys::Transposed{});
  const typename Tile::TiledMma mma;
  const auto load_keys = [&](int block) {
    load_tile<typename Tile::KeyThreads, KeyRowsLayout>(shared.k, in.k, block * kBlockN,
                                                        in.seqlen_k, in.head_dim, remade(thread));
    cp_async_fence();
  };

  clear(out);
  if (blocks.begin >= blocks.end) return;
  load_tile<typename Tile::QueryThreads, typename Tile::Queries::Rows>(
      shared.q, in.q, in.first_row, in.num_rows, in.head_dim, thread);
  load_keys(blocks.end - 1);

  auto out_rows = rows_and_columns(out);
  for (int block = blocks.end - 1; block >= blocks.begin; --block) {
    cp_async_wait<0>();
    __syncthreads();
    load_tile<typename Tile::KeyThreads, KeyRowsLayout>(shared.v, in.v, block * kBlockN,
                                                        in.seqlen_k, in.head_dim_v, remade(thread));
    cp_async_fence();
    auto accumulator = partition_fragment_C(mma, Shape<Int<Tile::kBlockM>, Int<kBlockN>>{});
    clear(accumulator);
    multiply_shared(accumulator, q, k, mma, LoadRows<Element>{}, LoadRows<Element>{},
                    remade(thread));
    cp_async_wait<0>();
    __syncthreads();
    if (block > blocks.begin) load_keys(block - 1);

    auto scores = rows_and_columns(accumulator);
    const int first_key = block * kBlockN;
    const typename Tile::Positions positions(remade(thread));
    const auto query = [&](int i) { return position(i, positions.row(i)); };
    const auto key = [&](int j) { return first_key + positions.column(j); };
    logits.apply(
        scores, [&](int i) { return query(i) + band.diagonal(); }, slope, key,
        [](int, int, float) {});
    if (!band.covers(first_position, last_position, first_key, first_key + kBlockN - 1)) {
      mask_scores(scores, band, query, key);
    }
    softmax.update(scores, out_rows, logits.factor);
    drop(scores, dropout, query, first_key + positions.first_column);
    auto probs = convert<Element>(accumulator);
    multiply_registers(out, as_operand(probs), v, mma, LoadColumns<Element>{}, remade(thread));
  }
}

}  // namespace flash_attn::cuda::sm80
