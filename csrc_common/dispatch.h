// The tables of compiled instances; a build has them written by build_tools/instances.py.
#pragma once

#include "params.h"

namespace flash_attn {

// A compiled kernel: `archs` are the devices that run it, as the runtime names them, separated by
// spaces; the head dims of `features` are the largest that it takes, or with `exact` the only ones;
// `block` is the number of keys in its tile.
template <class Params>
struct Instance {
  const char* name;
  const char* archs;
  Features features;
  bool exact;
  int block;
  void (*launch)(const Params&, void* stream);
};

// The cheaper of two that serve the same call comes first; a row without a name ends a table.
extern const Instance<ForwardParams> kForwardInstances[];
extern const Instance<BackwardParams> kBackwardInstances[];
extern const Instance<SplitParams> kSplitInstances[];
extern const char kInstancesJson[];

}  // namespace flash_attn
