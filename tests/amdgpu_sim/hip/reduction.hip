// Sums through LDS of a size chosen at launch; ``synchronised`` false leaves out a barrier.
#include "check.h"

template <bool synchronised>
__global__ void block_sums(const int* x, int* sums, int count) {
  extern __shared__ int partial[];
  const int item = threadIdx.x;
  int sum = 0;
  for (int i = blockIdx.x * blockDim.x + item; i < count; i += gridDim.x * blockDim.x) sum += x[i];
  partial[item] = sum;
  for (int half = blockDim.x / 2; half > 0; half /= 2) {
    if (synchronised || half != int(blockDim.x) / 2) __syncthreads();
    if (item < half) partial[item] += partial[item + half];
  }
  if (item == 0) sums[blockIdx.x] = partial[0];
}

extern "C" int reduce(const int* x, int* sums, int count, int blocks, int block, int synchronised) {
  DeviceArray<int> input, output;
  TRY(input.from_host(x, count));
  TRY(output.allocate(blocks));
  const auto kernel = synchronised ? block_sums<true> : block_sums<false>;
  kernel<<<blocks, block, block * sizeof(int)>>>(input.data, output.data, count);
  TRY(hipGetLastError());
  TRY(hipDeviceSynchronize());
  return output.to_host(sums, blocks);
}

extern "C" int reduction_occupancy(int block, int* blocks, hipFuncAttributes* attributes) {
  const auto kernel = reinterpret_cast<const void*>(&block_sums<true>);
  TRY(hipFuncSetAttribute(kernel, hipFuncAttributeMaxDynamicSharedMemorySize, 4 * block));
  TRY(hipFuncGetAttributes(attributes, kernel));
  return hipOccupancyMaxActiveBlocksPerMultiprocessor(blocks, kernel, block, 4 * block);
}
