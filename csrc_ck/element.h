// Element types and the launch that all CK-tile instances share.
#pragma once

#include <hip/hip_runtime.h>

#include "ck_tile/core.hpp"
#include "ck_tile/ops/epilogue.hpp"
#include "ck_tile/ops/fmha.hpp"
#include "params.h"

namespace flash_attn::ck {

using Float16 = ck_tile::half_t;
using BFloat16 = ck_tile::bf16_t;
// e4m3 as the architecture that is compiled for has it: FNUZ on gfx942, OCP's elsewhere.
using Float8 = ck_tile::fp8_t;

template <bool kMasked>
using Mask = ck_tile::SimplifiedGenericAttentionMask<kMasked>;

constexpr auto kMaskBottomRight =
    static_cast<ck_tile::index_t>(ck_tile::GenericAttentionMaskEnum::MASK_FROM_BOTTOM_RIGHT);

// One kernel symbol for each `Instance`, a type of its own: two architectures that share a CK-tile
// type would otherwise share a symbol, and with it one of their binaries.
template <class Instance>
__launch_bounds__(Instance::Kernel::kBlockSize, Instance::Kernel::kBlockPerCu) __global__
    void kernel(typename Instance::Kernel::Kargs kargs) {
#ifdef __HIP_DEVICE_COMPILE__
  typename Instance::Kernel{}(kargs);
#endif
}

template <class Instance>
void launch(dim3 grid, const typename Instance::Kernel::Kargs& kargs, hipStream_t stream) {
  kernel<Instance><<<grid, Instance::Kernel::BlockSize(), 0, stream>>>(kargs);
}

}  // namespace flash_attn::ck
