// What the host's compiler reads at the places where HIP's header has the fields of
// hipDeviceProp_t.
#include "check.h"

extern "C" int properties(long long* numbers, char* architecture) {
  hipDeviceProp_t p;
  int processors, wave, lds, major, minor;
  TRY(hipGetDeviceProperties(&p, 0));
  TRY(hipDeviceGetAttribute(&processors, hipDeviceAttributeMultiprocessorCount, 0));
  TRY(hipDeviceGetAttribute(&wave, hipDeviceAttributeWarpSize, 0));
  TRY(hipDeviceGetAttribute(&lds, hipDeviceAttributeMaxSharedMemoryPerBlock, 0));
  TRY(hipDeviceGetAttribute(&major, hipDeviceAttributeComputeCapabilityMajor, 0));
  TRY(hipDeviceGetAttribute(&minor, hipDeviceAttributeComputeCapabilityMinor, 0));
  const long long pairs[][2] = {
      {p.multiProcessorCount, processors},
      {p.warpSize, wave},
      {static_cast<long long>(p.sharedMemPerBlock), lds},
      {p.major, major},
      {p.minor, minor},
      {p.maxThreadsPerBlock, p.maxThreadsDim[0]},
      {static_cast<long long>(p.maxSharedMemoryPerMultiProcessor),
       static_cast<long long>(p.sharedMemPerMultiprocessor)},
  };
  for (const auto& pair : pairs) *numbers++ = pair[0], *numbers++ = pair[1];
  __builtin_strcpy(architecture, p.gcnArchName);
  return hipSuccess;
}
