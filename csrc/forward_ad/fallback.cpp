// What jvp does with an operator that has no rule.
#include "forward_ad/fallback.h"

#include <c10/util/Exception.h>

#include <mutex>
#include <unordered_set>

#include "core/alias.h"
#include "core/functional_variant.h"
#include "core/lift.h"
#include "core/registry.h"
#include "forward_ad/boxed_duals.h"
#include "forward_ad/inplace.h"

namespace functx {
namespace {

// Operators of other libraries have forward-mode formulas only where they are made of PyTorch's
// own, and then reverse-mode ones too. For the others PyTorch would drop the tangent and say
// nothing.
bool is_custom(const c10::OperatorHandle& op) {
  const std::string& name = op.schema().name();
  return !name.starts_with("aten::") && !name.starts_with("prim");
}

// Operators of PyTorch's for which it has a reverse-mode formula only, as was found out.
class ReverseOnly {
 public:
  bool contains(const c10::OperatorHandle& op) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return names_.count(op.operator_name()) != 0;
  }
  void add(const c10::OperatorHandle& op) {
    const std::lock_guard<std::mutex> lock(mutex_);
    names_.insert(op.operator_name());
  }

 private:
  mutable std::mutex mutex_;
  std::unordered_set<c10::OperatorName> names_;
};

// With `native_error`, which says that there is no forward-mode formula.
void differentiate_in_reverse_only(const c10::OperatorHandle& op, const LevelPtr& level,
                                   const torch::jit::Stack& arguments, torch::jit::Stack* stack,
                                   const c10::NotImplementedError& native_error) {
  try {
    differentiate_by_double_reverse(op, level, arguments, stack);
  } catch (const c10::NotImplementedError&) {
    throw;
  } catch (const c10::OutOfMemoryError&) {
    throw;
  } catch (const c10::Error&) {
    // An operator that PyTorch calls by itself where there is nothing to differentiate.
    TORCH_CHECK_NOT_IMPLEMENTED(false, "functx.jvp: ", op.operator_name(),
                                " has no derivative, neither in forward nor in reverse mode: ",
                                native_error.what_without_backtrace());
  }
}

void differentiate_by_a_formula(const c10::OperatorHandle& op, const LevelPtr& level,
                                const torch::jit::Stack& arguments, torch::jit::Stack* stack) {
  static ReverseOnly reverse_only;
  if (is_custom(op) || reverse_only.contains(op)) {
    differentiate_by_double_reverse(op, level, arguments, stack);
    return;
  }
  try {
    differentiate_natively(op, level, arguments, stack);
  } catch (const c10::NotImplementedError& error) {
    // An operator that writes has done so by now.
    if (op.schema().is_mutable()) {
      throw;
    }
    differentiate_in_reverse_only(op, level, arguments, stack, error);
    reverse_only.add(op);
  }
}

void write(const c10::OperatorHandle& op, const LevelPtr& level, const Tensor& destination,
           const Tensor& result) {
  const auto& name = op.schema().name();
  const Dual dual = unwrap_dual(level, result);
  check_can_hold_tangent(name.c_str(), level, destination, dual.has_tangent());
  if (destination.sym_numel() == 0) {
    // PyTorch gives an empty `out=` the shape it needs.
    destination.resize__symint(result.sym_sizes());
  }
  TORCH_CHECK(destination.sym_sizes() == result.sym_sizes(), "functx.jvp: ", op.operator_name(),
              " writes a result of shape ", result.sym_sizes(), " into a tensor of shape ",
              destination.sym_sizes(),
              ". A tensor with a tangent cannot be resized: pass one of the shape of the result.");
  TORCH_CHECK(c10::canCast(result.scalar_type(), destination.scalar_type()),
              "functx.jvp: ", op.operator_name(), ": result type ", result.scalar_type(),
              " can't be cast to the desired output type ", destination.scalar_type());
  unwrap_dual(level, destination).primal.copy_(dual.primal);
  write_tangent_of(name.c_str(), level, destination, result);
}

// What the functional operator gets, which a tape below may save for its backward: not what is
// written to next, then. The tape of this level, if there is one, has recorded the operator as a
// whole.
torch::jit::Stack functional_arguments(const LevelPtr& level, const FunctionalCall& call) {
  bool is_saved = false;
  visit_tensors(call.arguments, [&](const Tensor& tensor) {
    const Dual dual = unwrap_dual(level, tensor);
    is_saved = is_saved || detail::is_recorded_below(dual.primal, dual.tangent);
  });
  const auto is_overwritten = [&](const Tensor& tensor) {
    bool found = false;
    visit_tensors(call.destinations,
                  [&](const Tensor& destination) { found = found || destination.is_same(tensor); });
    return found;
  };
  return map_tensors(call.arguments, [&](const Tensor& tensor) {
    if (at_level<DualTensor>(tensor, *level) == nullptr) {
      return tensor;
    }
    return is_saved && is_overwritten(tensor) ? detail::old_value(level, unwrap_dual(level, tensor))
                                              : alias_wrapper(tensor);
  });
}

void differentiate_functional_variant(const c10::OperatorHandle& op, const LevelPtr& level,
                                      const torch::jit::Stack& arguments,
                                      torch::jit::Stack* stack) {
  if (const auto calls = one_by_one(op, arguments); !calls.empty()) {
    for (const torch::jit::Stack& each : calls) {
      differentiate_functional_variant(op, level, each, stack);
    }
    return;
  }
  const FunctionalCall call = functional_call(op, arguments);
  torch::jit::Stack results = functional_arguments(level, call);
  call.op.callBoxed(&results);
  for (size_t i = 0; i < call.destinations.size(); ++i) {
    write_results(op.schema(), call.destinations[i], results[i],
                  [&](const Tensor& destination, const Tensor& result) {
                    write(op, level, destination, lift(result, level));
                  });
  }
  return_destinations(op, call.destinations, stack);
}

void differentiate(const c10::OperatorHandle& op, const LevelPtr& level, torch::jit::Stack* stack) {
  const torch::jit::Stack arguments = torch::jit::pop(*stack, op.schema().arguments().size());
  if (!any_tangent(level, arguments)) {
    run_on_primals(op, level, arguments, stack);
  } else if (has_functional_variant(op)) {
    differentiate_functional_variant(op, level, arguments, stack);
  } else {
    differentiate_by_a_formula(op, level, arguments, stack);
  }
}

FUNCTX_RULES(jvp_fallback) { set_fallback(Transform::Jvp, differentiate); }

}  // namespace

void run_on_primals(const c10::OperatorHandle& op, const LevelPtr& level,
                    const torch::jit::Stack& arguments, torch::jit::Stack* stack) {
  torch::jit::Stack values = map_tensors(
      arguments, [&](const Tensor& tensor) { return unwrap_dual(level, tensor).primal; });
  op.callBoxed(&values);
  push_results(
      op.schema(), arguments, values,
      [&](const Tensor& result) { return make_dual(level, {result, {}}); }, stack);
}

}  // namespace functx
