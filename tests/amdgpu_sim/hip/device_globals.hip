// A table in constant memory, a variable that the host sets, one that the kernel writes, and a
// pointer whose value is the address of another variable (a relocation).
#include "check.h"

__constant__ float coefficients[4] = {1.0f, -2.0f, 0.5f, 4.0f};
__device__ float offset = 0.25f;
__device__ unsigned launches[3] = {7, 0, 9};
__device__ unsigned* const volatile counter = &launches[1];

__device__ float polynomial(float x) {
  float value = 0;
  for (int i = 3; i >= 0; --i) value = value * x + coefficients[i];
  return value + offset;
}

extern "C" __global__ void evaluate(const float* x, float* y, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) y[i] = polynomial(x[i]);
  if (i == 0) *counter += 1;
}

extern "C" int evaluate_with(const float* x, float* y, int count, const float* new_coefficients,
                             const float* new_offset, unsigned* counted) {
  if (new_coefficients)
    TRY(hipMemcpyToSymbol(HIP_SYMBOL(coefficients), new_coefficients, sizeof coefficients));
  if (new_offset) TRY(hipMemcpyToSymbol(HIP_SYMBOL(offset), new_offset, sizeof offset));
  DeviceArray<float> input, output;
  TRY(input.from_host(x, count));
  TRY(output.allocate(count));
  evaluate<<<dim3((count + 63) / 64), dim3(64)>>>(input.data, output.data, count);
  TRY(hipGetLastError());
  TRY(hipMemcpyFromSymbol(counted, HIP_SYMBOL(launches), sizeof launches));
  return output.to_host(y, count);
}

extern "C" int variable_sizes(size_t* table, size_t* single) {
  TRY(hipGetSymbolSize(table, HIP_SYMBOL(coefficients)));
  return hipGetSymbolSize(single, HIP_SYMBOL(offset));
}
