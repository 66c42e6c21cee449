#pragma once
#include <hip/hip_runtime.h>

// Leaves the function with the error of a HIP call, if it has one.
#define TRY(call)                                          \
  do {                                                     \
    const hipError_t error_of_call = (call);               \
    if (error_of_call != hipSuccess) return error_of_call; \
  } while (false)

// Device memory that frees itself.
template <class T>
struct DeviceArray {
  T* data = nullptr;
  ~DeviceArray() { static_cast<void>(hipFree(data)); }
  hipError_t allocate(size_t count) {
    return hipMalloc(reinterpret_cast<void**>(&data), count * sizeof(T));
  }
  hipError_t from_host(const T* source, size_t count) {
    TRY(allocate(count));
    return hipMemcpy(data, source, count * sizeof(T), hipMemcpyHostToDevice);
  }
  hipError_t to_host(T* target, size_t count) const {
    return hipMemcpy(target, data, count * sizeof(T), hipMemcpyDeviceToHost);
  }
};
