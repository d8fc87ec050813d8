// Operators that write, in place or into `out=`, in terms of the functional operator of the same
// name: add for add_ and for add.out.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

namespace functx {

// Whether `op` writes to its arguments what another operator would return.
bool has_functional_variant(const c10::OperatorHandle& op);

// A call of that operator.
struct FunctionalCall {
  c10::OperatorHandle op;
  torch::jit::Stack arguments;
  // Where its results belong: a tensor or a list of tensors for each.
  torch::jit::Stack destinations;
};

// What a call of `op`, which has a functional variant, comes to.
FunctionalCall functional_call(const c10::OperatorHandle& op, const torch::jit::Stack& arguments);

// The arguments of `op` for one tensor of the list that it writes to after the other, if two of
// these share memory: then each reads what the one before it has written. Else none.
std::vector<torch::jit::Stack> one_by_one(const c10::OperatorHandle& op,
                                          const torch::jit::Stack& arguments);

// Puts on the stack what `op` returns, having written to `destinations`.
void return_destinations(const c10::OperatorHandle& op, const torch::jit::Stack& destinations,
                         torch::jit::Stack* stack);

// Calls `write` with each tensor to be written to and its result; an optional one may be missing.
template <class Write>
void write_results(const c10::FunctionSchema& schema, const c10::IValue& destination,
                   const c10::IValue& result, const Write& write) {
  if (destination.isTensor()) {
    write(destination.toTensor(), result.toTensor());
    return;
  }
  if (!destination.isList()) {
    return;
  }
  const auto& destinations = destination.toListRef();
  const auto& results = result.toListRef();
  TORCH_CHECK(destinations.size() == results.size(), "functx: ", schema.name(), " has ",
              results.size(), " results, and writes to ", destinations.size(), " tensors.");
  for (size_t i = 0; i < results.size(); ++i) {
    write(destinations[i].toTensor(), results[i].toTensor());
  }
}

}  // namespace functx
