#include "device.h"

#include <cuda_runtime.h>

#include <stdexcept>

namespace flash_attn {
namespace {

void check(cudaError_t status, const std::string& what) {
  if (status != cudaSuccess) {
    throw std::runtime_error(what + ": " + cudaGetErrorString(status));
  }
}

cudaDeviceProp properties(int index) {
  cudaDeviceProp found{};
  check(cudaGetDeviceProperties(&found, index), "device " + std::to_string(index));
  return found;
}

}  // namespace

std::string architecture(int index) {
  const auto found = properties(index);
#ifdef USE_ROCM
  const std::string name = found.gcnArchName;
  return name.substr(0, name.find(':'));
#else
  return "sm_" + std::to_string(10 * found.major + found.minor);
#endif
}

int current_device() {
  int index = 0;
  check(cudaGetDevice(&index), "current device");
  return index;
}

void check_launch(const char* what) { check(cudaGetLastError(), what); }

bool is_simulated() { return std::string(properties(0).name).rfind("simulated ", 0) == 0; }

}  // namespace flash_attn
