// What stand-ins for runtime libraries have in common: every call goes to one function, which
// Python installs. The file that includes this defines API(name), which puts the library's prefix
// before the name of a function, and INTERNAL(name) for the functions that compilers call.
//
// Arguments travel as 64-bit words, whatever their C type: pointers and integers of up to 64 bits
// share one register class on the 64-bit ABIs of Linux, so each function here takes words where the
// library's header says int, size_t or a pointer; the receiver cuts them to their size. No function
// here takes a float by value.

#pragma once

#include <stdint.h>

typedef intptr_t word;
typedef word (*dispatch_function)(const char* name, const word* arguments);
typedef struct {
  uint32_t x, y, z;
} dim3;

enum { SUCCESS = 0, DEINITIALIZED = 4, INVALID_CONFIGURATION = 9, MISSING_CONFIGURATION = 52 };

static dispatch_function dispatch;
static __thread int last_error;

// Null when Python goes away: destructors of libraries still call in after that.
void simulated_device_set_dispatch(dispatch_function function) { dispatch = function; }

static int call(const char* name, const word* arguments) {
  int error = dispatch ? (int)dispatch(name, arguments) : DEINITIALIZED;
  if (error != SUCCESS) last_error = error;
  return error;
}

#define QUOTED(name) #name
#define TEXT(name) QUOTED(name)

#define FORWARD_0(name) \
  int name(void) { return call(TEXT(name), 0); }
#define FORWARD_1(name) \
  int name(word a) { return call(TEXT(name), (word[]){a}); }
#define FORWARD_2(name) \
  int name(word a, word b) { return call(TEXT(name), (word[]){a, b}); }
#define FORWARD_3(name) \
  int name(word a, word b, word c) { return call(TEXT(name), (word[]){a, b, c}); }
#define FORWARD_4(name) \
  int name(word a, word b, word c, word d) { return call(TEXT(name), (word[]){a, b, c, d}); }
#define FORWARD_5(name)                               \
  int name(word a, word b, word c, word d, word e) {  \
    return call(TEXT(name), (word[]){a, b, c, d, e}); \
  }
#define FORWARD_6(name)                                      \
  int name(word a, word b, word c, word d, word e, word f) { \
    return call(TEXT(name), (word[]){a, b, c, d, e, f});     \
  }

// Errors
int API(PeekAtLastError)(void) { return last_error; }
int API(GetLastError)(void) {
  int error = last_error;
  last_error = SUCCESS;
  return error;
}
static const char* error_text(const char* name, int error) {
  return dispatch ? (const char*)dispatch(name, (word[]){error}) : "";
}
const char* API(GetErrorName)(int error) { return error_text(TEXT(API(GetErrorName)), error); }
const char* API(GetErrorString)(int error) { return error_text(TEXT(API(GetErrorString)), error); }

// Device
FORWARD_1(API(GetDeviceCount))
FORWARD_1(API(GetDevice))
FORWARD_1(API(SetDevice))
FORWARD_3(API(DeviceGetAttribute))
FORWARD_0(API(DeviceSynchronize))
FORWARD_1(API(RuntimeGetVersion))
FORWARD_1(API(DriverGetVersion))

// Memory
FORWARD_2(API(Malloc))
FORWARD_3(API(MallocAsync))
FORWARD_1(API(Free))
FORWARD_2(API(FreeAsync))
FORWARD_2(API(MemGetInfo))
FORWARD_4(API(Memcpy))
FORWARD_5(API(MemcpyAsync))
FORWARD_3(API(Memset))
FORWARD_4(API(MemsetAsync))
FORWARD_2(API(GetSymbolAddress))

// Streams and events
FORWARD_1(API(StreamCreate))
FORWARD_2(API(StreamCreateWithFlags))
FORWARD_3(API(StreamCreateWithPriority))
FORWARD_1(API(StreamDestroy))
FORWARD_1(API(StreamSynchronize))
FORWARD_1(API(StreamQuery))
FORWARD_3(API(StreamWaitEvent))
FORWARD_2(API(StreamIsCapturing))
FORWARD_1(API(EventCreate))
FORWARD_2(API(EventCreateWithFlags))
FORWARD_2(API(EventRecord))
FORWARD_1(API(EventSynchronize))
FORWARD_1(API(EventQuery))
FORWARD_3(API(EventElapsedTime))
FORWARD_1(API(EventDestroy))

// Kernels
FORWARD_2(API(FuncGetAttributes))
FORWARD_3(API(FuncSetAttribute))
FORWARD_2(API(FuncSetCacheConfig))
FORWARD_4(API(OccupancyMaxActiveBlocksPerMultiprocessor))
FORWARD_5(API(OccupancyMaxActiveBlocksPerMultiprocessorWithFlags))

// Registration, which compiled programs do when they are loaded
void* INTERNAL(RegisterFatBinary)(word wrapper) {
  return dispatch ? (void*)dispatch(TEXT(INTERNAL(RegisterFatBinary)), (word[]){wrapper}) : 0;
}
FORWARD_1(INTERNAL(UnregisterFatBinary))
FORWARD_4(INTERNAL(RegisterFunction))
FORWARD_4(INTERNAL(RegisterVar))
FORWARD_4(INTERNAL(RegisterManagedVar))

// Launches: `kernel<<<...>>>(...)` pushes its configuration, and the kernel's host stub pops it.
// The arguments between may themselves contain a launch, hence the depth.
typedef struct {
  dim3 grid, block;
  word shared, stream;
} configuration;

enum { DEPTH = 16 };
static __thread configuration configurations[DEPTH];
static __thread int depth;

int INTERNAL(PushCallConfiguration)(dim3 grid, dim3 block, word shared, word stream) {
  if (depth == DEPTH) return last_error = INVALID_CONFIGURATION;
  configurations[depth++] = (configuration){grid, block, shared, stream};
  return SUCCESS;
}
int INTERNAL(PopCallConfiguration)(dim3* grid, dim3* block, word* shared, word* stream) {
  if (depth == 0) return last_error = MISSING_CONFIGURATION;
  configuration top = configurations[--depth];
  *grid = top.grid, *block = top.block, *shared = top.shared, *stream = top.stream;
  return SUCCESS;
}
int API(LaunchKernel)(word function, dim3 grid, dim3 block, word arguments, word shared,
                      word stream) {
  return call(TEXT(API(LaunchKernel)), (word[]){function, grid.x, grid.y, grid.z, block.x, block.y,
                                                block.z, arguments, shared, stream});
}
typedef struct {
  dim3 grid, block;
  word shared, stream, attributes;
  uint32_t attribute_count;
} launch_configuration;
int API(LaunchKernelExC)(const launch_configuration* c, word function, word arguments) {
  return API(LaunchKernel)(function, c->grid, c->block, arguments, c->shared, c->stream);
}
