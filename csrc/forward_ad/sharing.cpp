#include "forward_ad/sharing.h"

#include <algorithm>

namespace functx {

bool may_share_memory(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined()) {
    return false;
  }
  if (a.is_same(b)) {
    return true;
  }
  if (const Wrapper* wrapper = as_wrapper(a)) {
    const auto values = wrapper->values();
    return std::any_of(values.begin(), values.end(),
                       [&](const Tensor& value) { return may_share_memory(value, b); });
  }
  if (as_wrapper(b) != nullptr) {
    return may_share_memory(b, a);
  }
  return !a.has_storage() || !b.has_storage() || a.is_alias_of(b);
}

Tensor untaped(const LevelPtr& level, const Tensor& tensor) {
  auto* wrapper = at_level<DualTensor>(tensor, *level);
  return make_dual(level, wrapper != nullptr ? wrapper->lend() : Dual{tensor, {}});
}

Dual Lenders::settle(Dual result) const {
  if (result.has_tangent()) {
    for (DualTensor* lender : lenders_) {
      if (may_share_memory(result.tangent, lender->tangent())) {
        lender->lend_tangent();
        result.owns_tangent = false;
      }
    }
  }
  return result;
}

}  // namespace functx
