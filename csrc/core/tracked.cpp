#include "core/tracked.h"

#include <algorithm>

namespace functx {

Tensor innermost_value(Tensor tensor) {
  while (const Wrapper* wrapper = as_wrapper(tensor)) {
    tensor = wrapper->values()[0];
  }
  return tensor;
}

bool is_tracked_below(const Tensor& tensor) {
  const Wrapper* wrapper = as_wrapper(tensor);
  if (wrapper == nullptr) {
    return false;
  }
  const auto values = wrapper->values();
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
  auto values = wrapper->values();
  std::transform(values.begin(), values.end(), values.begin(), detach_all);
  return wrapper->around(values);
}

}  // namespace functx
