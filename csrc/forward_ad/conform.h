// Giving a tangent the shape and dtype of its primal.
#pragma once

#include "forward_ad/dual_tensor.h"

namespace functx {

// A dual of `primal` whose tangent was computed from operands that may have been broadcast or
// promoted on the way to it, or is that of an operand itself.
Dual conform(Tensor tangent, Tensor primal);

}  // namespace functx
