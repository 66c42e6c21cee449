// A stand-in for the HIP runtime library: every call goes to one function, which Python installs.
//
// Arguments travel as 64-bit words, whatever their C type: pointers and integers of up to 64 bits
// share one register class on the 64-bit ABIs of Linux, so each function here takes words where
// HIP's header says int, size_t or a pointer; the receiver cuts them to their size. No HIP
// function here takes a float by value.

#include <stdint.h>

typedef intptr_t word;
typedef word (*dispatch_function)(const char* name, const word* arguments);
typedef struct {
  uint32_t x, y, z;
} dim3;

enum { SUCCESS = 0, INVALID_CONFIGURATION = 9, DEINITIALIZED = 4, MISSING_CONFIGURATION = 52 };

static dispatch_function dispatch;
static __thread int last_error;

// Null when Python goes away: destructors of libraries still call in after that.
void amdgpu_sim_set_dispatch(dispatch_function function) { dispatch = function; }

static int call(const char* name, const word* arguments) {
  int error = dispatch ? (int)dispatch(name, arguments) : DEINITIALIZED;
  if (error != SUCCESS) last_error = error;
  return error;
}

#define FORWARD_0(name) \
  int name(void) { return call(#name, 0); }
#define FORWARD_1(name) \
  int name(word a) { return call(#name, (word[]){a}); }
#define FORWARD_2(name) \
  int name(word a, word b) { return call(#name, (word[]){a, b}); }
#define FORWARD_3(name) \
  int name(word a, word b, word c) { return call(#name, (word[]){a, b, c}); }
#define FORWARD_4(name) \
  int name(word a, word b, word c, word d) { return call(#name, (word[]){a, b, c, d}); }
#define FORWARD_5(name) \
  int name(word a, word b, word c, word d, word e) { return call(#name, (word[]){a, b, c, d, e}); }
#define FORWARD_6(name)                                      \
  int name(word a, word b, word c, word d, word e, word f) { \
    return call(#name, (word[]){a, b, c, d, e, f});          \
  }

// Errors
int hipPeekAtLastError(void) { return last_error; }
int hipGetLastError(void) {
  int error = last_error;
  last_error = SUCCESS;
  return error;
}
int hipExtGetLastError(void) { return hipGetLastError(); }
const char* hipGetErrorName(int error) {
  return dispatch ? (const char*)dispatch("hipGetErrorName", (word[]){error}) : "";
}
const char* hipGetErrorString(int error) {
  return dispatch ? (const char*)dispatch("hipGetErrorString", (word[]){error}) : "";
}

// Device
FORWARD_1(hipInit)
FORWARD_1(hipGetDeviceCount)
FORWARD_1(hipGetDevice)
FORWARD_1(hipSetDevice)
FORWARD_2(hipDeviceGet)
FORWARD_3(hipDeviceGetName)
FORWARD_2(hipGetDevicePropertiesR0600)
FORWARD_3(hipDeviceGetAttribute)
FORWARD_2(hipDeviceGetStreamPriorityRange)
FORWARD_0(hipDeviceSynchronize)
FORWARD_1(hipRuntimeGetVersion)
FORWARD_1(hipDriverGetVersion)

// Memory
FORWARD_2(hipMalloc)
FORWARD_3(hipMallocManaged)
FORWARD_3(hipMallocAsync)
FORWARD_3(hipHostMalloc)
FORWARD_1(hipFree)
FORWARD_2(hipFreeAsync)
FORWARD_1(hipHostFree)
FORWARD_3(hipHostRegister)
FORWARD_1(hipHostUnregister)
FORWARD_3(hipHostGetDevicePointer)
FORWARD_2(hipMemGetInfo)
FORWARD_4(hipMemcpy)
FORWARD_5(hipMemcpyAsync)
FORWARD_5(hipMemcpyWithStream)
FORWARD_3(hipMemcpyHtoD)
FORWARD_3(hipMemcpyDtoH)
FORWARD_3(hipMemcpyDtoD)
FORWARD_3(hipMemset)
FORWARD_4(hipMemsetAsync)
FORWARD_5(hipMemcpyToSymbol)
FORWARD_6(hipMemcpyToSymbolAsync)
FORWARD_5(hipMemcpyFromSymbol)
FORWARD_6(hipMemcpyFromSymbolAsync)
FORWARD_2(hipGetSymbolAddress)
FORWARD_2(hipGetSymbolSize)

// Streams and events
FORWARD_1(hipStreamCreate)
FORWARD_2(hipStreamCreateWithFlags)
FORWARD_3(hipStreamCreateWithPriority)
FORWARD_1(hipStreamDestroy)
FORWARD_1(hipStreamSynchronize)
FORWARD_1(hipStreamQuery)
FORWARD_3(hipStreamWaitEvent)
FORWARD_2(hipStreamIsCapturing)
FORWARD_1(hipEventCreate)
FORWARD_2(hipEventCreateWithFlags)
FORWARD_2(hipEventRecord)
FORWARD_1(hipEventSynchronize)
FORWARD_1(hipEventQuery)
FORWARD_3(hipEventElapsedTime)
FORWARD_1(hipEventDestroy)

// Modules and functions
FORWARD_2(hipModuleLoad)
FORWARD_2(hipModuleLoadData)
FORWARD_5(hipModuleLoadDataEx)
FORWARD_1(hipModuleUnload)
FORWARD_3(hipModuleGetFunction)
FORWARD_4(hipModuleGetGlobal)
FORWARD_2(hipFuncGetAttributes)
FORWARD_3(hipFuncSetAttribute)
FORWARD_2(hipFuncSetCacheConfig)
FORWARD_4(hipOccupancyMaxActiveBlocksPerMultiprocessor)
FORWARD_5(hipOccupancyMaxActiveBlocksPerMultiprocessorWithFlags)

// Registration, which compiled programs do when they are loaded
void* __hipRegisterFatBinary(word wrapper) {
  return dispatch ? (void*)dispatch("__hipRegisterFatBinary", (word[]){wrapper}) : 0;
}
void __hipRegisterFunction(word binary, word function, word device_function, word name) {
  call("__hipRegisterFunction", (word[]){binary, function, device_function, name});
}
void __hipRegisterVar(word binary, word variable, word host_name, word name, word external,
                      word size) {
  call("__hipRegisterVar", (word[]){binary, variable, host_name, name, external, size});
}
void __hipRegisterManagedVar(word binary, word pointer, word initial, word name, word size) {
  call("__hipRegisterManagedVar", (word[]){binary, pointer, initial, name, size});
}
void __hipUnregisterFatBinary(word binary) { call("__hipUnregisterFatBinary", (word[]){binary}); }

// Launches: `kernel<<<...>>>(...)` pushes its configuration, and the kernel's host stub pops it.
// The arguments between may themselves contain a launch, hence the depth.
typedef struct {
  dim3 grid, block;
  word shared, stream;
} configuration;

enum { DEPTH = 16 };
static __thread configuration configurations[DEPTH];
static __thread int depth;

int __hipPushCallConfiguration(dim3 grid, dim3 block, word shared, word stream) {
  if (depth == DEPTH) return last_error = INVALID_CONFIGURATION;
  configurations[depth++] = (configuration){grid, block, shared, stream};
  return SUCCESS;
}
int __hipPopCallConfiguration(dim3* grid, dim3* block, word* shared, word* stream) {
  if (depth == 0) return last_error = MISSING_CONFIGURATION;
  configuration top = configurations[--depth];
  *grid = top.grid, *block = top.block, *shared = top.shared, *stream = top.stream;
  return SUCCESS;
}
int hipLaunchKernel(word function, dim3 grid, dim3 block, word arguments, word shared,
                    word stream) {
  return call("hipLaunchKernel", (word[]){function, grid.x, grid.y, grid.z, block.x, block.y,
                                          block.z, arguments, shared, stream});
}
typedef struct {
  dim3 grid, block;
  word shared, stream, attributes;
  uint32_t attribute_count;
} launch_configuration;
int hipLaunchKernelExC(const launch_configuration* c, word function, word arguments) {
  return call("hipLaunchKernel", (word[]){function, c->grid.x, c->grid.y, c->grid.z, c->block.x,
                                          c->block.y, c->block.z, arguments, c->shared, c->stream});
}
int hipModuleLaunchKernel(word function, word grid_x, word grid_y, word grid_z, word block_x,
                          word block_y, word block_z, word shared, word stream, word arguments,
                          word extra) {
  return call("hipModuleLaunchKernel", (word[]){function, grid_x, grid_y, grid_z, block_x, block_y,
                                                block_z, shared, stream, arguments, extra});
}
