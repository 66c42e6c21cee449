// Launches on pointers that the caller brings, as a native extension of a framework makes them.
#include "check.h"

__global__ void copy(const int* x, int* y) { y[threadIdx.x] = x[threadIdx.x]; }

extern "C" int copy_on_device(const int* x, int* y, int count) {
  copy<<<1, count>>>(x, y);
  return hipGetLastError();
}

extern "C" int copy_by_configuration(const int* x, int* y, int count) {
  hipLaunchConfig_t configuration = {};
  configuration.gridDim = dim3(1);
  configuration.blockDim = dim3(count);
  void* arguments[] = {&x, &y};
  return hipLaunchKernelExC(&configuration, reinterpret_cast<const void*>(&copy), arguments);
}
