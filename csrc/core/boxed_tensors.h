// The tensors among the boxed arguments or results of an operator.
#pragma once

#include <ATen/core/List.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/stack.h>

namespace functx {

using at::Tensor;

// Calls `visit` with each tensor in an argument.
template <class Visit>
void visit_tensors(const c10::IValue& value, const Visit& visit) {
  if (value.isTensor()) {
    visit(value.toTensor());
  } else if (value.isList()) {
    for (const c10::IValue& element : value.toListRef()) {
      visit_tensors(element, visit);
    }
  }
}

template <class Visit>
void visit_tensors(const torch::jit::Stack& values, const Visit& visit) {
  for (const c10::IValue& value : values) {
    visit_tensors(value, visit);
  }
}

// An argument or result with `change` of each tensor in it.
template <class Change>
c10::IValue map_tensors(const c10::IValue& value, const Change& change) {
  if (value.isTensor()) {
    return change(value.toTensor());
  }
  if (value.isList()) {
    auto copy = c10::impl::GenericList(value.toList().elementType());
    for (const c10::IValue& element : value.toListRef()) {
      copy.push_back(map_tensors(element, change));
    }
    return copy;
  }
  return value;
}

template <class Change>
torch::jit::Stack map_tensors(const torch::jit::Stack& values, const Change& change) {
  torch::jit::Stack mapped;
  mapped.reserve(values.size());
  for (const c10::IValue& value : values) {
    mapped.push_back(map_tensors(value, change));
  }
  return mapped;
}

}  // namespace functx
