// The consumer of a split: a warpgroup that computes scores, softmax and output of 64 packed rows.
#pragma once

#include "common/softmax.h"
#include "matrix.h"
#include "split_producer.h"

namespace flash_attn::cuda::sm90 {

// Wait for a warpgroup's writes to shared memory, for its matrix products to read.
__device__ inline void publish_writes() {
  cutlass::arch::fence_view_async_shared();
  cutlass::arch::NamedBarrier::sync(kWarpgroupThreads, 0);
}

// Zero the rows from `first` on of a tile that the warpgroup has waited for: what a cache holds
// beyond its sequence may be NaN, which a probability of 0 does not undo.
template <int kBlockN, int kHeadDim, class Element>
__device__ void clear_rows(Element* tile, int first) {
  constexpr int kElements = sizeof(uint4) / sizeof(Element);
  const int thread = threadIdx.x % kWarpgroupThreads;
#pragma unroll
  for (int column = 0; column < kHeadDim; column += kBoxColumns) {
    Element* box = tile + column * kBlockN;
    for (int n = first * kBoxColumns + thread * kElements; n < kBlockN * kBoxColumns;
         n += kWarpgroupThreads * kElements) {
      *reinterpret_cast<uint4*>(box + n) = uint4{};
    }
  }
  publish_writes();
}

// Attend to the blocks of a split, the last first, and write its results.
template <class Instance>
__device__ void consume_split(typename Instance::Shared& shared,
                              const typename Instance::Arguments& arguments,
                              const typename Instance::Work& work) {
  using Element = typename Instance::Element;
  constexpr auto kFeatures = Instance::kFeatures;
  constexpr int kBlockM = Instance::kBlockM, kBlockN = Instance::kBlockN;
  constexpr int kHeadDim = Instance::kHeadDim;
  const SplitParams& p = arguments.params;

  const typename Instance::ScoreMma score_mma;
  const typename Instance::OutMma out_mma;
  const auto score_slice = score_mma.get_slice(0);
  const auto out_slice = out_mma.get_slice(0);
  const auto q = score_slice.partition_fragment_A(
      make_tensor(make_smem_ptr(shared.q), typename Instance::QueryLayout{})(_, _, _0{}));
  const auto k = score_slice.partition_fragment_B(
      make_tensor(make_smem_ptr(shared.tiles[0]), typename Instance::KeyLayout{}));
  const auto v = out_slice.partition_fragment_B(
      make_tensor(make_smem_ptr(shared.tiles[0]), typename Instance::ValueLayout{}));
  auto accumulator = partition_fragment_C(score_mma, Shape<Int<kBlockM>, Int<kBlockN>>{});
  auto out = partition_fragment_C(out_mma, Shape<Int<kBlockM>, Int<kHeadDim>>{});
  auto probs = make_tensor<Element>(Layout<Shape<Shape<_2, _2, _2>, _1, Int<kBlockN / 16>>>{});
  auto scores = rows_and_columns(accumulator);
  auto out_rows = rows_and_columns(out);
  clear(out);

  const ThreadPositions positions(threadIdx.x);
  const auto rows = SplitRows<2>::template of<kFeatures.alibi>(p, work, positions);
  const Logits<kFeatures.softcap, kFeatures.alibi> logits(p);
  OnlineSoftmax<2> softmax;

  if (work.has_keys()) {
    load_tile<TileThreads<kBlockM, kHeadDim, kWarpgroupThreads>, CopyLayout<kBlockM, kHeadDim>>(
        shared.q, work.template queries<Element>(p), work.first_row, work.num_rows, p.head_dim,
        static_cast<int>(threadIdx.x % kWarpgroupThreads));
    cp_async_fence();
    cp_async_wait<0>();
    publish_writes();

    const bool copied = arguments.box_rows == 0;
    const auto wait_full = [&](const auto& tile) {
      shared.ring.wait_full(tile);
      if (copied) cutlass::arch::fence_view_async_shared();
    };
    // tiles of keys and values take turns in the ring
    typename Instance::Ring::Position key, value;
    value.advance();
    int block = work.blocks.end - 1;
    wait_full(key);
    start_product<true>(score_mma, q, k(_, _, _, key.stage), accumulator);
    warpgroup_wait<0>();
    for (;; --block) {
      warpgroup_fence_operand(accumulator);
      shared.ring.release(key);
      key.advance();
      key.advance();

      const int first_key = block * kBlockN;
      const auto position = [&](int i) { return rows.position[i]; };
      const auto key_position = [&](int j) { return first_key + positions.column(j); };
      logits.apply(
          scores, [&](int i) { return position(i) + work.band.diagonal(); },
          [&](int i) { return rows.slope[i]; }, key_position, [](int, int, float) {});
      if (!work.band.covers(work.first_position, work.last_position, first_key,
                            first_key + kBlockN - 1)) {
        mask_scores(scores, work.band, position, key_position);
      }
      softmax.update(scores, out_rows, logits.factor);
      convert_to_operand(accumulator, probs);

      wait_full(value);
      const int rows_left = work.band.seqlen_k - first_key;
      if (rows_left < kBlockN && !copied) {
        clear_rows<kBlockN, kHeadDim>(shared.tiles[value.stage], rows_left);
      }
      start_product<false>(out_mma, probs, v(_, _, _, value.stage), out);
      const bool more = block > work.blocks.begin;
      if (more) {
        wait_full(key);
        start_product<true>(score_mma, q, k(_, _, _, key.stage), accumulator);
      }
      warpgroup_wait<0>();
      warpgroup_fence_operand(out);
      shared.ring.release(value);
      value.advance();
      value.advance();
      if (!more) break;
    }
  }
  softmax.finish(out_rows, logits.factor, 1.f);
  store_split(p, work, positions, rows, out_rows, softmax.row_max);
}

}  // namespace flash_attn::cuda::sm90
