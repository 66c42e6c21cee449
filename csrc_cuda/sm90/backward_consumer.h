// The consumers of the backward: warpgroups of 64 keys each that recompute probabilities and make
// dK, dV and together dQ.
//
// Scores are computed transposed, keys x queries, so that probabilities and their gradients are
// operands in registers of the products that make dV and dK. dQ sums over the keys of all
// warpgroups, so gradients of scores go to shared memory as well.
#pragma once

#include "backward_work.h"
#include "common/dropout.h"
#include "common/logits.h"
#include "epilogue.h"
#include "matrix.h"
#include "pipeline.h"
#include "query_gradient.h"

namespace flash_attn::cuda::sm90 {

// Store an operand (64 keys of a warpgroup x queries) to `tile` (keys, queries), from first_key on.
template <class Operand, class Tile>
__device__ void store_operand(const Operand& operand, const Tile& tile, int first_key) {
  const auto words = recast<const uint32_t>(operand);
  const int thread = remade(threadIdx.x) % kWarpgroupThreads, lane = thread % kWarpThreads;
  const int key = first_key + thread / kWarpThreads * 16 + lane % 16, query = lane / 16 * 8;
#pragma unroll
  for (int n = 0; n < size(words); n += 4) {
    SM90_U32x4_STSM_N::copy(words(n), words(n + 1), words(n + 2), words(n + 3),
                            *reinterpret_cast<uint128_t*>(&tile(key, query + n * 4)));
  }
}

// The keys of consumer warpgroup `warpgroup` of every tile of the walk.
template <class Instance>
__device__ void consume_backward(typename Instance::Shared& shared,
                                 const typename Instance::Arguments& arguments, int warpgroup) {
  using Tile = typename Instance::Tile;
  using Element = typename Instance::Element;
  constexpr auto kFeatures = Instance::kFeatures;
  constexpr int kBlockM = Tile::kBlockM, kBlockN = Tile::kBlockN, kHeadDim = Instance::kHeadDim;
  constexpr int kColumns = Instance::kGradientColumns, kWarpgroupsM = Instance::kWarpgroupsM;
  const BackwardParams& p = arguments.params;

  const typename Instance::ScoreMma score_mma;
  const typename Instance::KeyMma key_mma;
  const typename Instance::QueryMma query_mma;
  // the first thread's operands are those of its warpgroup
  const auto score_slice = score_mma.get_slice(warpgroup * kWarpgroupThreads);
  const auto key_slice = key_mma.get_slice(warpgroup * kWarpgroupThreads);
  const auto query_slice = query_mma.get_slice(warpgroup * kWarpgroupThreads);
  const auto tile = [](auto* data, auto layout) {
    return make_tensor(make_smem_ptr(data), layout);
  };
  using KeyRows = RowsLayout<Element, kBlockN, kHeadDim, 1>;
  using KeyColumns = ColumnsLayout<Element, kBlockN, kHeadDim, 1>;
  using QueryRows = RowsLayout<Element, kBlockM, kHeadDim, Tile::kStages>;
  using QueryColumns = ColumnsLayout<Element, kBlockM, kHeadDim, Tile::kStages>;
  using ScoreRows = RowsLayout<Element, kBlockN, kBlockM, Instance::kScoreStages>;
  using ScoreColumns = ColumnsLayout<Element, kBlockN, kBlockM, Instance::kScoreStages>;
  const auto k = score_slice.partition_fragment_A(tile(shared.k, KeyRows{})(_, _, _0{}));
  const auto v = score_slice.partition_fragment_A(tile(shared.v, KeyRows{})(_, _, _0{}));
  const auto q = score_slice.partition_fragment_B(tile(shared.q[0], QueryRows{}));
  const auto dout = score_slice.partition_fragment_B(tile(shared.dout[0], QueryRows{}));
  const auto q_columns = key_slice.partition_fragment_B(tile(shared.q[0], QueryColumns{}));
  const auto dout_columns = key_slice.partition_fragment_B(tile(shared.dout[0], QueryColumns{}));
  const auto stored = tile(shared.dscores[0], ScoreRows{});
  const auto dscores_columns =
      query_slice.partition_fragment_A(tile(shared.dscores[0], ScoreColumns{}));
  const auto k_columns = query_slice.partition_fragment_B(tile(shared.k, KeyColumns{})(_, _, _0{}));

  auto dk = partition_fragment_C(key_mma, Shape<Int<kBlockN>, Int<kHeadDim>>{});
  auto dv = partition_fragment_C(key_mma, Shape<Int<kBlockN>, Int<kHeadDim>>{});
  using Operand =
      decltype(make_tensor<Element>(Layout<Shape<Shape<_2, _2, _2>, _1, Int<kBlockM / 16>>>{}));

  const Logits<kFeatures.softcap, kFeatures.alibi> logits(p);
  const cutlass::NumericArrayConverter<Element, float, 2> converter;
  const float kept_scale = kFeatures.dropout ? 1.f / (1.f - p.dropout_p) : 1.f;
  // uniform, as is what is computed of it
  const int warp = __shfl_sync(0xffffffffu, threadIdx.x % kWarpgroupThreads / kWarpThreads, 0);
  typename Instance::KeyRing::Position key_position;
  typename Instance::QueryRing::Position position;
  int buffer = 0;

  for (TileWalk walk(arguments.order.tile_order()); walk.valid(); walk.next()) {
    const typename Instance::Work work(p, arguments.order[walk.tile()]);
    if (!work.has_keys()) continue;
    const int first_key = work.first_key + warpgroup * kWarpgroupRows;
    const float slope = alibi_slope<kFeatures.alibi>(p, work.batch, work.head);
    const std::conditional_t<kFeatures.dropout, Dropout, NoDropout> dropout(p, work.batch,
                                                                            work.head);
    clear(dk);
    clear(dv);
    if (work.has_queries()) {
      shared.key_ring.wait_full(key_position);
      shared.value_ring.wait_full(key_position);
    }
    for (int block = work.blocks.begin; block < work.blocks.end; ++block) {
      const int first_query = block * kBlockM;
      auto scores_accumulator =
          partition_fragment_C(score_mma, Shape<Int<kBlockN>, Int<kBlockM>>{});
      auto dscores_accumulator =
          partition_fragment_C(score_mma, Shape<Int<kBlockN>, Int<kBlockM>>{});
      auto scores = rows_and_columns(scores_accumulator);
      auto dscores = rows_and_columns(dscores_accumulator);
      Operand probs, dprobs;

      shared.query_ring.wait_full(position);
      start_product<true>(score_mma, k, q(_, _, _, position.stage), scores_accumulator);
      shared.dout_ring.wait_full(position);
      start_product<true>(score_mma, v, dout(_, _, _, position.stage), dscores_accumulator);
      if constexpr (kFeatures.dropout) {
        shared.dropout[warpgroup].fill(dropout, first_query, first_key,
                                       threadIdx.x % kWarpgroupThreads);
        sync_warpgroup(warpgroup);
      }
      shared.statistics_ring.wait_full(position);
      warpgroup_wait<1>();
      warpgroup_fence_operand(scores_accumulator);

      const ThreadPositions positions(remade(threadIdx.x));
      const auto key = [&](int i) { return first_key + positions.row(i); };
      const auto query = [&](int j) { return first_query + positions.column(j); };
      logits.apply(
          scores, key, [&](int) { return slope; },
          [&](int j) { return query(j) - work.band.diagonal(); }, [](int, int, float) {});
      if (!work.band.covers(first_key, first_key + kWarpgroupRows - 1, first_query,
                            first_query + kBlockM - 1)) {
        mask_scores(scores, work.band, key, query);
      }
      // 0 for what dropout takes away
      const auto keep = [&](int i, int j, float value) {
        if constexpr (Instance::kFeatures.dropout) {
          const auto& mask = shared.dropout[warpgroup];
          return mask.keeps(positions.column(j), first_key, positions.row(i)) ? value : 0.f;
        }
        return value;
      };
      auto probs_rows = rows_and_columns(probs);
#pragma unroll
      for (int j = 0; j < size<1>(scores); j += 2) {
        // log-sum-exp and softmax_d of two queries
        const float4 two = *reinterpret_cast<const float4*>(
            &shared.statistics[position.stage][positions.column(j)]);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float prob0 = exp2_fast(scores(i, j) * logits.factor - two.x);
          const float prob1 = exp2_fast(scores(i, j + 1) * logits.factor - two.z);
          *reinterpret_cast<cutlass::Array<Element, 2>*>(&probs_rows(i, j)) =
              converter({keep(i, j, prob0), keep(i, j + 1, prob1)});
          scores(i, j) = prob0 * logits.derivative(scores(i, j));
          scores(i, j + 1) = prob1 * logits.derivative(scores(i, j + 1));
        }
      }
      start_product<false>(key_mma, probs, dout_columns(_, _, _, position.stage), dv);
      warpgroup_wait<1>();
      warpgroup_fence_operand(dscores_accumulator);
#pragma unroll
      for (int j = 0; j < size<1>(scores); j += 2) {
        const float4 two = *reinterpret_cast<const float4*>(
            &shared.statistics[position.stage][positions.column(j)]);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          dscores(i, j) = scores(i, j) * (keep(i, j, dscores(i, j)) - two.y);
          dscores(i, j + 1) = scores(i, j + 1) * (keep(i, j + 1, dscores(i, j + 1)) - two.w);
        }
      }
      convert_to_operand(dscores_accumulator, dprobs);
      store_operand(dprobs, stored(_, _, buffer), warpgroup * kWarpgroupRows);
      cutlass::arch::fence_view_async_shared();
      sync_consumers<Instance::kConsumers>();
      shared.statistics_ring.release(position);

      auto dq = partition_fragment_C(query_mma, Shape<Int<kBlockM>, Int<kHeadDim>>{});
      start_product<true>(query_mma, dscores_columns(_, _, _, buffer), k_columns, dq);
      start_product<false>(key_mma, dprobs, q_columns(_, _, _, position.stage), dk);
      warpgroup_wait<1>();
      warpgroup_fence_operand(dq);
      warpgroup_fence_operand(dv);
      shared.dout_ring.release(position);
      send_query_gradient<kFeatures.varlen, kColumns>(
          arguments.dq, p, work,
          first_query + warpgroup % kWarpgroupsM * kWarpgroupRows + warp * kStagedRows,
          warpgroup / kWarpgroupsM * kColumns, shared.dq[warpgroup][warp], rows_and_columns(dq),
          p.softmax_scale * kept_scale);
      warpgroup_wait<0>();
      warpgroup_fence_operand(dk);
      shared.query_ring.release(position);
      position.advance();
      buffer ^= 1;
    }
    if (work.has_queries()) {
      shared.key_ring.release(key_position);
      shared.value_ring.release(key_position);
      key_position.advance();
    }

    const auto store = [&](auto& gradient, float scale, void* tensor, const Strides& strides,
                           int columns) {
      auto rows = rows_and_columns(gradient);
#pragma unroll
      for (int i = 0; i < size(gradient); ++i) gradient(i) *= scale;
      Element* head = static_cast<Element*>(tensor) +
                      head_offset(strides, work.batch, work.sequence.first_k, work.head);
      store_row_pair(head, strides.row, work.sequence.seqlen_k, columns, first_key,
                     ThreadPositions(threadIdx.x), rows);
    };
    store(dv, kept_scale, p.dv, p.dv_strides, p.head_dim_v);
    store(dk, p.softmax_scale * kept_scale, p.dk, p.dk_strides, p.head_dim);
  }
  finish_sending();
}

}  // namespace flash_attn::cuda::sm90
