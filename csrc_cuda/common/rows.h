// Addresses of elements of a head in global memory, by row and column.
//
// A row's offset within its sequence or page has 31 bits in bytes, as the binding checks.
#pragma once

#include <cstdint>

namespace flash_attn::cuda {

// Rows `stride` elements apart.
template <class Element>
struct DenseRows {
  Element* first;
  int stride;

  __device__ Element* operator()(int row, int column) const {
    return first + (row * stride + column);
  }
};

// Rows from first_row on in pages of any size that a block table names.
template <class Element>
struct PagedRows {
  Element* first;
  int stride, page_size, page_stride;
  const int* pages;
  int first_row;

  __device__ Element* operator()(int row, int column) const {
    row += first_row;
    const int page = row / page_size;
    return first + int64_t{pages[page]} * page_stride +
           ((row - page * page_size) * stride + column);
  }
};

// The rows of `heads` query heads that share a key head, heads fastest.
template <class Element>
struct PackedRows {
  Element* first;
  int stride, head_stride, heads;

  __device__ Element* operator()(int row, int column) const {
    const int position = row / heads;
    return first + int64_t{row - position * heads} * head_stride + (position * stride + column);
  }
};

}  // namespace flash_attn::cuda
