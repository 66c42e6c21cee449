// The positional mask: a band of keys around the diagonal that ends in the bottom right corner.
#pragma once

#include <cute/tensor.hpp>

#include "math.h"

namespace flash_attn::cuda {

// Blocks `begin` to `end` - 1 of one axis.
struct BlockRange {
  int begin, end;
};

// Row i sees the keys from i + diagonal - left to i + diagonal + right that exist. Without kMasked
// it sees every key.
template <bool kMasked>
struct Band {
  int seqlen_q, seqlen_k, left, right;

  __host__ __device__ int diagonal() const { return seqlen_k - seqlen_q; }

  // First key that a row sees.
  __host__ __device__ int begin(int row) const {
    return kMasked ? at_least(row + diagonal() - left, 0) : 0;
  }

  // One past the last key that a row sees; not above `begin` for a row that sees none.
  __host__ __device__ int end(int row) const {
    return kMasked ? at_most(row + diagonal() + right + 1, seqlen_k) : seqlen_k;
  }

  // Blocks of kBlockN keys that some row of [first, last] sees.
  template <int kBlockN>
  __host__ __device__ BlockRange key_blocks(int first, int last) const {
    const int stop = end(last);
    return {begin(first) / kBlockN, stop > 0 ? ceil_div(stop, kBlockN) : 0};
  }

  // The same band with the roles of rows and keys exchanged.
  __host__ __device__ Band transposed() const { return {seqlen_k, seqlen_q, right, left}; }

  // Whether every row of [first_row, last_row] exists and sees every key of
  // [first_key, last_key].
  __host__ __device__ bool covers(int first_row, int last_row, int first_key, int last_key) const {
    return last_row < seqlen_q && begin(last_row) <= first_key && last_key < end(first_row);
  }

 private:
  __host__ __device__ static int at_least(int a, int b) { return a > b ? a : b; }
  __host__ __device__ static int at_most(int a, int b) { return a < b ? a : b; }
};

// Scores (rows, keys) that are out of sight become -inf. `row(i)` and `key(j)` are positions.
template <class Scores, bool kMasked, class Row, class Key>
__device__ void mask_scores(Scores& scores, const Band<kMasked>& band, Row row, Key key) {
#pragma unroll
  for (int i = 0; i < cute::size<0>(scores); ++i) {
    const int begin = band.begin(row(i));
    const int end = row(i) < band.seqlen_q ? band.end(row(i)) : begin;
#pragma unroll
    for (int j = 0; j < cute::size<1>(scores); ++j) {
      if (key(j) < begin || key(j) >= end) scores(i, j) = -INFINITY;
    }
  }
}

}  // namespace flash_attn::cuda
