// Operators whose result is a Python number, or has a shape that depends on the data: for a batch
// there is no one answer.
#include <algorithm>

#include "batching/boxed_rules.h"
#include "batching/rule.h"

namespace functx {
namespace {

// For one value that all examples share there is an answer. The tensors unwrapped.
template <class... Tensors>
void check_shared(const char* call, const Tensors&... tensors) {
  TORCH_CHECK(
      !detail::any_batched(tensors...), "functx.vmap: ", call,
      " was called on a tensor that differs between examples, so it has no one value. vmap: "
      "It looks like you're calling .item() on a Tensor, or do something that does, such as "
      "bool(x), float(x) or `if x:` (data-dependent control flow). Use torch.where for "
      "control flow, x.index_select(0, i) to index with a tensor i of dimension 0, or "
      "return the tensor from the function.");
}

at::Scalar local_scalar(const Batched& self) {
  check_shared(".item()", self);
  return ops::_local_scalar_dense::call(self.value);
}

bool equal(const Batched& self, const Batched& other) {
  check_shared("torch.equal", self, other);
  return ops::equal::call(self.value, other.value);
}

bool allclose(const Batched& self, const Batched& other, double rtol, double atol, bool equal_nan) {
  check_shared("torch.allclose", self, other);
  return ops::allclose::call(self.value, other.value, rtol, atol, equal_nan);
}

bool is_batched_at(const LevelPtr& level, const c10::IValue& argument) {
  return argument.isTensor() && unwrap_batched(level, argument.toTensor()).is_batched;
}

void refuse_batched(const c10::OperatorHandle& op, const LevelPtr& level,
                    torch::jit::Stack* stack) {
  const auto arguments = torch::jit::last(*stack, op.schema().arguments().size());
  const bool any_batched = std::any_of(arguments.begin(), arguments.end(), [&](const auto& each) {
    return is_batched_at(level, each);
  });
  TORCH_CHECK(
      !any_batched, "functx.vmap: the shape of the result of ", op.operator_name(),
      " depends on the data (data-dependent shape): it could differ between examples, which "
      "cannot be one batch. Call it outside vmap, or use an operator whose result has a "
      "fixed shape, such as torch.where with three arguments, sort, or nonzero_static.");
  loop_silently(op, level, stack);
}

}  // namespace

FUNCTX_RULES(data_dependent) {
  batching_rule<ops::_local_scalar_dense, local_scalar>();
  batching_rule<ops::equal, equal>();
  batching_rule<ops::allclose, allclose>();
  boxed_batching_rule({"aten::nonzero", "aten::_unique", "aten::_unique2", "aten::unique_dim",
                       "aten::unique_consecutive", "aten::unique_dim_consecutive", "aten::bincount",
                       "aten::repeat_interleave.Tensor"},
                      refuse_batched);
}

}  // namespace functx
