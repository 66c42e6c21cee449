// dQ on its way from registers to the accumulator in global memory, by way of shared memory: the
// TMA unit adds, so that no thread waits for memory.
#pragma once

#include <cute/arch/copy_sm90_tma.hpp>

#include "matrix.h"
#include "pipeline.h"
#include "tensor_maps.h"

namespace flash_attn::cuda::sm90 {

// Rows of a warp.
constexpr int kStagedRows = 16;

// Start to add kStagedRows x kColumns from `tile`, or to write them; what lies outside of the
// tensor is left out. One thread calls it.
template <bool kVarlen, int kColumns>
__device__ void send_tile(const CUtensorMap& map, const TileOrigin& origin, int first_column,
                          const float* tile, bool add) {
  constexpr int kFloats = kBoxBytes / sizeof(float);
  const auto send = [&](auto operation) {
#pragma unroll
    for (int column = 0; column < kColumns; column += kFloats) {
      const float* box = tile + column * kStagedRows;
      if constexpr (kVarlen) {
        operation.copy(&map, box, first_column + column, kRaggedRows - origin.length + origin.row,
                       origin.head, origin.first + origin.length, int{kRaggedRows});
      } else {
        operation.copy(&map, box, first_column + column, origin.row, origin.head, origin.batch);
      }
    }
  };
  if (add) {
    send(cute::SM90_TMA_REDUCE_ADD{});
  } else {
    send(cute::SM90_TMA_STORE{});
  }
}

// Wait until what this thread sent has been read from shared memory.
__device__ inline void finish_sending() { cute::tma_store_wait<0>(); }

// Send rows first_row on, columns first_column on of dQ, times `scale`: a thread's two rows of
// `values` (rows, columns), by way of `staged`. Lane 0 sends. Every split of a deterministic call
// writes an accumulator of its own, which follow each other as sequences of a batch do.
template <bool kVarlen, int kColumns, class Work, class Values>
__device__ void send_query_gradient(const CUtensorMap& map, const BackwardParams& p,
                                    const Work& work, int first_row, int first_column,
                                    float (&staged)[kStagedRows * kColumns], const Values& values,
                                    float scale) {
  const int lane = remade(threadIdx.x) % kWarpThreads;
  if (lane == 0) finish_sending();
  __syncwarp();
  const ThreadPositions positions(lane);
  const auto tile =
      make_tensor(make_smem_ptr(staged), RowsLayout<float, kStagedRows, kColumns, 1>{});
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int j = 0; j < size<1>(values); j += 2) {
      float* place = &tile(positions.row(i), positions.column(j), 0);
      *reinterpret_cast<float2*>(place) = {values(i, j) * scale, values(i, j + 1) * scale};
    }
  }
  cute::tma_store_fence();
  __syncwarp();
  if (lane != 0) return;
  const bool add = p.dq_split_stride == 0;
  TileOrigin origin{first_row, work.head, work.batch, work.sequence.first_q,
                    work.sequence.seqlen_q};
  if (!add) {
    origin.batch += work.block_n * p.batch;
    origin.first += work.block_n * (p.dq_split_stride / p.dq_strides.row);
  }
  send_tile<kVarlen, kColumns>(map, origin, first_column, staged, add);
  cute::tma_store_arrive();
}

// Map of the accumulator, all splits of it.
template <bool kVarlen>
CUtensorMap query_gradient_map(const BackwardParams& p, int block_n) {
  const int splits = p.dq_split_stride == 0 ? 1 : ceil_div(p.seqlen_k, block_n);
  return tensor_map<float, kVarlen>("dq_accumulator", p.dq_accumulator, p.dq_strides, p.head_dim,
                                    p.seqlen_q, p.nheads_q, p.batch * splits, kStagedRows);
}

}  // namespace flash_attn::cuda::sm90
