// The factors of a matrix that an operator saves for its backward.
#pragma once

#include "core/tape_inside.h"
#include "forward_ad/native_rule.h"

namespace functx {

// The factors that a backward reads have a tangent. Nobody else sees them.
inline Tensor saved_factors(const LevelPtr& level, const Tensor& a, const Tensor& lu,
                            bool of_transpose) {
  const Dual dual = unwrap_dual(level, a);
  if (!dual.has_tangent() || !(a.requires_grad() || has_tape_inside(*level))) {
    return make_dual(level, {lu, {}});
  }
  const Dual factored = of_transpose ? Dual{dual.primal.mT(), dual.tangent.mT(), false} : dual;
  return std::get<0>(
      Native<ops::linalg_lu_factor_ex>::call(make_dual(level, factored), true, false));
}

}  // namespace functx
