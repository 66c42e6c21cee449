// A stand-in for the CUDA runtime library.

#define API(name) cuda##name
#define INTERNAL(name) __cuda##name
#include "runtime_calls.h"

FORWARD_2(cudaGetDeviceProperties)
FORWARD_3(cudaEventRecordWithFlags)
FORWARD_4(cudaGetDriverEntryPoint)
FORWARD_5(cudaGetDriverEntryPointByVersion)
FORWARD_2(__cudaGetKernel)

void __cudaRegisterFatBinaryEnd(word binary) { (void)binary; }
char __cudaInitModule(word binary) {
  (void)binary;
  return 1;
}
int __cudaLaunchKernel(word kernel, dim3 grid, dim3 block, word arguments, word shared,
                       word stream) {
  return cudaLaunchKernel(kernel, grid, block, arguments, shared, stream);
}
