// Addresses of the rows of a head in global memory.
#pragma once

#include <cstdint>

namespace flash_attn::cuda {

// Rows `stride` elements apart.
template <class Element>
struct DenseRows {
  Element* first;
  int stride;

  __device__ Element* operator()(int row) const { return first + int64_t{row} * stride; }
};

// Rows in pages of any size that a block table names.
template <class Element>
struct PagedRows {
  Element* first;
  int stride, page_size, page_stride;
  const int* pages;

  __device__ Element* operator()(int row) const {
    const int page = row / page_size;
    return first + int64_t{pages[page]} * page_stride + int64_t{row - page * page_size} * stride;
  }
};

// The rows of `heads` query heads that share a key head, heads fastest.
template <class Element>
struct PackedRows {
  Element* first;
  int stride, head_stride, heads;

  __device__ Element* operator()(int row) const {
    const int position = row / heads;
    return first + int64_t{position} * stride + int64_t{row - position * heads} * head_stride;
  }
};

}  // namespace flash_attn::cuda
