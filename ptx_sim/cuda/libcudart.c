// A stand-in for the CUDA runtime library: every call goes to one function, which Python installs.
//
// Arguments travel as 64-bit words, whatever their C type: pointers and integers of up to 64 bits
// share one register class on the 64-bit ABIs of Linux, so each function here takes six words where
// CUDA's header says int, size_t or a pointer; the receiver takes those that exist and cuts them to
// their size. No function here takes a float by value.

#include <stdint.h>

typedef intptr_t word;
typedef word (*dispatch_function)(const char* name, const word* arguments);
typedef struct {
  uint32_t x, y, z;
} dim3;

enum { SUCCESS = 0, CUDART_UNLOADING = 4, INVALID_CONFIGURATION = 9, MISSING_CONFIGURATION = 52 };

static dispatch_function dispatch;
static __thread int last_error;

// Null when Python goes away: destructors of libraries still call in after that.
void ptx_sim_set_dispatch(dispatch_function function) { dispatch = function; }

static int call(const char* name, const word* arguments) {
  int error = dispatch ? (int)dispatch(name, arguments) : CUDART_UNLOADING;
  if (error != SUCCESS) last_error = error;
  return error;
}

#define FORWARD(name)                                        \
  int name(word a, word b, word c, word d, word e, word f) { \
    return call(#name, (word[]){a, b, c, d, e, f});          \
  }

// Errors
int cudaPeekAtLastError(void) { return last_error; }
int cudaGetLastError(void) {
  int error = last_error;
  last_error = SUCCESS;
  return error;
}
const char* cudaGetErrorName(int error) {
  return dispatch ? (const char*)dispatch("cudaGetErrorName", (word[]){error}) : "";
}
const char* cudaGetErrorString(int error) {
  return dispatch ? (const char*)dispatch("cudaGetErrorString", (word[]){error}) : "";
}

// Device
FORWARD(cudaGetDeviceCount)
FORWARD(cudaGetDevice)
FORWARD(cudaSetDevice)
FORWARD(cudaDeviceGetAttribute)
FORWARD(cudaGetDeviceProperties)
FORWARD(cudaDeviceSynchronize)
FORWARD(cudaRuntimeGetVersion)
FORWARD(cudaDriverGetVersion)

// Memory
FORWARD(cudaMalloc)
FORWARD(cudaMallocAsync)
FORWARD(cudaFree)
FORWARD(cudaFreeAsync)
FORWARD(cudaMemcpy)
FORWARD(cudaMemcpyAsync)
FORWARD(cudaMemset)
FORWARD(cudaMemsetAsync)
FORWARD(cudaMemGetInfo)
FORWARD(cudaGetSymbolAddress)

// Streams and events
FORWARD(cudaStreamCreate)
FORWARD(cudaStreamCreateWithFlags)
FORWARD(cudaStreamCreateWithPriority)
FORWARD(cudaStreamDestroy)
FORWARD(cudaStreamSynchronize)
FORWARD(cudaStreamQuery)
FORWARD(cudaStreamWaitEvent)
FORWARD(cudaStreamIsCapturing)
FORWARD(cudaEventCreate)
FORWARD(cudaEventCreateWithFlags)
FORWARD(cudaEventRecord)
FORWARD(cudaEventRecordWithFlags)
FORWARD(cudaEventSynchronize)
FORWARD(cudaEventQuery)
FORWARD(cudaEventElapsedTime)
FORWARD(cudaEventDestroy)

// Kernels
FORWARD(cudaFuncGetAttributes)
FORWARD(cudaFuncSetAttribute)
FORWARD(cudaFuncSetCacheConfig)
FORWARD(cudaOccupancyMaxActiveBlocksPerMultiprocessor)
FORWARD(cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags)
FORWARD(cudaGetDriverEntryPoint)
FORWARD(cudaGetDriverEntryPointByVersion)

// Registration, which compiled programs do when they are loaded
void* __cudaRegisterFatBinary(word wrapper) {
  return dispatch ? (void*)dispatch("__cudaRegisterFatBinary", (word[]){wrapper}) : 0;
}
void __cudaRegisterFatBinaryEnd(word binary) { (void)binary; }
char __cudaInitModule(word binary) {
  (void)binary;
  return 1;
}
void __cudaRegisterFunction(word binary, word function, word device_function, word name) {
  call("__cudaRegisterFunction", (word[]){binary, function, device_function, name});
}
void __cudaRegisterVar(word binary, word variable, word device_variable, word name) {
  call("__cudaRegisterVar", (word[]){binary, variable, device_variable, name});
}
void __cudaRegisterManagedVar(word binary, word variable, word device_variable, word name) {
  call("__cudaRegisterManagedVar", (word[]){binary, variable, device_variable, name});
}
void __cudaUnregisterFatBinary(word binary) { call("__cudaUnregisterFatBinary", (word[]){binary}); }
FORWARD(__cudaGetKernel)

// Launches: `kernel<<<...>>>(...)` pushes its configuration, and the kernel's host stub pops it.
// The arguments between may themselves contain a launch, hence the depth.
typedef struct {
  dim3 grid, block;
  word shared, stream;
} configuration;

enum { DEPTH = 16 };
static __thread configuration configurations[DEPTH];
static __thread int depth;

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, word shared, word stream) {
  if (depth == DEPTH) return last_error = INVALID_CONFIGURATION;
  configurations[depth++] = (configuration){grid, block, shared, stream};
  return SUCCESS;
}
int __cudaPopCallConfiguration(dim3* grid, dim3* block, word* shared, word* stream) {
  if (depth == 0) return last_error = MISSING_CONFIGURATION;
  configuration top = configurations[--depth];
  *grid = top.grid, *block = top.block, *shared = top.shared, *stream = top.stream;
  return SUCCESS;
}
int cudaLaunchKernel(word function, dim3 grid, dim3 block, word arguments, word shared,
                     word stream) {
  return call("cudaLaunchKernel", (word[]){function, grid.x, grid.y, grid.z, block.x, block.y,
                                           block.z, arguments, shared, stream});
}
int __cudaLaunchKernel(word kernel, dim3 grid, dim3 block, word arguments, word shared,
                       word stream) {
  return cudaLaunchKernel(kernel, grid, block, arguments, shared, stream);
}
typedef struct {
  dim3 grid, block;
  word shared, stream, attributes;
  uint32_t attribute_count;
} launch_configuration;
int cudaLaunchKernelExC(const launch_configuration* c, word function, word arguments) {
  return cudaLaunchKernel(function, c->grid, c->block, arguments, c->shared, c->stream);
}
