// Arguments that are not what an operator is to see, and what stands in for them: the value of a
// wrapper that is nothing but its value and has outlived its transform, and a wrapper on the same
// tape for a tensor that is on one above (tape_above.h).
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <type_traits>

#include "core/operands.h"
#include "core/tape_above.h"

namespace functx {

namespace detail {

inline bool any_tape_above(const Tensor& tensor) {
  return tensor.defined() && has_tape_above(tensor);
}
inline bool any_tape_above(const std::optional<Tensor>& tensor) {
  return tensor.has_value() && any_tape_above(*tensor);
}
template <class Tensors>
bool any_tape_above_in(const Tensors& tensors) {
  for (const std::optional<Tensor> tensor : tensors) {
    if (any_tape_above(tensor)) {
      return true;
    }
  }
  return false;
}
inline bool any_tape_above(const at::ITensorListRef& tensors) {
  for (const Tensor& tensor : tensors) {
    if (any_tape_above(tensor)) {
      return true;
    }
  }
  return false;
}
inline bool any_tape_above(const at::TensorList& tensors) { return any_tape_above_in(tensors); }
inline bool any_tape_above(const c10::List<std::optional<Tensor>>& tensors) {
  return any_tape_above_in(tensors);
}
template <class T>
bool any_tape_above(const T&) {
  return false;
}

// What is written to stays where it is: the tape that records the write is the one it is on.
template <class Arg>
bool is_read_from_tape_above(const std::remove_reference_t<Arg>& arg) {
  if constexpr (std::is_same_v<Arg, Tensor&>) {
    return false;
  } else {
    return any_tape_above(arg);
  }
}

}  // namespace detail

// Whether one of the arguments, which have `operands` among them, needs a stand-in.
template <class... Args>
bool need_stand_ins(const Operands& operands, const std::remove_reference_t<Args>&... args) {
  return has_outlived(*operands.top()) ||
         (operands.maybe_taped_below() && (detail::is_read_from_tape_above<Args>(args) || ...));
}
bool need_stand_ins(const Operands& operands, const c10::FunctionSchema& schema,
                    const torch::jit::Stack& stack);

// A boxed kernel: calls the operator anew with stand-ins. Raises for a wrapper that has escaped
// from its transform.
void call_with_stand_ins(const c10::OperatorHandle& op, c10::DispatchKeySet keys,
                         torch::jit::Stack* stack);

// The value of a wrapper that has outlived its transform, if it is nothing but that; any other
// tensor itself.
Tensor value_if_outlived(const Tensor& tensor);

}  // namespace functx
