// A stand-in for the HIP runtime library.

#define API(name) hip##name
#define INTERNAL(name) __hip##name
#include "runtime_calls.h"

int hipExtGetLastError(void) { return hipGetLastError(); }

// Device
FORWARD_1(hipInit)
FORWARD_2(hipDeviceGet)
FORWARD_3(hipDeviceGetName)
FORWARD_2(hipGetDevicePropertiesR0600)
FORWARD_2(hipDeviceGetStreamPriorityRange)

// Memory
FORWARD_3(hipMallocManaged)
FORWARD_3(hipHostMalloc)
FORWARD_1(hipHostFree)
FORWARD_3(hipHostRegister)
FORWARD_1(hipHostUnregister)
FORWARD_3(hipHostGetDevicePointer)
FORWARD_5(hipMemcpyWithStream)
FORWARD_3(hipMemcpyHtoD)
FORWARD_3(hipMemcpyDtoH)
FORWARD_3(hipMemcpyDtoD)
FORWARD_5(hipMemcpyToSymbol)
FORWARD_6(hipMemcpyToSymbolAsync)
FORWARD_5(hipMemcpyFromSymbol)
FORWARD_6(hipMemcpyFromSymbolAsync)
FORWARD_2(hipGetSymbolSize)

// Modules
FORWARD_2(hipModuleLoad)
FORWARD_2(hipModuleLoadData)
FORWARD_5(hipModuleLoadDataEx)
FORWARD_1(hipModuleUnload)
FORWARD_3(hipModuleGetFunction)
FORWARD_4(hipModuleGetGlobal)
int hipModuleLaunchKernel(word function, word grid_x, word grid_y, word grid_z, word block_x,
                          word block_y, word block_z, word shared, word stream, word arguments,
                          word extra) {
  return call("hipModuleLaunchKernel", (word[]){function, grid_x, grid_y, grid_z, block_x, block_y,
                                                block_z, shared, stream, arguments, extra});
}
