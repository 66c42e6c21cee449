// The forward of CK-tile: configuration of an instance and its launch.
#pragma once

#include "descale.h"
#include "element.h"

namespace flash_attn::ck {

// A tile of the forward: queries x keys, unrolled over the head dim by kUnrollQK and over keys by
// kUnrollPV, with a wave's matrix instruction of kWaveM x kWaveN x kWaveK.
template <int kQueries, int kKeys, int kUnrollQK, int kHeadDimV, int kUnrollPV, int kHeadDim,
          int kWaves, int kWaveM, int kWaveN, int kWaveK>
using ForwardTile = ck_tile::TileFmhaShape<
    ck_tile::sequence<kQueries, kKeys, kUnrollQK, kHeadDimV, kUnrollPV, kHeadDim>,
    ck_tile::sequence<kWaves, 1, 1>, ck_tile::sequence<kWaveM, kWaveN, kWaveK>,
    ck_tile::sequence<kWaves, 1, 1>, ck_tile::sequence<kWaveM, kWaveN, kWaveK>, true>;

struct ForwardFeatures {
  bool varlen = false, masked = false, softcap = false, alibi = false, dropout = false;
  bool padded_head_dim = false;
  int blocks_per_cu = -1;
};

template <class Element, class Tile, template <class...> class Pipeline, bool kTransposedLoad,
          ForwardFeatures kFeatures>
struct Forward {
  static constexpr bool kFp8 = std::is_same_v<Element, Float8>;
  using Output = std::conditional_t<kFp8, BFloat16, Element>;
  using Traits =
      ck_tile::TileFmhaTraits<true, true, kFeatures.padded_head_dim, kFeatures.padded_head_dim,
                              kFeatures.softcap,
                              kFeatures.alibi ? ck_tile::BlockAttentionBiasEnum::ALIBI
                                              : ck_tile::BlockAttentionBiasEnum::NO_BIAS,
                              false, true, kFeatures.dropout, kFp8, kFeatures.blocks_per_cu, false>;
  using Variant = ck_tile::ComposedAttention<kFeatures.softcap * ck_tile::LOGITS_SOFT_CAP, true>;
  using Problem =
      ck_tile::BlockFmhaPipelineProblem<Element, Element, Element, float, float, Element, uint8_t,
                                        float, Element, float, Output, Tile, kFeatures.varlen,
                                        Variant, Mask<kFeatures.masked>, kTransposedLoad, Traits>;
  using Epilogue = ck_tile::Default2DEpilogue<
      ck_tile::Default2DEpilogueProblem<float, Output, true, kFeatures.padded_head_dim>>;
  using Unscaled = ck_tile::FmhaFwdKernel<Pipeline<Problem>, Epilogue>;
  using Kernel = std::conditional_t<kFp8, Descaled<Unscaled, Element>, Unscaled>;
};

template <class Instance>
void launch_forward(const ForwardParams& p, hipStream_t stream) {
  using Kernel = typename Instance::Kernel;
  const auto ratio = p.nheads_q / p.nheads_k;
  const std::pair<const void*, const void*> rng{p.rng_state, p.rng_state + (p.rng_state ? 1 : 0)};
  const auto kargs = [&] {
    if constexpr (Kernel::kIsGroupMode) {
      return Kernel::MakeKargsImpl(
          p.q, p.k, p.v, p.alibi_slopes, nullptr, p.softmax_lse, p.out, p.cu_seqlens_q,
          p.cu_seqlens_k, nullptr, p.seqused_k, p.head_dim, p.head_dim_v, p.nheads_q, ratio,
          p.softmax_scale, 1.f, 1.f, p.softcap_value, p.q_strides.row, p.k_strides.row,
          p.v_strides.row, p.alibi_batch_stride, 0, p.out_strides.row, p.q_strides.head,
          p.k_strides.head, p.v_strides.head, 0, 0, p.lse_head_stride, p.out_strides.head,
          p.window_left, p.window_right, kMaskBottomRight, 0, p.dropout_p, false, rng);
    } else {
      return Kernel::MakeKargsImpl(
          p.q, p.k, p.v, p.alibi_slopes, nullptr, p.softmax_lse, p.out, p.seqlen_q, p.seqlen_k,
          p.head_dim, p.head_dim_v, p.nheads_q, ratio, p.softmax_scale, 1.f, 1.f, p.softcap_value,
          p.q_strides.row, p.k_strides.row, p.v_strides.row, p.alibi_batch_stride, 0,
          p.out_strides.row, p.q_strides.head, p.k_strides.head, p.v_strides.head, 0, 0,
          p.lse_head_stride, p.out_strides.head, p.q_strides.batch, p.k_strides.batch,
          p.v_strides.batch, 0, 0, p.lse_batch_stride, p.out_strides.batch, p.window_left,
          p.window_right, kMaskBottomRight, p.dropout_p, false, rng);
    }
  }();
  const auto grid = Kernel::GridSize(p.batch, p.nheads_q, p.seqlen_q, p.head_dim_v,
                                     Kernel::kIsGroupMode && p.seqused_k != nullptr);
  if constexpr (Instance::kFp8) {
    launch<Instance>(grid, typename Kernel::Kargs{kargs, p.q_descale, p.k_descale, p.v_descale},
                     stream);
  } else {
    launch<Instance>(grid, kargs, stream);
  }
}

}  // namespace flash_attn::ck
