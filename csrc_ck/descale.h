// Descales of 8-bit operands, which CK-tile takes as numbers of the whole call, read on the device
// for each sequence and head of k.
#pragma once

#include "element.h"

namespace flash_attn::ck {

// The forward kernel `Base`, whose scales are those of the sequence and head that a work-group has.
//
// Probabilities are in [0, 1]; as `Element` they are multiplied by its largest number, so that they
// are rounded relative to themselves as far down as it goes.
template <class Base, class Element>
struct Descaled : Base {
  struct Kargs : Base::Kargs {
    Descale q_descale, k_descale, v_descale;
  };

  CK_TILE_DEVICE void operator()(Kargs kargs) const {
    const auto tile = Base::GetTileIndex(kargs);
    const auto head_k = tile[ck_tile::number<2>{}] / kargs.nhead_ratio_qk;
    const auto batch = tile[ck_tile::number<3>{}];
    const auto worth = [&](const Descale& descale) {
      return descale.values == nullptr
                 ? 1.f
                 : descale.values[int64_t{batch} * descale.batch + int64_t{head_k} * descale.head];
    };
    const float largest = ck_tile::type_convert<float>(ck_tile::numeric<Element>::max());
    kargs.scale_s *= worth(kargs.q_descale) * worth(kargs.k_descale);
    kargs.scale_p = largest;
    kargs.scale_o = worth(kargs.v_descale) / largest;
    Base::operator()(kargs);
  }
};

}  // namespace flash_attn::ck
