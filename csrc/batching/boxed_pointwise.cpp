#include <algorithm>

#include "batching/boxed_rules.h"
#include "batching/dims.h"
#include "batching/pointwise.h"
#include "core/schema.h"

namespace functx {

void batch_pointwise(const c10::OperatorHandle& op, const LevelPtr& level,
                     torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  auto arguments = torch::jit::last(*stack, schema.arguments().size());
  Promotion promotion;
  int64_t rank = 0;
  bool is_batched = false;
  for (const auto& argument : arguments) {
    if (argument.isTensor() && argument.toTensor().defined()) {
      const Tensor& tensor = argument.toTensor();
      rank = std::max(rank, tensor.dim());
      is_batched = is_batched || unwrap_batched(level, tensor).is_batched;
      promotion.note_dtype(tensor.scalar_type());
      promotion.see(tensor);
    }
  }
  // Where the arguments that are written to stand: they are what the operator returns.
  std::vector<Tensor> written;
  torch::jit::Stack values;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (!arguments[i].isTensor()) {
      values.push_back(arguments[i]);
      continue;
    }
    const Tensor& tensor = arguments[i].toTensor();
    const Batched operand = unwrap_batched(level, tensor);
    if (is_written(schema.arguments()[i])) {
      check_inplace(op.schema().name().c_str(), level, tensor, is_batched);
      written.push_back(tensor);
      values.emplace_back(operand.value);
    } else {
      values.emplace_back(align_rank({promotion.cast(operand), operand.is_batched}, rank));
    }
  }
  torch::jit::drop(*stack, arguments.size());
  op.callBoxed(&values);
  if (!written.empty()) {
    stack->insert(stack->end(), written.begin(), written.end());
    return;
  }
  for (auto& value : values) {
    stack->emplace_back(value.isTensor()
                            ? c10::IValue(make_batched(level, {value.toTensor(), is_batched}))
                            : std::move(value));
  }
}

}  // namespace functx
