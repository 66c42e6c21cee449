// The consumers: warpgroups of 64 rows each that compute scores, softmax and output.
//
// After FlashAttention-3 (Shah et al., 2024): while the tensor cores multiply the probabilities of
// one block of keys with its values, a warpgroup computes the softmax of the next block, and the
// warpgroups take turns at issuing their products.
#pragma once

#include "common/logits.h"
#include "common/mask.h"
#include "common/softmax.h"
#include "epilogue.h"
#include "matrix.h"
#include "pipeline.h"
#include "work.h"

namespace flash_attn::cuda::sm90 {

// Compute the rows of consumer warpgroup `warpgroup` of every tile of the walk.
template <class Instance>
__device__ void consume(typename Instance::Shared& shared,
                        const typename Instance::Arguments& arguments, int warpgroup) {
  using Tile = typename Instance::Tile;
  using Element = typename Instance::Element;
  constexpr auto kFeatures = Instance::kFeatures;
  constexpr int kBlockM = Tile::kBlockM, kBlockN = Tile::kBlockN, kHeadDim = Instance::kHeadDim;
  const ForwardParams& p = arguments.params;

  const typename Instance::ScoreMma score_mma;
  const typename Instance::OutMma out_mma;
  // the first thread's operands are those of its warpgroup
  const auto score_slice = score_mma.get_slice(warpgroup * kWarpgroupThreads);
  const auto out_slice = out_mma.get_slice(warpgroup * kWarpgroupThreads);
  const auto q = score_slice.partition_fragment_A(
      make_tensor(make_smem_ptr(shared.q), typename Instance::QueryLayout{})(_, _, _0{}));
  const auto k = score_slice.partition_fragment_B(
      make_tensor(make_smem_ptr(shared.k[0]), typename Instance::KeyLayout{}));
  const auto v = out_slice.partition_fragment_B(
      make_tensor(make_smem_ptr(shared.value_operand()), typename Instance::ValueLayout{}));
  auto& value_ring = shared.value_operand_ring();

  auto accumulator = partition_fragment_C(score_mma, Shape<Int<kBlockM>, Int<kBlockN>>{});
  auto out = partition_fragment_C(out_mma, Shape<Int<kBlockM>, Int<kHeadDim>>{});
  auto probs = make_tensor<Element>(OperandLayout<Element, kBlockN>{});
  auto scores = rows_and_columns(accumulator);
  auto out_rows = rows_and_columns(out);

  const ThreadPositions positions(threadIdx.x);
  const Turns<Instance::kConsumers> turns(warpgroup);
  typename Instance::QueryRing::Position query;
  typename Instance::KeyRing::Position key, value;

  for (TileWalk walk(arguments.order); walk.valid(); walk.next()) {
    const typename Instance::Work work(p, arguments.order[walk.tile()]);
    if (!work.has_rows()) continue;
    const int first_row = work.first_row + warpgroup * kWarpgroupRows;
    const int last_row = min(first_row + kWarpgroupRows - 1, work.last_row);
    const float slope = alibi_slope<kFeatures.alibi>(p, work.batch, work.head);
    const typename Instance::Scales scales(p, work.batch, work.head_k);
    const Logits<kFeatures.softcap, kFeatures.alibi> logits(p, scales.score());
    OnlineSoftmax<2, Instance::kHeadroom> softmax;
    auto decay = make_tensor<float>(Shape<_2, _1>{});
    clear(out);

    // From products of queries and keys to unnormalised probabilities.
    const auto finish_scores = [&](int block) {
      const int first_key = block * kBlockN;
      const auto position = [&](int i) { return first_row + positions.row(i); };
      const auto key_position = [&](int j) { return first_key + positions.column(j); };
      logits.apply(
          scores, [&](int i) { return position(i) + work.band.diagonal(); },
          [&](int) { return slope; }, key_position, [](int, int, float) {});
      if (!work.band.covers(first_row, last_row, first_key, first_key + kBlockN - 1)) {
        mask_scores(scores, work.band, position, key_position);
      }
      fill(decay, 1.f);
      softmax.update(scores, decay, logits.factor);
    };

    if (work.has_keys()) {
      int block = work.blocks.end - 1;
      shared.query_ring.wait_full(query);
      shared.key_ring.wait_full(key);
      start_product<true>(score_mma, q, k(_, _, _, key.stage), accumulator);
      warpgroup_wait<0>();
      warpgroup_fence_operand(accumulator);
      shared.key_ring.release(key);
      key.advance();
      finish_scores(block);
      convert_to_operand(accumulator, probs);

      for (; block > work.blocks.begin; --block) {
        shared.key_ring.wait_full(key);
        turns.begin();
        start_product<true>(score_mma, q, k(_, _, _, key.stage), accumulator);
        value_ring.wait_full(value);
        start_product<false>(out_mma, probs, v(_, _, _, value.stage), out);
        turns.end();
        warpgroup_wait<1>();
        warpgroup_fence_operand(accumulator);
        shared.key_ring.release(key);
        key.advance();
        finish_scores(block - 1);
        warpgroup_wait<0>();
        warpgroup_fence_operand(out);
        value_ring.release(value);
        value.advance();
#pragma unroll
        for (int i = 0; i < size<0>(out_rows); ++i) {
#pragma unroll
          for (int j = 0; j < size<1>(out_rows); ++j) out_rows(i, j) *= decay(i, 0);
        }
        convert_to_operand(accumulator, probs);
      }

      shared.query_ring.release(query);
      query.advance();
      value_ring.wait_full(value);
      start_product<false>(out_mma, probs, v(_, _, _, value.stage), out);
      warpgroup_wait<0>();
      warpgroup_fence_operand(out);
      value_ring.release(value);
      value.advance();
    }
    softmax.finish(out_rows, logits.factor, scales.value());
    store_rows<typename Instance::OutElement, typename Instance::OutColumns>(
        p, work, first_row, positions, out_rows, softmax.row_max);
  }
}

}  // namespace flash_attn::cuda::sm90
