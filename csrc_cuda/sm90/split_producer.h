// The producer of a split: reads tiles of keys and values, from caches or pages.
#pragma once

#include "common/copy.h"
#include "common/split_work.h"
#include "pipeline.h"
#include "tensor_maps.h"

namespace flash_attn::cuda::sm90 {

// Rows of a box of TMA are those that the swizzle repeats itself after, or more.
constexpr int kLeastBoxRows = 8;

// A tile as boxes of kBoxColumns columns with the swizzle of TMA, for copies by threads.
template <int kRows, int kColumns>
using CopyLayout = decltype(cute::tile_to_shape(
    cute::composition(cute::Swizzle<3, 3, 3>{},
                      cute::Layout<cute::Shape<cute::_8, cute::Int<kBoxColumns>>,
                                   cute::Stride<cute::Int<kBoxColumns>, cute::_1>>{}),
    cute::Shape<cute::Int<kRows>, cute::Int<kColumns>>{}));

// Rows of a box of which blocks of kBlockN rows are made, none of it beyond the end of a page; 0
// where there is no such box.
template <int kBlockN>
int box_rows_of(const SplitParams& p) {
  if (!p.paged) return kBlockN;
  if (p.leftpad_k != nullptr) return 0;  // blocks would not begin where pages do
  int rows = kBlockN;
  while (p.page_size % rows != 0) rows /= 2;
  return rows < kLeastBoxRows ? 0 : rows;
}

// Map of caches or pages that is read `box_rows` rows at a time.
template <class Element>
CUtensorMap cache_map(const char* name, const SplitParams& p, const void* tensor,
                      const Strides& strides, int head_dim, int box_rows) {
  if (box_rows == 0) return {};
  // whose rows a call may read the host has seen to
  constexpr int kAnyRow = std::numeric_limits<int32_t>::max();
  return tensor_map<Element, false>(name, tensor, strides, head_dim,
                                    p.paged ? p.page_size : p.seqlen_k, p.nheads_k, kAnyRow,
                                    box_rows);
}

// A warp whose lanes read the boxes of a tile by TMA.
template <class Instance>
class BoxLoader {
 public:
  using Element = typename Instance::Element;
  static constexpr int kBlockN = Instance::kBlockN, kHeadDim = Instance::kHeadDim;
  static_assert(kBlockN / kLeastBoxRows <= kWarpThreads);

  __device__ BoxLoader(const typename Instance::Work& work,
                       const typename Instance::Arguments& arguments)
      : work_(work),
        arguments_(arguments),
        first_row_(threadIdx.x % kWarpThreads * arguments.box_rows),
        // caches are read once, but by the blocks of a sequence with many queries
        hint_(split_row_blocks(arguments.params, Instance::kBlockM) > 1 ? CacheHint::EVICT_LAST
                                                                        : CacheHint::EVICT_FIRST) {}

  // Page or row of the caches that has this lane's rows of a block.
  __device__ int find(int block) const {
    const SplitParams& p = arguments_.params;
    if constexpr (!Instance::kFeatures.paged) {
      return work_.cache_row(p);
    } else {
      const int row = min(block * kBlockN + first_row_, work_.band.seqlen_k - 1);
      return p.block_table[int64_t{work_.batch} * p.block_table_stride + row / p.page_size];
    }
  }

  // Read a block of keys or values; rows of boxes beyond the sequence keep what they have.
  __device__ void load(typename Instance::Shared& shared, typename Instance::Ring::Position& tile,
                       const CUtensorMap& map, const Strides& strides, int block, int place) {
    const SplitParams& p = arguments_.params;
    const int rows = min(work_.band.seqlen_k - block * kBlockN, kBlockN);
    const int boxes = ceil_div(rows, arguments_.box_rows);
    uint64_t* barrier = shared.ring.barrier(tile);
    shared.ring.wait_empty(tile);
    if (threadIdx.x % kWarpThreads == 0) {
      const int bytes = boxes * arguments_.box_rows * kHeadDim * static_cast<int>(sizeof(Element));
      shared.ring.expect(tile, bytes);
    }
    __syncwarp();
    if (first_row_ < rows) {
      int row = work_.first_key + block * kBlockN + first_row_;
      if constexpr (Instance::kFeatures.paged) row %= p.page_size;
      const auto origin = tile_origin(strides, row, work_.head_k, place, 0, 0);
#pragma unroll
      for (int column = 0; column < kHeadDim; column += kBoxColumns) {
        Element* box = shared.tiles[tile.stage] + column * kBlockN + first_row_ * kBoxColumns;
        cute::SM90_TMA_LOAD_4D::copy(&map, barrier, static_cast<uint64_t>(hint_), box, column,
                                     origin.row, origin.head, origin.batch);
      }
    }
    tile.advance();
  }

 private:
  const typename Instance::Work& work_;
  const typename Instance::Arguments& arguments_;
  int first_row_;
  CacheHint hint_;
};

// Read the blocks of a split by TMA, the keys of each before its values; one warp calls it. Pages
// are looked up a block ahead.
template <class Instance>
__device__ void produce_boxes(typename Instance::Shared& shared,
                              const typename Instance::Arguments& arguments,
                              const typename Instance::Work& work) {
  const SplitParams& p = arguments.params;
  BoxLoader<Instance> loader(work, arguments);
  typename Instance::Ring::Position tile;
  int block = work.blocks.end - 1;
  int place = loader.find(block);
  for (; block >= work.blocks.begin; --block) {
    const int next_place = loader.find(max(block - 1, work.blocks.begin));
    loader.load(shared, tile, arguments.maps.k, p.k_strides, block, place);
    loader.load(shared, tile, arguments.maps.v, p.v_strides, block, place);
    place = next_place;
  }
}

// The same by copies of 16 bytes from pages of any size; a warpgroup calls it. Rows beyond the
// sequence become 0.
template <class Instance>
__device__ void produce_rows(typename Instance::Shared& shared,
                             const typename Instance::Arguments& arguments,
                             const typename Instance::Work& work) {
  using Element = typename Instance::Element;
  constexpr int kBlockN = Instance::kBlockN, kHeadDim = Instance::kHeadDim;
  using Threads = TileThreads<kBlockN, kHeadDim, kWarpgroupThreads>;
  const SplitParams& p = arguments.params;
  typename Instance::Ring::Position tile;
  const auto load = [&](const auto& rows, int block, int head_dim) {
    shared.ring.wait_empty(tile);
    load_tile<Threads, CopyLayout<kBlockN, kHeadDim>>(shared.tiles[tile.stage], rows,
                                                      block * kBlockN, work.band.seqlen_k, head_dim,
                                                      static_cast<int>(threadIdx.x));
    cutlass::arch::cpasync_barrier_arrive_noinc(shared.ring.barrier(tile));
    tile.advance();
  };
  const auto keys = work.template cached<true, Element>(p, p.k, p.k_strides);
  const auto values = work.template cached<true, Element>(p, p.v, p.v_strides);
  for (int block = work.blocks.end - 1; block >= work.blocks.begin; --block) {
    load(keys, block, p.head_dim);
    load(values, block, p.head_dim_v);
  }
}

}  // namespace flash_attn::cuda::sm90
