// The dropout mask as a function of position: the stream of flash_attn/backends/dropout.py.
#pragma once

#include <cute/tensor.hpp>

#include "params.h"
#include "philox.h"

namespace flash_attn::cuda {

// Keys 16 apart, in an aligned group of 64, share a Philox block.
constexpr int kDropoutGroup = 64, kDropoutStep = 16;

// The mask of one head of one sequence.
struct Dropout {
  uint2 key;
  uint32_t batch_head, offset, threshold;

  __device__ Dropout(const AttentionParams& p, int batch, int head)
      : batch_head(batch * p.nheads_q + head),
        offset(static_cast<uint32_t>(p.rng_state[1])),
        threshold(p.dropout_threshold) {
    const uint64_t seed = p.rng_state[0];
    key = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  }

  // Bit n tells whether the element at `row` and key group * 64 + 16 * n + residue is kept.
  __device__ uint32_t kept(int row, int group, int residue) const {
    const uint4 words = philox({static_cast<uint32_t>(group * kDropoutStep + residue),
                                static_cast<uint32_t>(row), batch_head, offset},
                               key);
    return (words.x >= threshold) | (words.y >= threshold) << 1 | (words.z >= threshold) << 2 |
           (words.w >= threshold) << 3;
  }
};

// No dropout.
struct NoDropout {
  __device__ NoDropout(const AttentionParams&, int, int) {}
};

template <class Probs, class Row>
__device__ void drop(Probs&, const NoDropout&, Row, int) {}

// Zero what is dropped of `probs` (rows, keys), in the order of an accumulator of 16-bit matrix
// instructions: a thread's keys are first_key + {0, 1}, and so on in steps of 8, where first_key is
// that of the thread.
template <class Probs, class Row>
__device__ void drop(Probs& probs, const Dropout& dropout, Row row, int first_key) {
  constexpr int kKeys = decltype(cute::size<1>(probs))::value;
  constexpr int kGroupKeys = kKeys < 16 ? kKeys : 16;
  static_assert(kKeys % kGroupKeys == 0);
  const int shift = first_key / kDropoutStep % 4;
#pragma unroll
  for (int i = 0; i < cute::size<0>(probs); ++i) {
#pragma unroll
    for (int group = 0; group < kKeys / kGroupKeys; ++group) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const int residue = first_key % kDropoutStep + n % 2 + n / 2 * 8;
        const uint32_t kept =
            dropout.kept(row(i), first_key / kDropoutGroup + group, residue) >> shift;
#pragma unroll
        for (int word = 0; word < kGroupKeys / 4; ++word) {
          if (!(kept >> word & 1)) probs(i, group * kGroupKeys + word * 4 + n) = 0.f;
        }
      }
    }
  }
}

// The mask of a tile of kBlockN keys x kBlockM rows in shared memory, for threads whose keys do not
// share Philox blocks.
template <int kBlockM, int kBlockN, int kThreads>
struct DropoutTile {
  static constexpr int kGroups = (kBlockN + kDropoutGroup - 1) / kDropoutGroup;
  uint8_t kept[kGroups][kDropoutStep][kBlockM];

  // `first_key` is a multiple of kBlockN.
  __device__ void fill(const Dropout& dropout, int first_row, int first_key, int thread) {
    for (int n = thread; n < kGroups * kDropoutStep * kBlockM; n += kThreads) {
      const int row = n % kBlockM, residue = n / kBlockM % kDropoutStep;
      const int group = n / (kBlockM * kDropoutStep);
      kept[group][residue][row] =
          dropout.kept(first_row + row, first_key / kDropoutGroup + group, residue);
    }
  }

  // Whether the element at `row` and `key` of the tile is kept.
  __device__ bool keeps(int row, int first_key, int key) const {
    const int place = first_key % kDropoutGroup + key;
    return kept[place / kDropoutGroup][place % kDropoutStep][row] >> (place / kDropoutStep % 4) & 1;
  }
};

}  // namespace flash_attn::cuda
