#include "reverse_ad/differentiated.h"

#include "batching/batched_tensor.h"
#include "forward_ad/dual_tensor.h"

namespace functx {

bool is_differentiated(const Tensor& tensor) {
  if (!tensor.defined()) {
    return false;
  }
  if (tensor.requires_grad() && c10::GradMode::is_enabled()) {
    return true;
  }
  const Wrapper* wrapper = as_wrapper(tensor);
  if (wrapper == nullptr) {
    return false;
  }
  if (wrapper->level()->transform == Transform::Vmap) {
    return is_differentiated(static_cast<const BatchedTensor*>(wrapper)->value());
  }
  const auto* dual = static_cast<const DualTensor*>(wrapper);
  return dual->tangent().defined() || is_differentiated(dual->primal());
}

}  // namespace functx
