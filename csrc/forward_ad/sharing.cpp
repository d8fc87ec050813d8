#include "forward_ad/sharing.h"

#include "batching/batched_tensor.h"

namespace functx {

bool may_share_memory(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined()) {
    return false;
  }
  if (a.is_same(b)) {
    return true;
  }
  if (const Wrapper* wrapper = as_wrapper(a)) {
    if (wrapper->level()->transform == Transform::Vmap) {
      return may_share_memory(static_cast<const BatchedTensor*>(wrapper)->value(), b);
    }
    const auto& dual = *static_cast<const DualTensor*>(wrapper);
    return may_share_memory(dual.primal(), b) || may_share_memory(dual.tangent(), b);
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
