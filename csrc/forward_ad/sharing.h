// Tangents that have more than one holder: nobody may write to them in place.
#pragma once

#include <ATen/core/IListRef.h>
#include <ATen/core/List.h>
#include <ATen/core/stack.h>
#include <c10/util/SmallVector.h>

#include "forward_ad/dual_tensor.h"

namespace functx {

// Whether the two may be made of the same memory; undefined ones are not.
bool may_share_memory(const Tensor& a, const Tensor& b);

// `tensor` as a dual that no tape of this level sees.
Tensor untaped(const LevelPtr& level, const Tensor& tensor);

// The arguments of a rule, whose tangents a result may have taken over.
class Lenders {
 public:
  template <class... Args>
  explicit Lenders(const LevelPtr& level, const Args&... args) {
    (see(*level, args), ...);
  }

  // `result`, owning its tangent only if that shares no memory with the one of an argument. If it
  // does, the argument does not own its tangent any more either: whoever writes first makes a copy.
  Dual settle(Dual result) const;

 private:
  void see(const Level& level, const Tensor& tensor) {
    auto* wrapper = at_level<DualTensor>(tensor, level);
    if (wrapper != nullptr && wrapper->tangent().defined()) {
      lenders_.push_back(wrapper);
    }
  }

  void see(const Level& level, const std::optional<Tensor>& tensor) {
    if (tensor.has_value()) {
      see(level, *tensor);
    }
  }

  void see(const Level& level, const at::ITensorListRef& tensors) { see_all(level, tensors); }
  void see(const Level& level, const at::TensorList& tensors) { see_all(level, tensors); }

  void see(const Level& level, const c10::List<std::optional<Tensor>>& tensors) {
    for (const std::optional<Tensor> tensor : tensors) {
      see(level, tensor);
    }
  }

  void see(const Level& level, const torch::jit::Stack& arguments) {
    for (const c10::IValue& argument : arguments) {
      see(level, argument);
    }
  }

  void see(const Level& level, const c10::IValue& argument) {
    if (argument.isTensor()) {
      see(level, argument.toTensor());
    } else if (argument.isList()) {
      for (const c10::IValue& element : argument.toListRef()) {
        see(level, element);
      }
    }
  }

  // Sizes, dims, dtypes: nothing to see.
  template <class T>
  void see(const Level&, const T&) {}

  template <class Tensors>
  void see_all(const Level& level, const Tensors& tensors) {
    for (const Tensor& tensor : tensors) {
      see(level, tensor);
    }
  }

  c10::SmallVector<DualTensor*, 4> lenders_;
};

}  // namespace functx
