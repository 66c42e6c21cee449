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

// kStages tiles in shared memory as load_tile leaves them: boxes of 128 bytes along a row, or of 64
// where it has no more, one after the other, swizzled over as many. Tiles are (rows, columns,
// stage), or (columns, rows, stage) where a product sums over rows; those of 8 bits are transposed
// in memory before, since a product takes both operands with neighbours along the sum alone.
template <class Element, int kColumns>
using RowsAtom =
    std::conditional_t<kColumns * sizeof(Element) % 128 == 0, GMMA::Layout_K_SW128_Atom<Element>,
                       GMMA::Layout_K_SW64_Atom<Element>>;
template <class Element, int kRows, int kColumns, int kStages>
using RowsLayout = decltype(tile_to_shape(RowsAtom<Element, kColumns>{},
                                          Shape<Int<kRows>, Int<kColumns>, Int<kStages>>{}));
template <class Element, int kRows, int kColumns, int kStages>
auto columns_layout() {
  if constexpr (sizeof(Element) == 1) {
    return RowsLayout<Element, kColumns, kRows, kStages>{};
  } else {
    return tile_to_shape(GMMA::Layout_MN_SW128_Atom<Element>{},
                         Shape<Int<kColumns>, Int<kRows>, Int<kStages>>{}, Step<_2, _1, _3>{});
  }
}
template <class Element, int kRows, int kColumns, int kStages>
using ColumnsLayout = decltype(columns_layout<Element, kRows, kColumns, kStages>());

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
                         GMMA::Major::K, sizeof(Element) == 1 ? GMMA::Major::K : GMMA::Major::MN>(),
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

// What a thread holds of the first operand of a product that sums over kSum, in registers.
template <class Element, int kSum>
using OperandLayout = Layout<Shape<Shape<Int<4 / sizeof(Element)>, _2, _2>, _1,
                                   Int<kSum* static_cast<int>(sizeof(Element)) / 32>>>;

// Convert an accumulator to `operand`, the first one of a product that sums over its columns: a
// thread holds both in the same order. Of 8 bits that is so for a permutation of the columns, which
// fp8_transpose.h describes.
template <class Accumulator, class Operand>
__device__ void convert_to_operand(const Accumulator& accumulator, Operand& operand) {
  using Element = typename Operand::value_type;
  constexpr int kSize = decltype(size(accumulator))::value;
  if constexpr (sizeof(Element) == 1) {
    const cutlass::NumericArrayConverter<Element, float, 4> converter;
    auto* words = reinterpret_cast<cutlass::Array<Element, 4>*>(operand.data());
#pragma unroll
    for (int n = 0; n < kSize / 4; ++n) {
      // two pairs of neighbours of one of two rows
      const int first = n / 2 * 8 + n % 2 * 2;
      words[n] = converter({accumulator(first), accumulator(first + 1), accumulator(first + 4),
                            accumulator(first + 5)});
    }
  } else {
    const cutlass::NumericArrayConverter<Element, float, kSize> converter;
    *reinterpret_cast<cutlass::Array<Element, kSize>*>(operand.data()) =
        converter(*reinterpret_cast<const cutlass::Array<float, kSize>*>(accumulator.data()));
  }
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
