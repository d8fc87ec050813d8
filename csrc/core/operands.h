// Which level an operator call belongs to, read off its arguments.
#pragma once

#include <ATen/core/IListRef.h>
#include <ATen/core/List.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/stack.h>

#include <optional>

#include "core/wrapper.h"

namespace functx {

// The innermost wrapper among the arguments, whether one of its level has a tape, and whether there
// is one that hides a wrapper of ours.
class Operands {
 public:
  template <class... Args>
  explicit Operands(const Args&... args) {
    (see(args), ...);
  }

  static Operands of_stack(const torch::jit::Stack& stack, size_t count) {
    Operands operands;
    for (const auto& argument : torch::jit::last(stack, count)) {
      operands.see(argument);
    }
    return operands;
  }

  Wrapper* top() const { return top_; }
  // Whether an argument that is no wrapper of the top level may be on a tape.
  bool maybe_taped_below() const { return maybe_taped_below_; }
  bool taped() const { return taped_; }
  bool any_foreign() const { return any_foreign_; }

 private:
  void see(const Tensor& tensor) {
    if (!tensor.key_set().has(kFrontKey)) {
      maybe_taped_below_ = maybe_taped_below_ || has_autograd_metadata(tensor);
      return;
    }
    Wrapper* wrapper = as_wrapper(tensor);
    if (wrapper == nullptr) [[unlikely]] {
      any_foreign_ = true;
      return;
    }
    if (top_ == nullptr || wrapper->level_id() > top_->level_id()) {
      maybe_taped_below_ = maybe_taped_below_ || (top_ != nullptr && has_metadata_);
      top_ = wrapper;
      has_metadata_ = has_autograd_metadata(tensor);
      taped_ = wrapper->is_taped();
    } else if (wrapper->level_id() == top_->level_id()) {
      has_metadata_ = has_metadata_ || has_autograd_metadata(tensor);
      taped_ = taped_ || wrapper->is_taped();
    } else {
      maybe_taped_below_ = maybe_taped_below_ || has_autograd_metadata(tensor);
    }
  }

  void see(const std::optional<Tensor>& tensor) {
    if (tensor.has_value()) {
      see(*tensor);
    }
  }

  void see(const at::ITensorListRef& tensors) {
    for (const Tensor& tensor : tensors) {
      see(tensor);
    }
  }

  void see(const at::TensorList& tensors) {
    for (const Tensor& tensor : tensors) {
      see(tensor);
    }
  }

  void see(const c10::List<std::optional<Tensor>>& tensors) {
    for (const std::optional<Tensor> tensor : tensors) {
      see(tensor);
    }
  }

  void see(const c10::IValue& value) {
    if (value.isTensor()) {
      see(value.toTensor());
    } else if (value.isList()) {
      for (const c10::IValue& element : value.toListRef()) {
        if (element.isTensor()) {
          see(element.toTensor());
        }
      }
    }
  }

  // Sizes, dims, dtypes: nothing to see.
  template <class T>
  void see(const T&) {}

  static bool has_autograd_metadata(const Tensor& tensor) {
    return tensor.unsafeGetTensorImpl()->autograd_meta() != nullptr;
  }

  Wrapper* top_ = nullptr;
  bool has_metadata_ = false;  // of a wrapper of the top level
  bool maybe_taped_below_ = false;
  bool taped_ = false;
  bool any_foreign_ = false;
};

}  // namespace functx
