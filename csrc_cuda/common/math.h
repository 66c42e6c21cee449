// Constants and fast functions of base-2 softmax, and of indices.
#pragma once

#include <cuda_runtime.h>

#include <cmath>

namespace flash_attn::cuda {

constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

// 2^x; results below the smallest normal number are 0.
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// tanh with an absolute error of a few units of 2^-24, which is what a capped score needs.
__device__ inline float tanh_fast(float x) {
  return 1.f - __fdividef(2.f, exp2_fast(2.f * kLog2E * x) + 1.f);
}

// `x` as a value that is made anew: what is computed of it is not kept in registers through a loop.
__device__ inline int remade(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

__host__ __device__ constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

}  // namespace flash_attn::cuda
