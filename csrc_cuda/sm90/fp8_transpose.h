// The transposition of 8-bit values: wgmma takes them with the keys along rows only, and TMA brings
// them as they lie in memory, with the head dim along rows.
//
// After FlashAttention-3 (Shah et al., 2024, section 3.3): ldmatrix.trans transposes pairs of
// bytes, a byte permutation the bytes of the pairs, and the order of keys and columns that comes of
// it is left as it is, since it is the order in which a thread holds probabilities:
//
// - of 16 keys, place 4 t + 2 j + b has key 8 j + 2 t + b (t < 4, j < 2, b < 2), which thread t of
//   four neighbours holds in the accumulator of a product;
// - of 16 columns, place 8 b + g has column 2 g + b (g < 8, b < 2).
#pragma once

#include <cute/arch/copy_sm75.hpp>
#include <cute/arch/copy_sm90.hpp>

#include "matrix.h"
#include "pipeline.h"
#include "work.h"

namespace flash_attn::cuda::sm90 {

// Columns of the output in that order: of each 32 a thread has two runs of four.
struct Fp8Columns {
  static constexpr int kStep = 2;
  __device__ static constexpr int first(int n) { return n / 2 * 4 + n % 2; }
  // Neighbours join their runs: the even one has those of the first 16 columns, the odd one the
  // rest.
  __device__ static void exchange(uint32_t (&words)[4]) {
    const bool odd = threadIdx.x % 2;
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const uint32_t other = __shfl_xor_sync(0xffffffffu, odd ? words[n] : words[n + 2], 1);
      if (odd) {
        words[n] = other;
      } else {
        words[n + 2] = other;
      }
    }
  }
  __device__ static int column(int quarter) { return quarter % 2 * 16 + quarter / 2 * 8; }
};

// Pairs of bytes (columns 2 g, 2 g + 1) of keys 2 t, 2 t + 1 in `low` and 8 keys on in `high`
// become those four keys of column 2 g in `low` and of column 2 g + 1 in `high`.
__device__ inline void split_columns(uint32_t& low, uint32_t& high) {
  const uint32_t even = __byte_perm(low, high, 0x6420), odd = __byte_perm(low, high, 0x7531);
  low = even, high = odd;
}

// Transpose a tile, (keys, head dim) in `KeyRows` to (head dim, keys) in `ColumnRows`; the tile's
// units of 64 keys x 16 columns are shared among kWarps warps.
template <class KeyRows, class ColumnRows, int kKeys, int kColumns, int kWarps, class Element>
__device__ void transpose_tile(const Element* tile, Element* transposed, int warp) {
  constexpr int kUnitKeys = 64, kUnitColumns = 16, kHalves = 2;
  constexpr int kAcross = kColumns / kUnitColumns;
  static_assert(kKeys % kUnitKeys == 0 && kColumns % kUnitColumns == 0);
  const int lane = threadIdx.x % kWarpThreads;
#pragma unroll 1
  for (int unit = warp; unit < kKeys / kUnitKeys * kAcross; unit += kWarps) {
    const int column = unit % kAcross * kUnitColumns, key = unit / kAcross * kUnitKeys;
    uint32_t words[kHalves][4];
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      const auto* row = tile + KeyRows{}(key + half * kWarpThreads + lane, column, 0);
      cute::SM75_U16x8_LDSM_T::copy(*reinterpret_cast<const cute::uint128_t*>(row), words[half][0],
                                    words[half][1], words[half][2], words[half][3]);
    }
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      split_columns(words[half][0], words[half][1]);
      split_columns(words[half][2], words[half][3]);
      auto* row = transposed +
                  ColumnRows{}(column + lane % 16, key + half * kWarpThreads + lane / 16 * 16, 0);
      cute::SM90_U32x4_STSM_N::copy(words[half][0], words[half][1], words[half][2], words[half][3],
                                    *reinterpret_cast<cute::uint128_t*>(row));
    }
  }
}

// Transpose, for every tile of the walk, the values in the order in which the producer reads them.
template <class Instance>
__device__ void transpose_values(typename Instance::Shared& shared,
                                 const typename Instance::Arguments& arguments, int warp) {
  using Tile = typename Instance::Tile;
  using KeyRows = typename Instance::KeyLayout;
  using ColumnRows = typename Instance::ValueLayout;
  typename Instance::KeyRing::Position value, transposed;
  for (TileWalk walk(arguments.order); walk.valid(); walk.next()) {
    const typename Instance::Work work(arguments.params, arguments.order[walk.tile()]);
    if (!work.has_rows() || !work.has_keys()) continue;
    for (int block = work.blocks.begin; block < work.blocks.end; ++block) {
      shared.value_ring.wait_full(value);
      shared.transposed_ring.wait_empty(transposed);
      transpose_tile<KeyRows, ColumnRows, Tile::kBlockN, Instance::kHeadDim,
                     Instance::kTransposeWarps>(shared.v[value.stage],
                                                shared.v_transposed[transposed.stage], warp);
      shared.transposed_ring.arrive_full(transposed);
      shared.value_ring.release(value);
      value.advance();
      transposed.advance();
    }
  }
}

}  // namespace flash_attn::cuda::sm90
