// Duals among the boxed arguments and results of an operator without a typed rule.
#pragma once

#include <ATen/core/stack.h>

#include "core/schema.h"
#include "forward_ad/dual_tensor.h"

namespace functx {

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

inline bool any_tangent(const LevelPtr& level, const torch::jit::Stack& arguments) {
  bool found = false;
  visit_tensors(arguments, [&](const Tensor& tensor) {
    found = found || unwrap_dual(level, tensor).has_tangent();
  });
  return found;
}

// Puts the results of an operator on the stack: what it has written to is among its arguments, and
// of what it has made `wrap` makes duals.
template <class Wrap>
void push_results(const c10::FunctionSchema& schema, const torch::jit::Stack& arguments,
                  const torch::jit::Stack& results, const Wrap& wrap, torch::jit::Stack* stack) {
  for (size_t position = 0; position < schema.returns().size(); ++position) {
    const auto written = written_argument(schema, schema.returns()[position]);
    stack->push_back(written ? arguments[*written] : map_tensors(results[position], wrap));
  }
}

}  // namespace functx
