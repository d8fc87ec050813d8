#include "core/stand_ins.h"

#include "core/boxed_tensors.h"
#include "core/schema.h"

namespace functx {
namespace {

Tensor stand_in(const Tensor& tensor, bool is_written) {
  if (!tensor.defined()) {
    return tensor;
  }
  const Wrapper* wrapper = as_wrapper(tensor);
  if (wrapper != nullptr && has_outlived(*wrapper)) {
    const Tensor value = value_if_outlived(tensor);
    if (value.is_same(tensor)) {
      check_alive(*wrapper);
    }
    return stand_in(value, is_written);
  }
  const LevelPtr stratum = is_written ? LevelPtr() : stratum_above(tensor);
  return stratum != nullptr ? lift(tensor, stratum) : tensor;
}

}  // namespace

Tensor value_if_outlived(const Tensor& tensor) {
  const Wrapper* wrapper = as_wrapper(tensor);
  const bool is_value = wrapper != nullptr && !wrapper->level()->alive && wrapper->is_its_value() &&
                        !tensor.requires_grad();
  return is_value ? value_if_outlived(wrapper->values()[0]) : tensor;
}

bool need_stand_ins(const Operands& operands, const c10::FunctionSchema& schema,
                    const torch::jit::Stack& stack) {
  if (has_outlived(*operands.top())) {
    return true;
  }
  if (!operands.maybe_taped_below()) {
    return false;
  }
  const auto arguments = torch::jit::last(stack, schema.arguments().size());
  bool found = false;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (!is_written(schema.arguments()[i])) {
      visit_tensors(arguments[i],
                    [&](const Tensor& tensor) { found = found || detail::any_tape_above(tensor); });
    }
  }
  return found;
}

void call_with_stand_ins(const c10::OperatorHandle& op, c10::DispatchKeySet,
                         torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const torch::jit::Stack arguments = torch::jit::pop(*stack, schema.arguments().size());
  torch::jit::Stack results;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const bool written = is_written(schema.arguments()[i]);
    results.push_back(
        map_tensors(arguments[i], [&](const Tensor& tensor) { return stand_in(tensor, written); }));
  }
  op.callBoxed(&results);
  for (size_t i = 0; i < results.size(); ++i) {
    const auto written = written_argument(schema, schema.returns()[i]);
    stack->push_back(written ? arguments[*written] : results[i]);
  }
}

}  // namespace functx
