// Reducing the terms of a loss.
#pragma once

#include <ATen/core/Reduction.h>

#include "forward_ad/dual_tensor.h"

namespace functx {

inline constexpr int64_t no_reduction = at::Reduction::None;

inline Tensor reduce_loss(const Tensor& terms, int64_t reduction) {
  return reduction == at::Reduction::Mean  ? terms.mean()
         : reduction == at::Reduction::Sum ? terms.sum()
                                           : terms;
}

}  // namespace functx
