#include "dispatch.h"

#include <sstream>
#include <stdexcept>

#include "device.h"
#include "kernels.h"

namespace flash_attn {
namespace ck {
namespace {

bool lists(const char* archs, const std::string& arch) {
  std::istringstream words(archs);
  for (std::string word; words >> word;) {
    if (word == arch) return true;
  }
  return false;
}

// A masked kernel also serves a call without a mask: its window is unbounded then.
bool serves(const ForwardInstance& have, const Features& need) {
  const auto& can = have.features;
  const bool head_dims =
      have.exact ? can.head_dim == need.head_dim && can.head_dim_v == need.head_dim_v
                 : can.head_dim >= need.head_dim && can.head_dim_v >= need.head_dim_v;
  return head_dims && can.dtype == need.dtype && can.varlen == need.varlen &&
         can.masked >= need.masked && can.softcap == need.softcap && can.alibi == need.alibi &&
         can.dropout == need.dropout;
}

const ForwardInstance* find(const std::string& arch, const Features& need) {
  for (int n = 0; n < kForwardInstanceCount; ++n) {
    const auto& instance = kForwardInstances[n];
    if (serves(instance, need) && lists(instance.archs, arch)) return &instance;
  }
  return nullptr;
}

}  // namespace
}  // namespace ck

std::string instances() { return ck::kInstancesJson; }

bool has_forward(const std::string& arch, const Features& features) {
  return ck::find(arch, features) != nullptr;
}

void run_forward(const ForwardParams& params, void* stream) {
  const auto arch = architecture(current_device());
  const auto* instance = ck::find(arch, params);
  if (instance == nullptr) {
    throw std::runtime_error("no CK forward kernel was built that serves this call on " + arch);
  }
  instance->launch(params, static_cast<hipStream_t>(stream));
  check_launch(instance->name);
}

}  // namespace flash_attn
