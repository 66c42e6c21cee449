// c = a b, float16 in, float32 out, with the matrix instructions of each target: one wave makes a
// tile of c. a is (m, k), b is (k, n), row-major; m, n and k are multiples of the tile.
#include "check.h"

typedef _Float16 half4 __attribute__((ext_vector_type(4)));
typedef _Float16 half8 __attribute__((ext_vector_type(8)));
typedef _Float16 half16 __attribute__((ext_vector_type(16)));
typedef float float8 __attribute__((ext_vector_type(8)));
typedef float float16 __attribute__((ext_vector_type(16)));

#if defined(__gfx90a__) || defined(__gfx942__) || defined(__gfx950__)

__global__ void multiply(const _Float16* a, const _Float16* b, float* c, int n, int k) {
  const int lane = threadIdx.x, column = lane % 32, part = 4 * (lane / 32);
  a += 32 * blockIdx.y * k;
  b += 32 * blockIdx.x;
  c += 32 * blockIdx.y * n + 32 * blockIdx.x;
  __shared__ _Float16 rows[32][8];
  float16 sum = 0;
  for (int begin = 0; begin < k; begin += 8) {
    __syncthreads();
    for (int i = lane; i < 32 * 8; i += 64) rows[i / 8][i % 8] = a[i / 8 * k + begin + i % 8];
    __syncthreads();
    half4 left, right;
    for (int j = 0; j < 4; ++j) {
      left[j] = rows[column][part + j];
      right[j] = b[(begin + part + j) * n + column];
    }
    sum = __builtin_amdgcn_mfma_f32_32x32x8f16(left, right, sum, 0, 0, 0);
  }
  for (int r = 0; r < 16; ++r) c[(8 * (r / 4) + part + r % 4) * n + column] = sum[r];
}

#elif defined(__gfx1100__)

__global__ void multiply(const _Float16* a, const _Float16* b, float* c, int n, int k) {
  const int lane = threadIdx.x, column = lane % 16;
  a += (16 * blockIdx.y + column) * k;
  b += 16 * blockIdx.x + column;
  c += 16 * blockIdx.y * n + 16 * blockIdx.x + column;
  float8 sum = 0;
  for (int begin = 0; begin < k; begin += 16) {
    half16 left, right;
    for (int j = 0; j < 16; ++j) left[j] = a[begin + j], right[j] = b[(begin + j) * n];
    sum = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(left, right, sum);
  }
  for (int r = 0; r < 8; ++r) c[(2 * r + lane / 16) * n] = sum[r];
}

#else

__global__ void multiply(const _Float16* a, const _Float16* b, float* c, int n, int k) {
#ifdef __gfx1201__
  const int lane = threadIdx.x, column = lane % 16, part = 8 * (lane / 16);
  a += (16 * blockIdx.y + column) * k;
  b += 16 * blockIdx.x + column;
  c += 16 * blockIdx.y * n + 16 * blockIdx.x + column;
  float8 sum = 0;
  for (int begin = part; begin < k; begin += 16) {
    half8 left, right;
    for (int j = 0; j < 8; ++j) left[j] = a[begin + j], right[j] = b[(begin + j) * n];
    sum = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12(left, right, sum);
  }
  for (int r = 0; r < 8; ++r) c[(part + r) * n] = sum[r];
#endif
}

#endif

// ``milliseconds`` receives the time between two events around the launch.
extern "C" int matrix_product(const _Float16* a, const _Float16* b, float* c, int m, int n, int k,
                              float* milliseconds) {
  hipDeviceProp_t device;
  TRY(hipGetDeviceProperties(&device, 0));
  const int tile = device.warpSize == 64 ? 32 : 16;
  DeviceArray<_Float16> left, right;
  DeviceArray<float> result;
  TRY(left.from_host(a, size_t(m) * k));
  TRY(right.from_host(b, size_t(k) * n));
  TRY(result.allocate(size_t(m) * n));
  hipStream_t stream;
  hipEvent_t start, stop;
  TRY(hipStreamCreate(&stream));
  TRY(hipEventCreate(&start));
  TRY(hipEventCreate(&stop));
  TRY(hipEventRecord(start, stream));
  multiply<<<dim3(n / tile, m / tile), device.warpSize, 0, stream>>>(left.data, right.data,
                                                                     result.data, n, k);
  TRY(hipGetLastError());
  TRY(hipEventRecord(stop, stream));
  TRY(hipEventSynchronize(stop));
  TRY(hipEventElapsedTime(milliseconds, start, stop));
  TRY(hipEventDestroy(start));
  TRY(hipEventDestroy(stop));
  TRY(hipStreamDestroy(stream));
  return result.to_host(c, size_t(m) * n);
}
