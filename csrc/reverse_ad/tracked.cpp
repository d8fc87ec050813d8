#include "reverse_ad/tracked.h"

#include <algorithm>

#include "batching/batched_tensor.h"
#include "forward_ad/dual_tensor.h"

namespace functx {

std::vector<Tensor> values_of(const Tensor& tensor) {
  const Wrapper* wrapper = as_wrapper(tensor);
  if (wrapper == nullptr) {
    return {};
  }
  if (wrapper->level()->transform == Transform::Vmap) {
    return {static_cast<const BatchedTensor*>(wrapper)->value()};
  }
  const Dual dual = static_cast<const DualTensor*>(wrapper)->dual();
  return dual.has_tangent() ? std::vector<Tensor>{dual.primal, dual.tangent}
                            : std::vector<Tensor>{dual.primal};
}

Tensor innermost_value(const Tensor& tensor) {
  return as_wrapper(tensor) == nullptr ? tensor : innermost_value(values_of(tensor).front());
}

bool is_tracked_below(const Tensor& tensor) {
  const auto values = values_of(tensor);
  return std::any_of(values.begin(), values.end(), is_tracked);
}

bool is_tracked(const Tensor& tensor) { return tensor.requires_grad() || is_tracked_below(tensor); }

Tensor detach_all(const Tensor& tensor) {
  Wrapper* wrapper = as_wrapper(tensor);
  if (wrapper == nullptr) {
    return tensor.requires_grad() ? tensor.detach() : tensor;
  }
  if (!is_tracked(tensor)) {
    return tensor;
  }
  if (wrapper->level()->transform == Transform::Vmap) {
    const Batched batched = static_cast<const BatchedTensor*>(wrapper)->batched();
    return make_batched(wrapper->level(), {detach_all(batched.value), batched.is_batched});
  }
  Dual dual = static_cast<DualTensor*>(wrapper)->lend();
  dual.primal = detach_all(dual.primal);
  dual.tangent = dual.has_tangent() ? detach_all(dual.tangent) : dual.tangent;
  return make_dual(wrapper->level(), std::move(dual));
}

}  // namespace functx
