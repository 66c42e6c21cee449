// Barriers: tiles that pass from the producer to the consumers, and the consumers' turns.
#pragma once

#include <cutlass/arch/barrier.h>

#include <cute/arch/cluster_sm90.hpp>

namespace flash_attn::cuda::sm90 {

constexpr int kWarpThreads = 32, kWarpgroupThreads = 128;

using Barrier = cutlass::arch::ClusterTransactionBarrier;

// Position in a ring, and the parity of the round through it.
template <int kStages>
struct RingPosition {
  int stage = 0;
  uint32_t phase = 0;

  __device__ void advance() {
    if (++stage == kStages) stage = 0, phase ^= 1;
  }
};

// kStages tiles in shared memory that one thread fills by TMA, or several by other copies, and
// warps of matrix products read.
template <int kStages_>
struct Ring {
  static constexpr int kStages = kStages_;
  using Position = RingPosition<kStages>;
  Barrier full[kStages], empty[kStages];

  __device__ void init(int consumer_warps, int producers = 1) {
    for (int stage = 0; stage < kStages; ++stage) {
      full[stage].init(producers);
      empty[stage].init(consumer_warps);
    }
  }

  // Wait until the tile may be overwritten.
  __device__ void wait_empty(const Position& position) {
    empty[position.stage].wait(position.phase ^ 1);
  }

  // Wait until the tile may be overwritten, and announce the bytes of the next one; returns the
  // barrier that counts them.
  __device__ uint64_t* begin_fill(const Position& position, uint32_t bytes) {
    wait_empty(position);
    expect(position, bytes);
    return barrier(position);
  }

  // Announce the bytes of the next tile.
  __device__ void expect(const Position& position, uint32_t bytes) {
    full[position.stage].arrive_and_expect_tx(bytes);
  }

  // The barrier that counts what arrives in the tile.
  __device__ uint64_t* barrier(const Position& position) {
    return reinterpret_cast<uint64_t*>(&full[position.stage]);
  }

  __device__ void wait_full(const Position& position) { full[position.stage].wait(position.phase); }

  // A warp of producers has written its part by stores, which matrix products may read from here.
  __device__ void arrive_full(const Position& position) {
    cutlass::arch::fence_view_async_shared();
    __syncwarp();
    if (threadIdx.x % kWarpThreads == 0) full[position.stage].arrive();
  }

  // A consumer warp has read the tile.
  __device__ void release(const Position& position) {
    if (threadIdx.x % kWarpThreads == 0) empty[position.stage].arrive();
  }
};

// All threads of the consumer warpgroups, or of one of them, wait for each other; not in a kernel
// that has Turns.
template <int kWarpgroups>
__device__ void sync_consumers() {
  cutlass::arch::NamedBarrier::sync(kWarpgroups * kWarpgroupThreads, 0);
}
__device__ inline void sync_warpgroup(int warpgroup) {
  cutlass::arch::NamedBarrier::sync(kWarpgroupThreads, 1 + warpgroup);
}

// Ping-pong: consumer warpgroups issue their matrix products in turn, so that one computes its
// softmax while the tensor cores work for another. All take equally many turns.
template <int kWarpgroups>
class Turns {
 public:
  // The last warpgroup opens the first one's first turn.
  __device__ explicit Turns(int warpgroup) : warpgroup_(warpgroup) {
    if (warpgroup == kWarpgroups - 1) end();
  }
  __device__ void begin() const {
    cutlass::arch::NamedBarrier::sync(2 * kWarpgroupThreads, kFirstBarrier + warpgroup_);
  }
  __device__ void end() const {
    const int next = warpgroup_ == kWarpgroups - 1 ? 0 : warpgroup_ + 1;
    cutlass::arch::NamedBarrier::arrive(2 * kWarpgroupThreads, kFirstBarrier + next);
  }

 private:
  static constexpr int kFirstBarrier = 0;  // after those that CUTLASS reserves
  int warpgroup_;
};

}  // namespace flash_attn::cuda::sm90
