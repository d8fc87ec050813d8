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
  const auto values = wrapper->values();
  return values.size() > 1 || is_differentiated(values[0]);  // two: there is a tangent
}

}  // namespace functx
