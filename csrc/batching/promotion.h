// Type promotion as the logical shapes ask for it.
#pragma once

#include <ATen/native/TypeProperties.h>
#include <c10/core/ScalarType.h>

#include "batching/batched_tensor.h"

namespace functx {

// A zero-dimensional operand gives way to one with dimensions in type promotion. Under vmap both
// have dimensions, so where dtypes differ such an operand is cast before the call.
class Promotion {
 public:
  void note_dtype(c10::ScalarType dtype) {
    if (dtype == c10::kBool) {
      return;  // it gives way to all others, wherever it stands
    }
    mixed_ = mixed_ || (seen_ && dtype != first_);
    first_ = seen_ ? first_ : dtype;
    seen_ = true;
  }

  bool needed() const { return mixed_; }

  // Called with the logical tensors, once it is known that promotion is needed.
  void see(const Tensor& tensor) {
    if (tensor.defined()) {
      state_ = at::native::update_result_type_state(tensor, state_);
    }
  }
  void see(const std::optional<Tensor>& tensor) {
    if (tensor.has_value()) {
      see(*tensor);
    }
  }
  template <class T>
  void see(const T&) {}

  Tensor cast(const Batched& operand) const {
    // Masks have to stay masks.
    if (!mixed_ || !operand.is_batched || operand.logical_dim() > 0 ||
        operand.value.scalar_type() == c10::kBool) {
      return operand.value;
    }
    return operand.value.to(at::native::result_type(state_));
  }

 private:
  at::native::ResultTypeState state_{};
  c10::ScalarType first_ = c10::ScalarType::Undefined;
  bool seen_ = false;
  bool mixed_ = false;
};

}  // namespace functx
