// Kernels and calls with one mistake each.
#include "check.h"

__global__ void copy(const int* x, int* y, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) y[i] = x[i];
}

__device__ int small[4], neighbour[4];

__global__ void fill(int count) {
  if (threadIdx.x < count) small[threadIdx.x] = neighbour[threadIdx.x % 4];
}

extern "C" int fill_variable(int count) {
  fill<<<1, 64>>>(count);
  return hipGetLastError();
}

// Claims ``claimed`` items where ``count`` were allocated.
extern "C" int overrun(int count, int claimed) {
  DeviceArray<int> x, y;
  TRY(x.allocate(claimed));
  TRY(y.allocate(count));
  copy<<<(claimed + 63) / 64, 64>>>(x.data, y.data, claimed);
  return hipGetLastError();
}

extern "C" int use_after_free(int count) {
  DeviceArray<int> y;
  int* x;
  TRY(y.allocate(count));
  TRY(hipMalloc(reinterpret_cast<void**>(&x), count * sizeof(int)));
  TRY(hipFree(x));
  copy<<<(count + 63) / 64, 64>>>(x, y.data, count);
  return hipGetLastError();
}

extern "C" int launch_unknown_kernel() {
  static int not_a_kernel;
  int value = 0, *argument = &value;
  void* arguments[] = {&argument, &argument, &value};
  return hipLaunchKernel(&not_a_kernel, dim3(1), dim3(64), arguments, 0, nullptr);
}

extern "C" int launch(int block, int dynamic_lds) {
  copy<<<1, block, dynamic_lds>>>(nullptr, nullptr, 0);
  return hipGetLastError();
}

extern "C" int copy_too_much(int count) {
  DeviceArray<char> x;
  char host[64];
  TRY(x.allocate(count));
  return x.to_host(host, count + 1);
}

extern "C" int synchronise() { return hipDeviceSynchronize(); }

extern "C" const char* error_text(int error) {
  return hipGetErrorString(static_cast<hipError_t>(error));
}

extern "C" const char* error_name(int error) {
  return hipGetErrorName(static_cast<hipError_t>(error));
}
