// The forward for Ampere and later: configuration of an instance, its kernel and launch.
//
// After FlashAttention-2 (Dao, 2023): a block of threads holds kBlockM queries and passes over the
// keys, kBlockN at a time, with cp.async copies of the next keys and values in flight.
#pragma once

#include "attend.h"

namespace flash_attn::cuda::sm80 {

template <int kBlockM_, int kBlockN_, int kWarps_>
struct ForwardTile {
  static constexpr int kBlockM = kBlockM_, kBlockN = kBlockN_, kWarps = kWarps_;
};

struct ForwardFeatures {
  bool varlen = false, masked = false, softcap = false, alibi = false, dropout = false;
};

template <class Element, class Tile, int kHeadDim, ForwardFeatures kFeatures_>
struct Forward {
  using Attend = AttendTile<Element, Tile::kBlockM, Tile::kBlockN, Tile::kWarps, kHeadDim>;
  static constexpr ForwardFeatures kFeatures = kFeatures_;
  static constexpr int kSharedBytes = sizeof(typename Attend::Shared);
};

// A block of queries of one head of one sequence; later queries, which see more keys of a causal
// call, start first.
template <class Instance>
__global__ void __launch_bounds__(Instance::Attend::kThreads)
    forward_kernel(const __grid_constant__ ForwardParams p) {
  using Tile = typename Instance::Attend;
  using Element = typename Tile::Element;
  constexpr auto kFeatures = Instance::kFeatures;
  extern __shared__ __align__(128) char memory[];
  auto& shared = *reinterpret_cast<typename Tile::Shared*>(memory);

  const int blocks_m = ceil_div(p.seqlen_q, Tile::kBlockM);
  const int block_m = blocks_m - 1 - blockIdx.x % blocks_m;
  const int head = blockIdx.x / blocks_m % p.nheads_q, batch = blockIdx.x / blocks_m / p.nheads_q;
  const int head_k = head / (p.nheads_q / p.nheads_k);
  const auto sequence = sequence_of<kFeatures.varlen>(p, batch);
  const int first_row = block_m * Tile::kBlockM;
  if (first_row >= sequence.seqlen_q) return;

  const auto rows = [&](auto* tensor, const Strides& strides, int before, int h) {
    using T = std::conditional_t<std::is_const_v<std::remove_pointer_t<decltype(tensor)>>,
                                 const Element, Element>;
    return DenseRows<T>{static_cast<T*>(tensor) + head_offset(strides, batch, before, h),
                        strides.row};
  };
  const AttendInputs<DenseRows<const Element>, DenseRows<const Element>> in{
      rows(p.q, p.q_strides, sequence.first_q, head),
      rows(p.k, p.k_strides, sequence.first_k, head_k),
      rows(p.v, p.v_strides, sequence.first_k, head_k),
      first_row,
      sequence.seqlen_q,
      sequence.seqlen_k,
      p.head_dim,
      p.head_dim_v};
  const Band<kFeatures.masked> band{sequence.seqlen_q, sequence.seqlen_k, p.window_left,
                                    p.window_right};
  const Logits<kFeatures.softcap, kFeatures.alibi> logits(p);
  const int last_row = min(first_row + Tile::kBlockM, sequence.seqlen_q) - 1;
  const typename Tile::Positions positions(threadIdx.x);
  const float slope = alibi_slope<kFeatures.alibi>(p, batch, head);
  const std::conditional_t<kFeatures.dropout, Dropout, NoDropout> dropout(p, batch, head);

  typename Tile::Accumulator out;
  OnlineSoftmax<Tile::kRows> softmax;
  attend<Tile>(
      shared, in, band, logits, dropout, [&](int, int row) { return first_row + row; },
      [&](int) { return slope; }, first_row, last_row,
      band.template key_blocks<Tile::kBlockN>(first_row, last_row), out, softmax);

  auto out_rows = rows_and_columns(out);
  softmax.finish(out_rows, logits.factor, kFeatures.dropout ? 1.f / (1.f - p.dropout_p) : 1.f);
  if (threadIdx.x % 4 == 0) {
    float* lse = p.softmax_lse + lse_offset(p, batch, sequence.first_q, head);
    CUTE_UNROLL
    for (int i = 0; i < Tile::kRows; ++i) {
      const int row = first_row + positions.row(i);
      if (row < sequence.seqlen_q) lse[row] = softmax.row_max[i];
    }
  }
  // a warp writes the rows of q that it alone read, then all of them leave 16 bytes at a time
  const auto out_tile = make_tensor(make_smem_ptr(shared.q), typename Tile::Queries::Rows{});
  const auto to_shared =
      make_tiled_copy_C(Copy_Atom<AutoVectorizingCopy, Element>{}, typename Tile::TiledMma{})
          .get_slice(threadIdx.x);
  const auto converted = convert<Element>(out);
  copy(Copy_Atom<AutoVectorizingCopy, Element>{}, to_shared.retile_S(converted),
       to_shared.partition_D(out_tile));
  __syncthreads();
  store_tile<typename Tile::QueryThreads, typename Tile::Queries::Rows>(
      shared.q, rows(p.out, p.out_strides, sequence.first_q, head), first_row, sequence.seqlen_q,
      p.head_dim_v, threadIdx.x);
}

template <class Instance>
void launch_forward(const ForwardParams& p, cudaStream_t stream) {
  using Tile = typename Instance::Attend;
  launch(forward_kernel<Instance>,
         int64_t{ceil_div(p.seqlen_q, Tile::kBlockM)} * p.nheads_q * p.batch, Tile::kThreads,
         Instance::kSharedBytes, p, stream);
}

}  // namespace flash_attn::cuda::sm80
