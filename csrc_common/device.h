// The GPU runtime as the binding needs it.
#pragma once

#include <string>

namespace flash_attn {

// Name of the architecture of device `index`, such as gfx942 or sm_90; std::runtime_error with the
// runtime's own words if there is no such device.
std::string architecture(int index);

// Index of the current device.
int current_device();

// std::runtime_error with the runtime's own words if a launch since the last check failed.
void check_launch(const char* what);

// Whether device 0 is a simulated one, which computes in host memory.
bool is_simulated();

}  // namespace flash_attn
