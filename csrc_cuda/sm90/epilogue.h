// The end of a tile: output and log-sum-exp from registers to global memory.
#pragma once

#include <cutlass/numeric_conversion.h>

#include <cute/tensor.hpp>

#include "common/sequences.h"
#include "matrix.h"

namespace flash_attn::cuda::sm90 {

// Thread t of four neighbours gets word t of each of them.
__device__ inline void transpose_quad(uint32_t (&words)[4]) {
#pragma unroll
  for (int distance = 1; distance <= 2; distance *= 2) {
    const bool odd = threadIdx.x & distance;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i & distance) continue;
      uint32_t &low = words[i], &high = words[i + distance];
      const uint32_t other = __shfl_xor_sync(0xffffffffu, odd ? low : high, distance);
      (odd ? low : high) = other;
    }
  }
}

// Write a thread's two rows of `values` (rows, columns), 16 bytes at a time, as far as rows and
// columns exist; `head` is the head's first row.
template <class Element, class Values>
__device__ void store_row_pair(Element* head, int row_stride, int num_rows, int num_columns,
                               int first_row, const ThreadPositions& positions,
                               const Values& values) {
  constexpr int kColumns = decltype(size<1>(values))::value;  // of a thread: a quarter of a row
  const int quarter = threadIdx.x % 4;
  const cutlass::NumericArrayConverter<Element, float, 2> converter;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = first_row + positions.row(i);
    Element* target = head + int64_t{row} * row_stride;
#pragma unroll
    for (int j = 0; j < kColumns; j += 8) {
      uint32_t words[4];
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const auto pair = converter({values(i, j + 2 * n), values(i, j + 2 * n + 1)});
        words[n] = reinterpret_cast<const uint32_t&>(pair);
      }
      transpose_quad(words);
      const int column = 4 * j + 8 * quarter;
      if (row < num_rows && column < num_columns) {
        *reinterpret_cast<uint4*>(target + column) = {words[0], words[1], words[2], words[3]};
      }
    }
  }
}

// Write a thread's two rows of `out` (rows, columns) and of `lse`.
template <class Element, class Work, class Out>
__device__ void store_rows(const ForwardParams& p, const Work& work, int first_row,
                           const ThreadPositions& positions, const Out& out,
                           const float (&lse)[2]) {
  float* head_lse = p.softmax_lse + lse_offset(p, work.batch, work.sequence.first_q, work.head);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = first_row + positions.row(i);
    if (row < work.sequence.seqlen_q && threadIdx.x % 4 == 0) head_lse[row] = lse[i];
  }
  Element* head = static_cast<Element*>(p.out) +
                  head_offset(p.out_strides, work.batch, work.sequence.first_q, work.head);
  store_row_pair(head, p.out_strides.row, work.sequence.seqlen_q, p.head_dim_v, first_row,
                 positions, out);
}

}  // namespace flash_attn::cuda::sm90
