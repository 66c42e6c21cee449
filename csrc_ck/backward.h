// The backward of CK-tile: configuration of an instance and its launch.
//
// One kernel makes dK and dV of a block of keys and adds its share to dQ. What comes before (the
// row sums of dO * O) and after (dQ from its accumulator, sums over grouped heads) is done by
// softmax_d.cu and sum.cu of csrc_common.
#pragma once

#include "element.h"

namespace flash_attn::ck {

// A tile of the backward: queries x keys, key unroll of dS * K, and the waves over queries and keys
// in the product that makes dQ. Instructions are 16 x 16; kWaveK is the depth of the wide ones.
template <int kQueries, int kKeys, int kUnrollDq, int kHeadDim, int kDqWavesQ, int kDqWavesK,
          int kWaveK>
using BackwardTile = ck_tile::TileFmhaBwdShape<
    ck_tile::sequence<kQueries, kKeys, kHeadDim, kQueries, kHeadDim, kQueries, kUnrollDq, kHeadDim,
                      kHeadDim>,
    ck_tile::sequence<1, 4, 1>, ck_tile::sequence<16, 16, kWaveK>, ck_tile::sequence<4, 1, 1>,
    ck_tile::sequence<16, 16, 16>, ck_tile::sequence<1, 4, 1>, ck_tile::sequence<16, 16, kWaveK>,
    ck_tile::sequence<4, 1, 1>, ck_tile::sequence<16, 16, 16>,
    ck_tile::sequence<kDqWavesQ, kDqWavesK, 1>, ck_tile::sequence<16, 16, kWaveK>, 0>;

struct BackwardFeatures {
  bool varlen = false, masked = false, alibi = false, dropout = false, deterministic = false;
  int blocks_per_cu = 1;
};

template <class Element, class Tile, BackwardFeatures kFeatures>
struct Backward {
  // 8: any head dim that is a multiple of 8, read 16 bytes at a time
  using Traits =
      ck_tile::TileFmhaBwdTraits<8, 8,
                                 kFeatures.alibi ? ck_tile::BlockAttentionBiasEnum::ALIBI
                                                 : ck_tile::BlockAttentionBiasEnum::NO_BIAS,
                                 false, kFeatures.blocks_per_cu>;
  using Dropout = ck_tile::BlockDropoutBwd<kFeatures.dropout, false, false>;
  using Problem = ck_tile::BlockFmhaBwdPipelineProblem<
      Element, Element, Element, Element, float, float, float, Element, uint8_t, Element, Element,
      Element, Element, Element, Element, Tile, kFeatures.varlen, kFeatures.deterministic,
      Mask<kFeatures.masked>, Dropout, false, Traits>;
  using Epilogue =
      ck_tile::Default2DEpilogue<ck_tile::Default2DEpilogueProblem<float, Element, false, true>>;
  using Kernel = ck_tile::FmhaBwdDQDKDVKernel<ck_tile::BlockFmhaBwdDQDKDVPipeline<Problem>,
                                              Epilogue, Epilogue>;
};

template <class Instance>
void launch_backward(const BackwardParams& p, hipStream_t stream) {
  using Kernel = typename Instance::Kernel;
  const auto ratio = p.nheads_q / p.nheads_k;
  const std::pair<const void*, const void*> rng{p.rng_state, p.rng_state + (p.rng_state ? 1 : 0)};
  const auto kargs = [&] {
    if constexpr (Kernel::kIsGroupMode) {
      return Kernel::MakeKargsImpl(
          p.q, p.k, p.v, p.alibi_slopes, p.softmax_lse, p.dout, p.softmax_d, nullptr, p.dk, p.dv,
          nullptr, p.dq_accumulator, p.cu_seqlens_q, p.cu_seqlens_k, nullptr, p.seqused_k, nullptr,
          nullptr, p.head_dim, p.head_dim_v, p.nheads_q, ratio, p.softmax_scale, p.q_strides.row,
          p.k_strides.row, p.v_strides.row, p.alibi_batch_stride, 0, p.dout_strides.row,
          p.dq_strides.row, p.dk_strides.row, p.dv_strides.row, 0, p.q_strides.head,
          p.k_strides.head, p.v_strides.head, 0, 0, p.dout_strides.head, p.lse_head_stride,
          p.dq_strides.head, p.dk_strides.head, p.dv_strides.head, 0, p.dq_split_stride,
          p.window_left, p.window_right, kMaskBottomRight, p.dropout_p, rng);
    } else {
      return Kernel::MakeKargsImpl(
          p.q, p.k, p.v, p.alibi_slopes, p.softmax_lse, p.dout, p.softmax_d, nullptr, p.dk, p.dv,
          nullptr, p.dq_accumulator, p.seqlen_q, p.seqlen_k, p.head_dim, p.head_dim_v, p.nheads_q,
          ratio, p.softmax_scale, p.q_strides.row, p.k_strides.row, p.v_strides.row,
          p.alibi_batch_stride, 0, p.dout_strides.row, p.dq_strides.row, p.dk_strides.row,
          p.dv_strides.row, 0, p.q_strides.head, p.k_strides.head, p.v_strides.head, 0, 0,
          p.dout_strides.head, p.lse_head_stride, p.dq_strides.head, p.dk_strides.head,
          p.dv_strides.head, 0, p.q_strides.batch, p.k_strides.batch, p.v_strides.batch, 0, 0,
          p.dout_strides.batch, p.lse_batch_stride, p.dq_strides.batch, p.dk_strides.batch,
          p.dv_strides.batch, 0, p.dq_split_stride, p.window_left, p.window_right, kMaskBottomRight,
          p.dropout_p, rng);
    }
  }();
  launch<Instance>(Kernel::GridSize(p.batch, p.nheads_q, p.seqlen_k), kargs, stream);
}

}  // namespace flash_attn::ck
