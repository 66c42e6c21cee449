// The table of compiled instances; build_tools has it written by generate.py.
#pragma once

#include <hip/hip_runtime.h>

#include "params.h"

namespace flash_attn::ck {

// A compiled forward: `archs` are the architectures in its binary, separated by spaces; `head_dim`
// and `head_dim_v` the largest it takes, or with `exact` the only ones.
struct ForwardInstance {
  const char* name;
  const char* archs;
  Features features;
  bool exact;
  void (*launch)(const ForwardParams&, hipStream_t);
};

// The cheaper of two that serve the same call comes first.
extern const ForwardInstance kForwardInstances[];
extern const int kForwardInstanceCount;
extern const char kInstancesJson[];

}  // namespace flash_attn::ck
