// The launch of a kernel over a line of blocks.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>

namespace flash_attn::cuda {

// Launch nothing for no blocks; std::runtime_error for more than a grid holds. What the runtime
// has against the launch stays its last error, which check_launch reads.
template <class Params>
void launch(void (*kernel)(Params), int64_t blocks, int threads, int shared_bytes,
            const Params& params, cudaStream_t stream) {
  if (blocks == 0) return;
  if (blocks > std::numeric_limits<int32_t>::max()) {
    throw std::runtime_error("the call needs " + std::to_string(blocks) +
                             " blocks of threads; a grid has at most 2147483647");
  }
  constexpr int kDefaultSharedBytes = 48 << 10;
  if (shared_bytes > kDefaultSharedBytes &&
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes) !=
          cudaSuccess) {
    return;
  }
  kernel<<<dim3(static_cast<unsigned>(blocks)), dim3(threads), shared_bytes, stream>>>(params);
}

}  // namespace flash_attn::cuda
