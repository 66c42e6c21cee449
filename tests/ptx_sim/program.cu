// A host program with kernels: what nvcc makes of launches, structures, variables and mistakes.
#include <cuda_runtime.h>

struct Arguments {
  const float* in;
  float* out;
  int count;
};

__device__ float factor = 2.f;
__constant__ float offsets[2] = {0.5f, 1.5f};

// out[i] = in[neighbour of i] * factor + an offset, by way of dynamic shared memory
__global__ void exchange(const Arguments arguments) {
  extern __shared__ float tile[];
  const int place = blockIdx.x * blockDim.x + threadIdx.x;
  tile[threadIdx.x] = place < arguments.count ? arguments.in[place] : 0.f;
  __syncthreads();
  if (place < arguments.count) {
    arguments.out[place] = tile[threadIdx.x ^ 32] * factor + offsets[place & 1];
  }
}

// the same without the barrier
__global__ void exchange_too_early(const Arguments arguments) {
  extern __shared__ float tile[];
  tile[threadIdx.x] = arguments.in[threadIdx.x];
  arguments.out[threadIdx.x] = tile[threadIdx.x ^ 32];
}

__global__ void softmax_sum(const Arguments arguments) {
  float value =
      expf(arguments.in[threadIdx.x]) + logf(1.f + threadIdx.x) + sqrtf(threadIdx.x) / 3.f;
  for (int by = 16; by > 0; by /= 2) value += __shfl_xor_sync(~0u, value, by);
  if (threadIdx.x == 0) atomicAdd(arguments.out, value);
}

extern "C" int run_exchange(const float* in, float* out, int count, int shared) {
  cudaMemsetAsync(out, 0, sizeof(float) * count, nullptr);
  if (shared > 48 << 10) {
    const cudaError_t error =
        cudaFuncSetAttribute(exchange, cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
    if (error != cudaSuccess) return error;
  }
  exchange<<<(count + 127) / 128, 128, shared>>>({in, out, count});
  return cudaGetLastError();
}

extern "C" int run_too_early(const float* in, float* out) {
  exchange_too_early<<<1, 64, 256>>>({in, out, 64});
  return cudaGetLastError();
}

extern "C" int run_sum(const float* in, float* out) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(1);
  config.blockDim = dim3(32);
  const cudaError_t error = cudaLaunchKernelEx(&config, softmax_sum, Arguments{in, out, 32});
  return error != cudaSuccess ? error : cudaDeviceSynchronize();
}

extern "C" int run_on_device_memory(const float* in, float* out, int count) {
  float* device = nullptr;
  const size_t size = sizeof(float) * count;
  cudaError_t error = cudaMalloc(&device, 2 * size);
  if (error == cudaSuccess) error = cudaMemcpy(device, in, size, cudaMemcpyHostToDevice);
  if (error == cudaSuccess) exchange<<<1, 128, 512>>>({device, device + count, count});
  if (error == cudaSuccess) error = cudaGetLastError();
  if (error == cudaSuccess) error = cudaMemcpy(out, device + count, size, cudaMemcpyDeviceToHost);
  cudaFree(device);
  return error;
}

extern "C" int query(int* values) {
  int device = -1;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(values, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(values + 1, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  }
  if (error == cudaSuccess) {
    error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(values + 2, exchange, 128, 40 << 10);
  }
  return error;
}

extern "C" const char* name_of(int error) {
  return cudaGetErrorName(static_cast<cudaError_t>(error));
}
