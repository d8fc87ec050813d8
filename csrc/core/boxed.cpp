#include "core/boxed.h"

#include <array>
#include <memory>
#include <optional>

#include "core/autocast.h"
#include "core/boxed_tensors.h"
#include "core/captured.h"
#include "core/coverage.h"
#include "core/recording.h"
#include "core/rule_scope.h"
#include "core/schema.h"
#include "core/stand_ins.h"
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

// What `op`, which autograd is about to record, writes to, if that is one tensor.
const Tensor* written_tensor(const c10::FunctionSchema& schema, const torch::jit::Stack& stack) {
  const auto arguments = torch::jit::last(stack, schema.arguments().size());
  const bool is_one =
      !arguments.empty() && is_written(schema.arguments().front()) && arguments.front().isTensor();
  return is_one ? &arguments.front().toTensor() : nullptr;
}

void record_write(const OperatorTraits& traits, const Level& level, torch::jit::Stack* stack) {
  const auto& schema = traits.handle.schema();
  const Tensor* target = written_tensor(schema, *stack);
  if (target == nullptr || level_id_of(*target) == level.id) {
    traits.handle.redispatchBoxed(traits.tape_keys, stack);
    return;
  }
  const Tensor self = *target;
  std::vector<Tensor> sources;
  for (const auto& argument : torch::jit::last(*stack, schema.arguments().size()).slice(1)) {
    visit_tensors(argument, [&](const Tensor& tensor) { sources.push_back(tensor); });
  }
  check_one_tape(schema.name().c_str(), level, self, sources);
  traits.handle.redispatchBoxed(traits.tape_keys, stack);
  note_tape_above(self, level);
}

void bump_version_of_wrapper(const Tensor& tensor) {
  if (as_wrapper(tensor) != nullptr) {
    tensor.unsafeGetTensorImpl()->bump_version();
  }
}

void bump_versions(const c10::FunctionSchema& schema, const torch::jit::Stack& stack,
                   bool only_lists) {
  const auto arguments = torch::jit::last(stack, schema.arguments().size());
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (is_written(schema.arguments()[i]) && (!only_lists || arguments[i].isList())) {
      visit_tensors(arguments[i], &bump_version_of_wrapper);
    }
  }
}

// Calls `fallback` for an operator that writes and that the tape of the level has recorded: what it
// writes to may be on it, and is a constant below.
void write(const c10::OperatorHandle& op, const LevelPtr& level, Fallback fallback,
           torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  // Autograd has done so for single tensors, but leaves lists to the operator's own kernel. A view
  // learns by its version that it has got another history.
  bump_versions(schema, *stack, /*only_lists=*/true);
  const size_t count = schema.arguments().size();
  const torch::jit::Stack arguments(stack->end() - static_cast<ptrdiff_t>(count), stack->end());
  for (size_t i = 0; i < count; ++i) {
    if (is_written(schema.arguments()[i])) {
      torch::jit::peek(*stack, i, count) = map_tensors(arguments[i], [&](const Tensor& tensor) {
        return level_id_of(tensor) != level->id && tensor.requires_grad() ? without_own_tape(tensor)
                                                                          : tensor;
      });
    }
  }
  fallback(op, level, stack);
  const size_t results = schema.returns().size();
  for (size_t i = 0; i < results; ++i) {
    if (const auto written = written_argument(schema, schema.returns()[i])) {
      torch::jit::peek(*stack, i, results) = arguments[*written];
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
  bump_versions(schema, stack, /*only_lists=*/false);
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
    if (need_stand_ins(operands, op.schema(), *stack)) [[unlikely]] {
      call_with_stand_ins(op, keys, stack);
      return;
    }
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
      if (records && !traits.is_composite) {
        record_write(traits, *level, stack);
      } else {
        op.redispatchBoxed(traits.tape_keys, stack);
      }
      return;
    }
    bump_versions(op.schema(), *stack);
  }
  {
    const RuleScope scope(*level);
    const auto fallback = fallbacks.at(static_cast<size_t>(level->transform));
    if (keys.has(kFrontKey) || !op.schema().is_mutable()) {
      fallback(op, level, stack);
    } else {
      write(op, level, fallback, stack);
    }
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
