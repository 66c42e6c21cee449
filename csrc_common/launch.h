// The device and stream of a call of an operator.
#pragma once

#include <torch/csrc/stable/accelerator.h>

#include "device.h"
#include "tensor_checks.h"

// Weak, so that the library loads on a PyTorch without GPU support.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void**);

namespace flash_attn {

// The device of a call is current while this lives. CPU tensors are for a simulated device, whose
// kernels compute in host memory.
class Launch {
 public:
  explicit Launch(const Tensor& q) {
    if (q.is_cpu()) {
      if (!is_simulated()) fail("q is on the CPU, and the device here is not a simulated one");
      return;
    }
    const auto index = q.get_device_index();
    if (aoti_torch_get_current_cuda_stream == nullptr) fail("this PyTorch has no GPU support");
    guard_.emplace(index);
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(index, &stream_));
  }
  void* stream() const { return stream_; }

 private:
  std::optional<torch::stable::accelerator::DeviceGuard> guard_;
  void* stream_ = nullptr;
};

}  // namespace flash_attn
