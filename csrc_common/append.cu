// The step of a KV cache before attention: new keys and values go into it, and keys and queries are
// turned by rotary position embedding (Su et al., arXiv 2104.09864, section 3.4.2).
#include "portable.h"
#include "vectors.h"

namespace flash_attn {
namespace portable {
namespace {

// Where a token stands; those behind the last sequence of a ragged call count on in it.
struct Place {
  int sequence, token, seqlen;
};

__device__ Place place_of(const Tokens& rows, int batch, int token) {
  if (rows.cu_seqlens == nullptr) {
    const int sequence = token / rows.seqlen;
    return {sequence, token - sequence * rows.seqlen, rows.seqlen};
  }
  int low = 0, high = batch - 1;  // the first sequence that ends behind the token
  while (low < high) {
    const int middle = (low + high) / 2;
    if (rows.cu_seqlens[middle + 1] > token) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  const int start = rows.cu_seqlens[low];
  return {low, token - start, rows.cu_seqlens[low + 1] - start};
}

// Elements before a head of a row; `token` counts the rows of all sequences.
__device__ uint64_t head_offset(const Tokens& rows, const Strides& strides, const Place& place,
                                int token, int head) {
  const auto row = rows.cu_seqlens == nullptr
                       ? offset(place.sequence, strides.batch) + offset(place.token, strides.row)
                       : offset(token, strides.row);
  return row + offset(head, strides.head);
}

// 8 channels of a head that begins at `x`, turned. A position outside of the table turns nothing.
template <class Element>
__device__ Vector<Element> turned(const AppendParams& p, const Element* x, int channel,
                                  int64_t position) {
  const auto own = Vector<Element>::load(x + channel);
  if (channel >= p.rotary_dim || position < 0 || position >= p.rotary_rows) return own;
  const auto* cos = static_cast<const Element*>(p.rotary_cos) + offset(position, p.cos_stride);
  const auto* sin = static_cast<const Element*>(p.rotary_sin) + offset(position, p.sin_stride);
  const int half = p.rotary_dim / 2;
  auto partners = own;
  if (!p.interleaved && half % kVector == 0) {
    partners = Vector<Element>::load(x + channel + (channel < half ? half : -half));
  }
  Vector<Element> result = own;
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    const int c = channel + i;
    if (c >= p.rotary_dim) break;
    const bool first = p.interleaved ? i % 2 == 0 : c < half;
    const int angle = p.interleaved ? c / 2 : first ? c : c - half;
    float partner;
    if (p.interleaved) {
      partner = to_float(own.values[i ^ 1]);
    } else if (half % kVector == 0) {
      partner = to_float(partners.values[i]);
    } else {
      partner = to_float(x[first ? c + half : c - half]);
    }
    const float turn = to_float(sin[angle]);
    result.values[i] = from_float<Element>(to_float(own.values[i]) * to_float(cos[angle]) +
                                           partner * (first ? -turn : turn));
  }
  return result;
}

// Row and slot of the cache that a new token goes to; a negative slot if there is no room.
struct Slot {
  int row, slot;
};

__device__ Slot slot_of(const AppendParams& p, const Place& place) {
  constexpr Slot kNone{0, -1};
  const int64_t position = int64_t{p.cache_seqlens[place.sequence]} + place.token;
  const int capacity = p.page_size * p.max_pages;
  if (place.token >= place.seqlen || position < 0 || position >= capacity) return kNone;
  int row = place.sequence, slot = static_cast<int>(position);
  if (p.block_table != nullptr) {
    const int page = slot / p.page_size;
    row = p.block_table[offset(place.sequence, p.max_pages) + page];
    slot -= page * p.page_size;
  } else if (p.cache_batch_idx != nullptr) {
    row = p.cache_batch_idx[place.sequence];
  }
  return row < 0 || row >= p.cache_rows ? kNone : Slot{row, slot};
}

// A thread has 8 channels of a query, of a new key or of a new value, or the length of a sequence.
template <class Element>
__global__ void __launch_bounds__(kThreads) append_kernel(AppendParams p) {
  const int vectors = p.head_dim / kVector, vectors_v = p.head_dim_v / kVector;
  const int queries = p.queries.tokens * p.queries.nheads * vectors;
  const int rows_new = p.appended.tokens * p.appended.nheads;
  int64_t index = static_cast<int64_t>(offset(blockIdx.x, kThreads)) + threadIdx.x;

  if (index < queries) {
    const auto item = static_cast<uint32_t>(index);
    const int row = item / vectors, channel = item % vectors * kVector;
    const int token = row / p.queries.nheads, head = row % p.queries.nheads;
    const auto place = place_of(p.queries, p.batch, token);
    const int64_t position =
        int64_t{p.first_position[place.sequence]} + (p.follows ? place.token : 0);
    const auto* x =
        static_cast<const Element*>(p.q) + head_offset(p.queries, p.q_strides, place, token, head);
    turned(p, x, channel, position)
        .store(static_cast<Element*>(p.rotated_q) +
               head_offset(p.queries, p.rotated_q_strides, place, token, head) + channel);
    return;
  }
  index -= queries;
  const bool is_key = index < rows_new * vectors;
  if (!is_key) index -= rows_new * vectors;
  if (is_key || index < rows_new * vectors_v) {
    const int per_row = is_key ? vectors : vectors_v;
    const auto item = static_cast<uint32_t>(index);
    const int row = item / per_row, channel = item % per_row * kVector;
    const int token = row / p.appended.nheads, head = row % p.appended.nheads;
    const auto place = place_of(p.appended, p.batch, token);
    const auto to = slot_of(p, place);
    if (to.slot < 0) return;
    const auto& strides = is_key ? p.k_strides : p.v_strides;
    const auto& new_strides = is_key ? p.k_new_strides : p.v_new_strides;
    const auto* x = static_cast<const Element*>(is_key ? p.k_new : p.v_new) +
                    head_offset(p.appended, new_strides, place, token, head);
    const int64_t position = int64_t{p.first_position[place.sequence]} + place.token;
    const auto value =
        is_key ? turned(p, x, channel, position) : Vector<Element>::load(x + channel);
    value.store(static_cast<Element*>(is_key ? p.k_cache : p.v_cache) +
                offset(to.row, strides.batch) + offset(to.slot, strides.row) +
                offset(head, strides.head) + channel);
    return;
  }
  index -= rows_new * vectors_v;
  if (index >= p.batch) return;
  const auto* cu_seqlens = p.appended.cu_seqlens;
  p.seqused_k[index] =
      p.cache_seqlens[index] +
      (cu_seqlens == nullptr ? p.appended.seqlen : cu_seqlens[index + 1] - cu_seqlens[index]);
}

}  // namespace
}  // namespace portable

void run_append(const AppendParams& p, void* stream) {
  using namespace portable;
  const int64_t vectors = p.head_dim / kVector, vectors_v = p.head_dim_v / kVector;
  const int64_t rows_new = int64_t{p.appended.tokens} * p.appended.nheads;
  const int64_t items = int64_t{p.queries.tokens} * p.queries.nheads * vectors +
                        rows_new * (vectors + vectors_v) + p.batch;
  for_element(p.dtype, [&](auto element) {
    append_kernel<decltype(element)><<<static_cast<unsigned>(blocks_for(items)), kThreads, 0,
                                       static_cast<cudaStream_t>(stream)>>>(p);
  });
  check_launch("the launch of append");
}

}  // namespace flash_attn
