// Reducing losses per example, and spreading the gradient of a reduced loss again.
#pragma once

#include <ATen/core/Reduction.h>

#include "batching/batched_tensor.h"

namespace functx {

// Losses [B, ...] of single elements or rows, reduced to [B].
inline Tensor reduce_each(const Tensor& losses, int64_t reduction) {
  if (reduction == at::Reduction::None || (losses.dim() == 1 && losses.defined())) {
    return losses;
  }
  const Tensor flat = losses.dim() == 2 ? losses : losses.flatten(1);
  return reduction == at::Reduction::Mean ? flat.mean(1) : flat.sum(1);
}

}  // namespace functx
