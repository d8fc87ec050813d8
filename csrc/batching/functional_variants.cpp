// Operators that write, in place or into `out=`, and have no rule of their own: the functional
// operator of the same name computes the result, which is then copied to where it belongs.
#include "batching/functional_variants.h"

#include <c10/core/ScalarType.h>

#include "batching/boxed_rules.h"
#include "batching/dims.h"

namespace functx {
namespace {

void write(const c10::OperatorHandle& op, const LevelPtr& level, const Tensor& destination,
           const Tensor& result) {
  const Batched to = unwrap_batched(level, destination);
  const Batched from = unwrap_batched(level, result);
  TORCH_CHECK(!from.is_batched || to.is_batched, "functx.vmap: ", op.operator_name(),
              " writes into a tensor that is the same for every example, but an argument differs "
              "between examples, so the result would have to be a batch of tensors. Use the "
              "operator that returns a new tensor instead, or write into one that was made from a "
              "batched tensor x, for example by x.new_zeros(...).");
  if (destination.sym_numel() == 0) {
    // PyTorch gives an empty `out=` the shape it needs.
    destination.resize__symint(result.sym_sizes());
  }
  TORCH_CHECK(destination.sym_sizes() == result.sym_sizes(), "functx.vmap: ", op.operator_name(),
              " writes a result of shape ", result.sym_sizes(), " into a tensor of shape ",
              destination.sym_sizes(),
              ". Under vmap it cannot be resized: pass one of the shape of the result.");
  TORCH_CHECK(c10::canCast(result.scalar_type(), destination.scalar_type()),
              "functx.vmap: ", op.operator_name(), ": result type ", result.scalar_type(),
              " can't be cast to the desired output type ", destination.scalar_type());
  unwrap_batched(level, destination).value.copy_(from.value);
}

}  // namespace

void batch_by_functional_variant(const c10::OperatorHandle& op, const LevelPtr& level,
                                 torch::jit::Stack* stack) {
  const torch::jit::Stack arguments = torch::jit::pop(*stack, op.schema().arguments().size());
  if (auto calls = one_by_one(op, arguments); !calls.empty()) {
    for (torch::jit::Stack& each : calls) {
      batch_by_functional_variant(op, level, &each);
    }
    return;
  }
  FunctionalCall call = functional_call(op, arguments);
  for (c10::IValue& argument : call.arguments) {
    argument = without_tape(level, argument);
  }
  call.op.callBoxed(&call.arguments);
  for (size_t i = 0; i < call.destinations.size(); ++i) {
    write_results(op.schema(), call.destinations[i], call.arguments[i],
                  [&](const Tensor& destination, const Tensor& result) {
                    write(op, level, destination, result);
                  });
  }
  return_destinations(op, call.destinations, stack);
}

}  // namespace functx
