#include "core/boxed.h"

#include <array>
#include <memory>
#include <optional>

#include "core/autocast.h"
#include "core/captured.h"
#include "core/coverage.h"
#include "core/recording.h"
#include "core/rule_scope.h"
#include "core/schema.h"
#include "core/torch_func.h"
#include "core/traits.h"

namespace functx {
namespace {

std::array<Fallback, 2> fallbacks{};

// `check_view_is_recorded` of the arguments on the stack that the operator writes to.
void check_written(const c10::FunctionSchema& schema, const torch::jit::Stack& stack) {
  const auto arguments = torch::jit::last(stack, schema.arguments().size());
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (is_written(schema.arguments()[i]) && arguments[i].isTensor()) {
      check_view_is_recorded(arguments[i].toTensor());
    }
  }
}

// `note_unrecorded_view` of the results on the stack, which fallbacks make.
void note_views(const torch::jit::Stack& stack, size_t count) {
  for (const auto& result : torch::jit::last(stack, count)) {
    if (result.isTensor()) {
      note_unrecorded_view(result.toTensor(), nullptr);
    } else if (result.isTensorList()) {
      note_unrecorded_view(result.toTensorVector(), nullptr);
    }
  }
}

// Holds what would otherwise have to be looked up at each call.
class BoxedKernelOf final : public c10::OperatorKernel {
 public:
  explicit BoxedKernelOf(const c10::OperatorHandle& op) : traits_(op) {}

  void operator()(const c10::OperatorHandle&, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
    run_boxed(traits_, keys, stack);
  }

 private:
  OperatorTraits traits_;
};

}  // namespace

void set_fallback(Transform transform, Fallback fallback) {
  fallbacks.at(static_cast<size_t>(transform)) = fallback;
}

void bump_versions(const c10::FunctionSchema& schema, const torch::jit::Stack& stack) {
  const auto arguments = torch::jit::last(stack, schema.arguments().size());
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (is_written(schema.arguments()[i]) && arguments[i].isTensor() &&
        as_wrapper(arguments[i].toTensor()) != nullptr) {
      arguments[i].toTensor().unsafeGetTensorImpl()->bump_version();
    }
  }
}

void run_boxed(const OperatorTraits& traits, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
  const c10::OperatorHandle& op = traits.handle;
  const auto operands = Operands::of_stack(*stack, op.schema().arguments().size());
  if (operands.top() == nullptr) {
    // Plain tensors under jvp, or wrappers in an argument that is neither a tensor nor a list of
    // them.
    std::optional<HideFrom> from_kernel;
    if (!traits.is_composite && goes_to_kernel(keys)) {
      from_kernel.emplace();
    }
    op.redispatchBoxed(keys.remove(kFrontKey), stack);
    return;
  }
  const LevelPtr level = operands.top()->level();
  if (keys.has(kFrontKey)) {
    if (yields_to_torch_func(operands, keys)) {
      op.redispatchBoxed(keys.remove(kFrontKey), stack);
      return;
    }
    if (autocast_is_on(keys)) {
      if (const auto casting = autocast_keys(op, keys); !casting.empty()) {
        op.redispatchBoxed(casting, stack);
        return;
      }
    }
    check_alive(*operands.top());
    const bool records = is_recorded(traits, operands, *level);
    if (records) {
      level->may_record = true;
      check_written(op.schema(), *stack);
    }
    // Into an `out=` of the caller's, a decomposition may write with tensors of its own, which are
    // the same for all examples.
    const bool decomposes =
        traits.is_composite && !(traits.has_out && level->transform == Transform::Vmap);
    if (records || decomposes) {
      check_not_captured(op.schema(), *stack);
      op.redispatchBoxed(traits.tape_keys, stack);
      return;
    }
    bump_versions(op.schema(), *stack);
  }
  {
    const RuleScope scope(*level);
    fallbacks.at(static_cast<size_t>(level->transform))(op, level, stack);
  }
  if (traits.is_differentiable_view && keys.has(kFrontKey)) {
    note_views(*stack, op.schema().returns().size());
  }
}

c10::KernelFunction boxed_kernel_of(const c10::OperatorHandle& op) {
  return c10::KernelFunction::makeFromBoxedFunctor(std::make_unique<BoxedKernelOf>(op));
}

void boxed_kernel(const c10::OperatorHandle& op, c10::DispatchKeySet keys,
                  torch::jit::Stack* stack) {
  // An operator that came after us: from now on it has a kernel of its own.
  cover(op);
  run_boxed(traits_of(op), keys, stack);
}

}  // namespace functx
