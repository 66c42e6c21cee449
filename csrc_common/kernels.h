// What a vendor's folder gives to the binding.
#pragma once

#include <string>

#include "params.h"

namespace flash_attn {

// The compiled kernels as a JSON list of objects; the keys are the vendor's.
std::string instances();

// Whether a kernel for `arch` (as the device names it) was compiled that serves these features.
bool has_forward(const std::string& arch, const Features& features);

// Launch on `stream` of the current device; std::runtime_error if no kernel serves the call or the
// launch fails.
void run_forward(const ForwardParams& params, void* stream);

}  // namespace flash_attn
