// Copies of tiles of rows between global and shared memory.
#pragma once

#include <cute/tensor.hpp>

namespace flash_attn::cuda {

// How kThreads threads share a tile of kRows x kColumns 16-bit elements, 16 bytes each at a time:
// neighbours along a row as wide as the atom of the shared-memory swizzle.
template <int kRows_, int kColumns_, int kThreads>
struct TileThreads {
  static constexpr int kRows = kRows_, kColumns = kColumns_, kElements = 8;
  static constexpr int kAtomColumns = kColumns % 64 == 0 ? 64 : 32;
  static constexpr int kThreadsPerRow = kAtomColumns / kElements;
  static constexpr int kRowStep = kThreads / kThreadsPerRow;
  static constexpr int kPasses = (kRows + kRowStep - 1) / kRowStep;
  static_assert(kRowStep % 8 == 0, "a step keeps its place in the swizzle");

  __device__ static int row(int thread) { return thread / kThreadsPerRow; }
  __device__ static int column(int thread) { return thread % kThreadsPerRow * kElements; }

  // Call visit(row, column, offset) for every 16 bytes of `thread`; `offset` is that of `Layout`.
  template <class Layout, class Visit>
  __device__ static void for_each(int thread, Visit visit) {
    const int base = Layout{}(row(thread), column(thread));
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      const int r = row(thread) + pass * kRowStep;
      if (kRows % kRowStep != 0 && r >= kRows) break;
#pragma unroll
      for (int c = 0; c < kColumns; c += kAtomColumns) {
        visit(r, column(thread) + c, base + Layout{}(pass * kRowStep, c));
      }
    }
  }
};

// Start to copy rows first_row to first_row + kRows - 1 into `tile`; rows from num_rows (at least
// 1) on, and columns from num_columns on, become 0.
template <class Threads, class Layout, class Element, class Rows>
__device__ void load_tile(Element* tile, const Rows& rows, int first_row, int num_rows,
                          int num_columns, int thread) {
  Threads::template for_each<Layout>(thread, [&](int row, int column, int offset) {
    const bool valid = first_row + row < num_rows && column < num_columns;
    // memory is not read where `valid` is false, but block tables are
    const auto* source = rows(min(first_row + row, num_rows - 1), column);
    cute::SM80_CP_ASYNC_CACHEGLOBAL_ZFILL<cute::uint128_t>::copy(
        *reinterpret_cast<const cute::uint128_t*>(source),
        *reinterpret_cast<cute::uint128_t*>(tile + offset), valid);
  });
}

// Copy `tile` to rows first_row on, as far as rows and columns exist.
template <class Threads, class Layout, class Element, class Rows>
__device__ void store_tile(const Element* tile, const Rows& rows, int first_row, int num_rows,
                           int num_columns, int thread) {
  Threads::template for_each<Layout>(thread, [&](int row, int column, int offset) {
    if (first_row + row >= num_rows || column >= num_columns) return;
    *reinterpret_cast<uint4*>(rows(first_row + row, column)) =
        *reinterpret_cast<const uint4*>(tile + offset);
  });
}

}  // namespace flash_attn::cuda
