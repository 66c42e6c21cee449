// The tables of compiled instances; build_tools has them written by generate.py.
#pragma once

#include <hip/hip_runtime.h>

#include "params.h"

namespace flash_attn::ck {

// A compiled kernel: `archs` are the architectures in its binary, separated by spaces; the head
// dims of `features` are the largest that it takes, or with `exact` the only ones; `block` is the
// number of keys in its tile.
template <class Params>
struct Instance {
  const char* name;
  const char* archs;
  Features features;
  bool exact;
  int block;
  void (*launch)(const Params&, hipStream_t);
};

// The cheaper of two that serve the same call comes first; a row without a name ends a table.
extern const Instance<ForwardParams> kForwardInstances[];
extern const Instance<BackwardParams> kBackwardInstances[];
extern const Instance<SplitParams> kSplitInstances[];
extern const char kInstancesJson[];

}  // namespace flash_attn::ck
