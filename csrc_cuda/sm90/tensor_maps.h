// Tensor maps: how the tensor memory access unit (TMA) reads q, k and v.
//
// A dense tensor is (head_dim, rows, heads, batch) to it. In a varlen one the rows of a sequence
// end where the next sequence begins, and what is read beyond must be 0 as well. So the map has
// kRaggedRows rows, of which a sequence takes the last: the unit clips at their end. Two more
// dimensions move the address back, one by a stride of -1 rows modulo 2^64 that is taken
// kRaggedRows times, one forward to the sequence.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>
#include <cutlass/numeric_types.h>

#include <cute/arch/copy_sm90_desc.hpp>
#include <cute/arch/copy_sm90_tma.hpp>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "common/sequences.h"
#include "params.h"

namespace flash_attn::cuda::sm90 {

// Bytes of a box's row, the width of the swizzle, and so many columns of 16 bits.
constexpr int kBoxBytes = 128, kBoxColumns = kBoxBytes / 2;
constexpr int kRaggedRows = 1 << 30;

// The tensors of a call; kernels take it as a __grid_constant__, in which maps must lie.
struct TensorMaps {
  CUtensorMap q, k, v;
};

using CacheHint = cute::TMA::CacheHintSm90;

// Where a tile begins: `first` rows of other sequences precede the `length` rows of this one.
struct TileOrigin {
  int row, head, batch, first, length;
};

// A head or sequence that a broadcast (stride 0) repeats is 0 in the map.
__device__ inline TileOrigin tile_origin(const Strides& strides, int row, int head, int batch,
                                         int first, int length) {
  return {row, strides.head == 0 ? 0 : head, strides.batch == 0 ? 0 : batch, first, length};
}

// Start to read kRows x kColumns into `tile`, one box of kBoxColumns after the other; `barrier`
// counts the bytes, those of zeros beyond the tensor included. One thread calls it.
template <bool kVarlen, int kRows, int kColumns, class Element>
__device__ void load_tile(const CUtensorMap& map, const TileOrigin& origin, Element* tile,
                          uint64_t* barrier, CacheHint hint) {
  const auto policy = static_cast<uint64_t>(hint);
#pragma unroll
  for (int column = 0; column < kColumns; column += kBoxColumns) {
    Element* box = tile + column * kRows;
    if constexpr (kVarlen) {
      cute::SM90_TMA_LOAD_5D::copy(&map, barrier, policy, box, column,
                                   kRaggedRows - origin.length + origin.row, origin.head,
                                   origin.first + origin.length, int{kRaggedRows});
    } else {
      cute::SM90_TMA_LOAD_4D::copy(&map, barrier, policy, box, column, origin.row, origin.head,
                                   origin.batch);
    }
  }
}

// The driver's encoder, which is looked up because nothing links the driver.
inline auto tensor_map_encoder() {
  using Encode = std::remove_reference_t<decltype(cuTensorMapEncodeTiled)>*;
  static const auto encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result{};
    constexpr unsigned kVersion = 12000;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, kVersion,
                                         cudaEnableDefault, &result) != cudaSuccess ||
        result != cudaDriverEntryPointSuccess) {
      throw std::runtime_error("the CUDA driver has no cuTensorMapEncodeTiled: sm_90 needs 12.0");
    }
    return reinterpret_cast<Encode>(function);
  }();
  return encode;
}

// Map of a (batch, rows, heads, head_dim) or, varlen, (total, heads, head_dim) tensor, read
// `box_rows` rows at a time; `name` is for errors. Without rows the map is of one that is not read.
template <class Element, bool kVarlen>
CUtensorMap tensor_map(const char* name, const void* tensor, const Strides& strides, int head_dim,
                       int rows, int heads, int batch, int box_rows) {
  constexpr uint64_t kBytes = sizeof(Element), kAnyStride = 16;
  constexpr int kRank = kVarlen ? 5 : 4;
  const auto stride = [&](int elements) { return elements ? elements * kBytes : kAnyStride; };
  const auto extent = [](int size, int stride) {
    return static_cast<cuuint64_t>(size > 0 && stride != 0 ? size : 1);
  };
  if (rows > 1 && strides.row == 0 && !kVarlen) {
    throw std::runtime_error(std::string(name) + " repeats one row (stride 0): make it contiguous");
  }
  const cuuint64_t row = stride(strides.row), head = stride(strides.head);
  constexpr cuuint64_t kRaggedExtent = 0x7fff0000, kWrap = uint64_t{1} << 34;
  const cuuint64_t sizes[5] = {
      static_cast<cuuint64_t>(head_dim), kVarlen ? kRaggedRows : extent(rows, strides.row),
      extent(heads, strides.head), kVarlen ? kRaggedExtent : extent(batch, strides.batch),
      kRaggedExtent};
  const cuuint64_t steps[4] = {row, head, kVarlen ? row : stride(strides.batch), kWrap - row};
  const cuuint32_t box[5] = {kBoxBytes / kBytes, static_cast<cuuint32_t>(box_rows), 1, 1, 1};
  const cuuint32_t ones[5] = {1, 1, 1, 1, 1};
  constexpr auto kType = std::is_same_v<Element, float> ? CU_TENSOR_MAP_DATA_TYPE_FLOAT32
                         : std::is_same_v<Element, cutlass::half_t>
                             ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                             : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  CUtensorMap map{};
  const CUresult result =
      tensor_map_encoder()(&map, kType, kRank, const_cast<void*>(tensor), sizes, steps, box, ones,
                           CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                           CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    throw std::runtime_error(std::string("the CUDA driver refuses a tensor map of ") + name +
                             " (error " + std::to_string(result) + ")");
  }
  return map;
}

// Maps of a call whose kernel has tiles of kBlockM queries and kBlockN keys.
template <class Element, bool kVarlen, int kBlockM, int kBlockN>
TensorMaps tensor_maps(const AttentionParams& p) {
  // a tensor without elements may have no address
  const auto address = [&](const void* tensor) { return tensor != nullptr ? tensor : p.q; };
  return {tensor_map<Element, kVarlen>("q", p.q, p.q_strides, p.head_dim, p.seqlen_q, p.nheads_q,
                                       p.batch, kBlockM),
          tensor_map<Element, kVarlen>("k", address(p.k), p.k_strides, p.head_dim, p.seqlen_k,
                                       p.nheads_k, p.batch, kBlockN),
          tensor_map<Element, kVarlen>("v", address(p.v), p.v_strides, p.head_dim_v, p.seqlen_k,
                                       p.nheads_k, p.batch, kBlockN)};
}

}  // namespace flash_attn::cuda::sm90
