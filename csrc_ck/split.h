// The split-key forward of CK-tile, over caches or pages: configuration of an instance and its
// launch. csrc_common/combine.cu merges the splits.
#pragma once

#include "element.h"

namespace flash_attn::ck {

// As ForwardTile, for few queries.
template <int kQueries, int kKeys, int kUnrollQK, int kHeadDimV, int kUnrollPV, int kHeadDim,
          int kWaves, int kWaveM, int kWaveN, int kWaveK>
using SplitTile = ck_tile::TileFmhaShape<
    ck_tile::sequence<kQueries, kKeys, kUnrollQK, kHeadDimV, kUnrollPV, kHeadDim>,
    ck_tile::sequence<kWaves, 1, 1>, ck_tile::sequence<kWaveM, kWaveN, kWaveK>,
    ck_tile::sequence<kWaves, 1, 1>, ck_tile::sequence<kWaveM, kWaveN, kWaveK>, true>;

struct SplitFeatures {
  bool paged = false, masked = false, softcap = false, alibi = false;
};

template <class Element, class Tile, SplitFeatures kFeatures>
struct Split {
  using Traits =
      ck_tile::TileFmhaFwdSplitKVTraits<true, true, false, false, kFeatures.softcap,
                                        kFeatures.alibi ? ck_tile::BlockAttentionBiasEnum::ALIBI
                                                        : ck_tile::BlockAttentionBiasEnum::NO_BIAS,
                                        false, true, false, kFeatures.paged, true, false, -1>;
  using Variant = ck_tile::ComposedAttention<kFeatures.softcap * ck_tile::LOGITS_SOFT_CAP, true>;
  using Problem =
      ck_tile::BlockFmhaFwdSplitKVPipelineProblem<Element, Element, Element, float, float, Element,
                                                  float, Element, float, float, Tile, false,
                                                  Variant, Mask<kFeatures.masked>, Traits>;
  using Epilogue =
      ck_tile::Default2DEpilogue<ck_tile::Default2DEpilogueProblem<float, float, true, false>>;
  using Kernel =
      ck_tile::FmhaFwdSplitKVKernel<ck_tile::BlockFmhaFwdSplitKVPipelineQRKSVS<Problem>, Epilogue>;
};

template <class Instance>
void launch_split(const SplitParams& p, hipStream_t stream) {
  using Kernel = typename Instance::Kernel;
  const auto row = p.nheads_q * p.head_dim_v;
  const auto kargs = Kernel::MakeKargs(
      p.q, p.k, p.v, p.alibi_slopes, p.softmax_lse, p.out, p.batch, p.seqlen_q, p.seqlen_k,
      p.seqused_k, p.head_dim, p.head_dim_v, p.nheads_q, p.nheads_q / p.nheads_k, p.num_splits,
      p.block_table, p.block_table_stride, p.page_size, p.cache_batch_idx, p.softmax_scale, 1.f,
      p.softcap_value, p.q_strides.row, p.k_strides.row, p.v_strides.row, p.alibi_batch_stride, row,
      p.q_strides.head, p.k_strides.head, p.v_strides.head, 0, p.lse_head_stride, p.head_dim_v,
      p.q_strides.batch, p.k_strides.batch, p.v_strides.batch, 0, p.lse_batch_stride,
      p.seqlen_q * row, p.batch * p.lse_batch_stride, p.batch * p.seqlen_q * row, p.window_left,
      p.window_right, kMaskBottomRight);
  const auto grid =
      Kernel::GridSize(p.batch, p.nheads_q, p.nheads_k, p.seqlen_q, p.head_dim_v, p.num_splits);
  launch<Instance>(grid, kargs, stream);
}

}  // namespace flash_attn::ck
