// Duals among the boxed arguments and results of an operator without a typed rule.
#pragma once

#include "core/boxed_tensors.h"
#include "core/schema.h"
#include "forward_ad/dual_tensor.h"

namespace functx {

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
