#include "dispatch.h"

#include <map>
#include <sstream>
#include <stdexcept>

#include "device.h"
#include "kernels.h"

namespace flash_attn {
namespace {

bool lists(const char* archs, const std::string& arch) {
  std::istringstream words(archs);
  for (std::string word; words >> word;) {
    if (word == arch) return true;
  }
  return false;
}

// A masked kernel also serves a call without a mask: its window is unbounded then. A deterministic
// one needs other buffers, so it serves none that does not ask for it.
bool serves(const Features& can, bool exact, const Features& need) {
  const bool head_dims = exact ? can.head_dim == need.head_dim && can.head_dim_v == need.head_dim_v
                               : can.head_dim >= need.head_dim && can.head_dim_v >= need.head_dim_v;
  return head_dims && can.dtype == need.dtype && can.varlen == need.varlen &&
         can.paged == need.paged && can.masked >= need.masked && can.softcap == need.softcap &&
         can.alibi == need.alibi && can.dropout == need.dropout &&
         can.deterministic == need.deterministic;
}

template <class Params>
const Instance<Params>* find(const Instance<Params>* table, const std::string& arch,
                             const Features& need) {
  for (; table->name != nullptr; ++table) {
    if (serves(table->features, table->exact, need) && lists(table->archs, arch)) return table;
  }
  return nullptr;
}

// The runtime takes long to describe a device, and every launch asks.
const std::string& current_architecture() {
  thread_local std::map<int, std::string> known;
  const int device = current_device();
  const auto found = known.find(device);
  return found != known.end() ? found->second
                              : known.emplace(device, architecture(device)).first->second;
}

template <class Params>
void run(const Instance<Params>* table, const char* phase, const Params& params, void* stream) {
  const auto& arch = current_architecture();
  const auto* instance = find(table, arch, params);
  if (instance == nullptr) {
    throw std::runtime_error("no kernel of the " + std::string(phase) +
                             " was built that serves this call on " + arch);
  }
  instance->launch(params, stream);
  check_launch(instance->name);
}

}  // namespace

std::string instances() { return kInstancesJson; }

int kernel_block(const std::string& phase, const std::string& arch, const Features& features) {
  const auto block = [&](const auto* table) {
    const auto* instance = find(table, arch, features);
    return instance == nullptr ? 0 : instance->block;
  };
  if (phase == "forward") return block(kForwardInstances);
  if (phase == "backward") return block(kBackwardInstances);
  if (phase == "split") return block(kSplitInstances);
  throw std::runtime_error("phase is " + phase + "; accepted are forward, backward, split");
}

void run_forward(const ForwardParams& params, void* stream) {
  run(kForwardInstances, "forward", params, stream);
}

void run_backward(const BackwardParams& params, void* stream) {
  run(kBackwardInstances, "backward", params, stream);
}

void run_split(const SplitParams& params, void* stream) {
  run(kSplitInstances, "split-key forward", params, stream);
}

}  // namespace flash_attn
