// Products of tiles by the matrix instructions of warpgroups (wgmma).
#pragma once

#include <cutlass/numeric_conversion.h>
#include <cutlass/numeric_types.h>

#include <cute/atom/mma_atom.hpp>
#include <cute/tensor.hpp>

namespace flash_attn::cuda::sm90 {

using namespace cute;

// Rows of a warpgroup's product.
constexpr int kWarpgroupRows = 64;

// kStages tiles in shared memory as load_tile leaves them: boxes of 64 columns, one after the
// other, swizzled over 128 bytes. Tiles are (rows, columns, stage), or (columns, rows, stage) where
// a product sums over rows.
template <class Element, int kRows, int kColumns, int kStages>
using RowsLayout = decltype(tile_to_shape(GMMA::Layout_K_SW128_Atom<Element>{},
                                          Shape<Int<kRows>, Int<kColumns>, Int<kStages>>{}));
template <class Element, int kRows, int kColumns, int kStages>
using ColumnsLayout =
    decltype(tile_to_shape(GMMA::Layout_MN_SW128_Atom<Element>{},
                           Shape<Int<kColumns>, Int<kRows>, Int<kStages>>{}, Step<_2, _1, _3>{}));

// Q times K transposed, both in shared memory, for kBlockM / 64 warpgroups.
template <class Element, int kBlockM, int kBlockN, int kHeadDim>
using ScoreMma = decltype(make_tiled_mma(
    GMMA::ss_op_selector<Element, Element, float,
                         Shape<Int<kBlockM>, Int<kBlockN>, Int<kHeadDim>>>(),
    Layout<Shape<Int<kBlockM / kWarpgroupRows>, _1, _1>>{}));

// P, in registers, times V, in shared memory.
template <class Element, int kBlockM, int kBlockN, int kHeadDim>
using OutMma = decltype(make_tiled_mma(
    GMMA::rs_op_selector<Element, Element, float, Shape<Int<kBlockM>, Int<kHeadDim>, Int<kBlockN>>,
                         GMMA::Major::K, GMMA::Major::MN>(),
    Layout<Shape<Int<kBlockM / kWarpgroupRows>, _1, _1>>{}));

// A (rows, sum) times B (columns, sum) transposed, both in shared memory with neighbours across the
// sum; kWarpgroupsN of the warpgroups share rows.
template <class Element, int kRows, int kColumns, int kSum, int kWarpgroupsN>
using AcrossMma = decltype(make_tiled_mma(
    GMMA::ss_op_selector<Element, Element, float,
                         Shape<Int<kWarpgroupRows>, Int<kColumns / kWarpgroupsN>, Int<kSum>>,
                         GMMA::Major::MN, GMMA::Major::MN>(),
    Layout<Shape<Int<kRows / kWarpgroupRows>, Int<kWarpgroupsN>, _1>>{}));

// Start c += a * b, or with kInit c = a * b; warpgroup_wait completes it.
template <bool kInit, class Mma, class A, class B, class C>
__device__ void start_product(const Mma& mma, const A& a, const B& b, C& c) {
  auto product = mma;
  product.accumulate_ = kInit ? GMMA::ScaleOut::Zero : GMMA::ScaleOut::One;
  warpgroup_fence_operand(c);
  warpgroup_arrive();
#pragma unroll
  for (int k = 0; k < size<2>(a); ++k) {
    cute::gemm(product, a(_, _, k), b(_, _, k), c);
    product.accumulate_ = GMMA::ScaleOut::One;
  }
  warpgroup_commit_batch();
  warpgroup_fence_operand(c);
}

// An accumulator ((2, 2, n), 1, 1) of a thread as (rows, columns).
template <class Accumulator>
__device__ auto rows_and_columns(Accumulator& accumulator) {
  constexpr int kColumns = decltype(size(accumulator))::value / 2;
  return make_tensor(accumulator.data(),
                     Layout<Shape<_2, Shape<_2, Int<kColumns / 2>>>, Stride<_2, Stride<_1, _4>>>{});
}

// Convert an accumulator to `operand`, the first one of a product that sums over its columns: a
// thread holds both in the same order.
template <class Accumulator, class Operand>
__device__ void convert_to_operand(const Accumulator& accumulator, Operand& operand) {
  using Element = typename Operand::value_type;
  constexpr int kSize = decltype(size(accumulator))::value;
  const cutlass::NumericArrayConverter<Element, float, kSize> converter;
  *reinterpret_cast<cutlass::Array<Element, kSize>*>(operand.data()) =
      converter(*reinterpret_cast<const cutlass::Array<float, kSize>*>(accumulator.data()));
}

// Rows and columns of a thread within its warpgroup's 64 rows.
struct ThreadPositions {
  int first_row, first_column;

  __device__ explicit ThreadPositions(int thread)
      : first_row(thread % 128 / 32 * 16 + thread % 32 / 4), first_column(thread % 4 * 2) {}
  __device__ int row(int i) const { return first_row + i * 8; }
  __device__ int column(int j) const { return first_column + j % 2 + j / 2 * 8; }
};

}  // namespace flash_attn::cuda::sm90
