// Products of tiles by mma.m16n8k16, and how a thread sees its part of an accumulator.
#pragma once

#include <cutlass/numeric_conversion.h>
#include <cutlass/numeric_types.h>

#include <cute/tensor.hpp>

#include "common/math.h"

namespace flash_attn::cuda::sm80 {

using namespace cute;

constexpr int kWarpThreads = 32;

// Warps kWarpsM x kWarpsN (those along the rows are neighbours), 16 rows and 16 columns each.
template <class Element, int kWarpsM, int kWarpsN = 1>
using Mma = TiledMMA<std::conditional_t<std::is_same_v<Element, cutlass::half_t>,
                                        MMA_Atom<SM80_16x8x16_F32F16F16F32_TN>,
                                        MMA_Atom<SM80_16x8x16_F32BF16BF16F32_TN>>,
                     Layout<Shape<Int<kWarpsM>, Int<kWarpsN>, _1>>,
                     Tile<Int<16 * kWarpsM>, Int<16 * kWarpsN>, _16>>;

// ldmatrix: operands whose sum runs along the rows of shared memory, and those where it runs
// across.
template <class Element>
using LoadRows = Copy_Atom<SM75_U32x4_LDSM_N, Element>;
template <class Element>
using LoadColumns = Copy_Atom<SM75_U16x8_LDSM_T, Element>;

// A row-major tile in shared memory whose 16-byte pieces are swizzled against bank conflicts.
template <int kRows, int kColumns>
struct SharedTile {
  static constexpr int kAtomColumns = kColumns % 64 == 0 ? 64 : 32;
  using Atom =
      decltype(composition(Swizzle<(kAtomColumns == 64 ? 3 : 2), 3, 3>{},
                           Layout<Shape<_8, Int<kAtomColumns>>, Stride<Int<kAtomColumns>, _1>>{}));
  using Rows = decltype(tile_to_shape(Atom{}, Shape<Int<kRows>, Int<kColumns>>{}));
  using Transposed =
      decltype(composition(Rows{}, make_layout(Shape<Int<kColumns>, Int<kRows>>{}, GenRowMajor{})));
  static constexpr int kSize = kRows * kColumns;
};

// The accumulator (4, M, N) of a thread as (rows, columns).
template <class Accumulator>
__device__ auto rows_and_columns(Accumulator& accumulator) {
  const auto split = logical_divide(accumulator.layout(), Shape<_2>{});
  return make_tensor(accumulator.data(), make_layout(make_layout(get<0, 1>(split), get<1>(split)),
                                                     make_layout(get<0, 0>(split), get<2>(split))));
}

// Positions of a thread's rows and columns within a tile that kWarpsM x kWarpsN warps share.
template <int kWarpsM, int kWarpsN = 1>
struct ThreadPositions {
  int first_row, first_column;

  __device__ explicit ThreadPositions(int thread)
      : first_row(thread / kWarpThreads % kWarpsM * 16 + thread % kWarpThreads / 4),
        first_column(thread / kWarpThreads / kWarpsM * 8 + thread % 4 * 2) {}
  __device__ int row(int i) const { return first_row + i % 2 * 8 + i / 2 * 16 * kWarpsM; }
  __device__ int column(int j) const { return first_column + j % 2 + j / 2 * 8 * kWarpsN; }
};

template <class Element, class Source>
__device__ auto convert(const Source& source) {
  constexpr int kSize = decltype(size(source))::value;
  auto result = make_tensor_like<Element>(source);
  cutlass::NumericArrayConverter<Element, float, kSize> converter;
  *reinterpret_cast<cutlass::Array<Element, kSize>*>(result.data()) =
      converter(*reinterpret_cast<const cutlass::Array<float, kSize>*>(source.data()));
  return result;
}

// A converted accumulator (4, M, N) as the first operand ((4, 2), M, N / 2) of another product.
template <class Fragment>
__device__ auto as_operand(Fragment& fragment) {
  const auto split = logical_divide(fragment.layout(), Shape<X, X, _2>{});
  return make_tensor(fragment.data(), make_layout(make_layout(get<0>(split), get<2, 0>(split)),
                                                  get<1>(split), get<2, 1>(split)));
}

// accumulator += a * b^T with `a` in registers; `b` (N, K) lies in shared memory.
template <class Accumulator, class A, class B, class TiledMma, class LoadB>
__device__ void multiply_registers(Accumulator& accumulator, const A& a, const B& b,
                                   const TiledMma& mma, LoadB load_b, int thread) {
  const auto threads = mma.get_slice(thread);
  auto fragment_b =
      threads.partition_fragment_B(make_tensor(b.data(), get_nonswizzle_portion(b.layout())));
  const auto copy_b = make_tiled_copy_B(load_b, mma);
  const auto copy_b_threads = copy_b.get_slice(thread);
  const auto source_b = copy_b_threads.partition_S(b);
  auto target_b = copy_b_threads.retile_D(fragment_b);
  constexpr int kSteps = decltype(size<2>(fragment_b))::value;
  CUTE_UNROLL
  for (int k = 0; k < kSteps; ++k) {
    copy(copy_b, source_b(_, _, k), target_b(_, _, k));
    gemm(mma, a(_, _, k), fragment_b(_, _, k), accumulator);
  }
}

// accumulator += a * b^T; `a` (M, K) and `b` (N, K) lie in shared memory.
template <class Accumulator, class A, class B, class TiledMma, class LoadA, class LoadB>
__device__ void multiply_shared(Accumulator& accumulator, const A& a, const B& b,
                                const TiledMma& mma, LoadA load_a, LoadB load_b, int thread) {
  const auto threads = mma.get_slice(thread);
  auto fragment_a =
      threads.partition_fragment_A(make_tensor(a.data(), get_nonswizzle_portion(a.layout())));
  auto fragment_b =
      threads.partition_fragment_B(make_tensor(b.data(), get_nonswizzle_portion(b.layout())));
  const auto copy_a = make_tiled_copy_A(load_a, mma);
  const auto copy_b = make_tiled_copy_B(load_b, mma);
  const auto copy_a_threads = copy_a.get_slice(thread);
  const auto copy_b_threads = copy_b.get_slice(thread);
  const auto source_a = copy_a_threads.partition_S(a);
  const auto source_b = copy_b_threads.partition_S(b);
  auto target_a = copy_a_threads.retile_D(fragment_a);
  auto target_b = copy_b_threads.retile_D(fragment_b);
  constexpr int kSteps = decltype(size<2>(fragment_a))::value;
  CUTE_UNROLL
  for (int k = 0; k < kSteps; ++k) {
    copy(copy_a, source_a(_, _, k), target_a(_, _, k));
    copy(copy_b, source_b(_, _, k), target_b(_, _, k));
    gemm(mma, fragment_a(_, _, k), fragment_b(_, _, k), accumulator);
  }
}

}  // namespace flash_attn::cuda::sm80
