// 16-bit elements, 16 bytes of them at a time, and launches, for the portable kernels.
#pragma once

#ifdef __HIP__
#include <hip/hip_bf16.h>
#include <hip/hip_fp16.h>
#include <hip/hip_runtime.h>
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#endif

#include "device.h"
#include "params.h"

namespace flash_attn::portable {

using Float16 = __half;
#ifdef __HIP__
using BFloat16 = __hip_bfloat16;
#else
using BFloat16 = __nv_bfloat16;
#endif

constexpr int kVector = 8;  // 16-bit elements of a load
constexpr int kThreads = 256;

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(Float16 x) { return __half2float(x); }
__device__ inline float to_float(BFloat16 x) { return __bfloat162float(x); }

// Rounded to nearest even.
template <class Element>
__device__ Element from_float(float x);
template <>
__device__ inline Float16 from_float(float x) {
  return __float2half_rn(x);
}
template <>
__device__ inline BFloat16 from_float(float x) {
  return __float2bfloat16(x);
}

// Neighbours in memory that begin at a multiple of 16 bytes.
template <class Element>
struct alignas(16) Vector {
  Element values[kVector];

  __device__ static Vector load(const Element* source) {
    Vector loaded;
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      reinterpret_cast<uint4*>(&loaded)[part] = reinterpret_cast<const uint4*>(source)[part];
    }
    return loaded;
  }
  __device__ void store(Element* target) const {
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      reinterpret_cast<uint4*>(target)[part] = reinterpret_cast<const uint4*>(this)[part];
    }
  }

 private:
  static constexpr int kParts = kVector * sizeof(Element) / sizeof(uint4);
};

// x of the lane whose number differs in the bits of `mask`, below 32; every lane takes part.
__device__ inline float exchange(float x, int mask) {
#ifdef __HIP__
  return __shfl_xor(x, mask, 32);
#else
  return __shfl_xor_sync(0xffffffffu, x, mask, 32);
#endif
}

// Elements before row `a` of rows `b` elements apart; neither is negative.
__device__ inline uint64_t offset(uint32_t a, uint32_t b) { return uint64_t{a} * b; }

inline int64_t blocks_for(int64_t items, int64_t per_block = kThreads) {
  return (items + per_block - 1) / per_block;
}

// Call kernel(Float16()) or kernel(BFloat16()).
template <class Kernel>
void for_element(DataType dtype, Kernel kernel) {
  if (dtype == DataType::kFloat16) {
    kernel(Float16());
  } else {
    kernel(BFloat16());
  }
}

}  // namespace flash_attn::portable
