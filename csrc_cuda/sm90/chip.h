// What of the current device the launch of a persistent kernel follows.
#pragma once

#include <cuda_runtime.h>

#include <optional>

namespace flash_attn::cuda::sm90 {

struct Chip {
  int multiprocessors = 0, cache_bytes = 0;
};

// Nothing where the runtime fails, whose error check_launch reads.
inline std::optional<Chip> current_chip() {
  int device = 0;
  Chip chip;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&chip.multiprocessors, cudaDevAttrMultiProcessorCount, device) !=
          cudaSuccess ||
      cudaDeviceGetAttribute(&chip.cache_bytes, cudaDevAttrL2CacheSize, device) != cudaSuccess) {
    return std::nullopt;
  }
  return chip;
}

}  // namespace flash_attn::cuda::sm90
