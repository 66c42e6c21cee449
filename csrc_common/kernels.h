// What a vendor's folder gives to the binding.
#pragma once

#include <string>

#include "params.h"

namespace flash_attn {

// The compiled kernels as a JSON list of objects; the keys are the vendor's.
std::string instances();

// Keys of a block of the kernel for `phase` (forward, backward, split) on `arch`, as the device
// names it, that serves these features; 0 if none was compiled. A deterministic backward has an
// accumulator of dQ for each block, and pages are made of whole blocks.
int kernel_block(const std::string& phase, const std::string& arch, const Features& features);

// Launch on `stream` of the current device; std::runtime_error if no kernel serves the call or the
// launch fails.
void run_forward(const ForwardParams& params, void* stream);
void run_backward(const BackwardParams& params, void* stream);
void run_split(const SplitParams& params, void* stream);

}  // namespace flash_attn
