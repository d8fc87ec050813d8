// The last resort of vmap: one call per example.
#include <ATen/core/List.h>
#include <ATen/ops/stack.h>

#include <atomic>
#include <mutex>
#include <unordered_set>
#include <utility>

#include "batching/batched_tensor.h"
#include "batching/boxed_rules.h"
#include "batching/empty_batch.h"
#include "batching/loop_switches.h"
#include "batching/warnings.h"
#include "core/nested.h"
#include "core/schema.h"

namespace functx {
namespace {

std::atomic<bool> loop_allowed{true};
std::atomic<bool> warnings_enabled{true};
void (*warning_sink)(const std::string&) = [](const std::string& message) { TORCH_WARN(message); };

// A set of operators that all threads add to.
class Operators {
 public:
  // Whether `op` is new.
  bool add(const c10::OperatorHandle& op) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return names_.insert(op.operator_name()).second;
  }

  std::unordered_set<c10::OperatorName> take() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(names_, {});
  }

 private:
  std::mutex mutex_;
  std::unordered_set<c10::OperatorName> names_;
};

Operators warned;
Operators looped;

void warn_once(const c10::OperatorHandle& op) {
  if (warnings_enabled && warned.add(op)) {
    warning_sink("functx.vmap: There is a performance drop: there is no batching rule for " +
                 c10::toString(op.operator_name()) + ", so it runs in a loop over the examples.");
  }
}

bool any_batched_at(const LevelPtr& level, c10::ArrayRef<c10::IValue> values);

bool is_batched_at(const LevelPtr& level, const c10::IValue& value) {
  if (value.isTensor()) {
    return unwrap_batched(level, value.toTensor()).is_batched;
  }
  if (!value.isList()) {
    return false;
  }
  return any_batched_at(level, value.toListRef());
}

bool any_batched_at(const LevelPtr& level, c10::ArrayRef<c10::IValue> values) {
  return std::any_of(values.begin(), values.end(),
                     [&](const auto& value) { return is_batched_at(level, value); });
}

// The argument as example `index` has it.
c10::IValue example(const LevelPtr& level, const c10::IValue& value, int64_t index) {
  if (value.isTensor()) {
    const Batched batched = unwrap_batched(level, value.toTensor());
    return batched.is_batched ? batched.value.select(0, index) : batched.value;
  }
  if (value.isList()) {
    auto copy = c10::impl::GenericList(value.toList().elementType());
    for (const auto& element : value.toListRef()) {
      copy.push_back(example(level, element, index));
    }
    return copy;
  }
  return value;
}

void check_loopable(const c10::OperatorHandle& op, const LevelPtr& level,
                    const torch::jit::Stack& arguments) {
  const auto& schema = op.schema();
  const bool any_batched = any_batched_at(level, arguments);
  for (size_t i = 0; i < arguments.size(); ++i) {
    TORCH_CHECK(
        !any_batched || !is_written(schema.arguments()[i]) || arguments[i].isNone() ||
            is_batched_at(level, arguments[i]),
        "functx.vmap: ", op.operator_name().name,
        "(self, *extra_args) is not possible: it writes into ", schema.arguments()[i].name(),
        ", which is the same for every example, but an argument differs between examples. "
        "Use the out-of-place operator instead, or make ",
        schema.arguments()[i].name(), " from a batched tensor x, for example by x.new_zeros(...).");
  }
}

// Results of the examples, put together.
c10::IValue stack_results(const c10::OperatorHandle& op, const LevelPtr& level,
                          const std::vector<torch::jit::Stack>& results, size_t position) {
  const c10::IValue& first = results.front()[position];
  if (first.isTensor()) {
    if (!first.toTensor().defined()) {
      return first;
    }
    check_has_shape(first.toTensor(), level->transform);
    check_has_strides(first.toTensor(), level->transform);
    TORCH_CHECK_NOT_IMPLEMENTED(first.toTensor().layout() != at::kMkldnn,
                                "functx.vmap: ", op.operator_name(),
                                " returns tensors of the layout of mkldnn, "
                                "which PyTorch cannot stack to a batch. Call to_mkldnn() outside "
                                "vmap.");
    std::vector<Tensor> tensors;
    for (const auto& result : results) {
      tensors.push_back(result[position].toTensor());
      TORCH_CHECK(
          tensors.back().sym_sizes() == tensors.front().sym_sizes(),
          "functx.vmap: ", op.operator_name(),
          " gives results of different shapes for different examples (", tensors.front().sizes(),
          " and ", tensors.back().sizes(),
          "), a dynamic shape (data-dependent shape), which cannot be one batch. Call it outside "
          "vmap, or use an operator whose result has a fixed shape.");
    }
    return make_batched(level, {at::stack(tensors), true});
  }
  if (first.isTensorList()) {
    c10::List<Tensor> stacked;
    for (size_t i = 0; i < first.toTensorVector().size(); ++i) {
      std::vector<Tensor> tensors;
      for (const auto& result : results) {
        tensors.push_back(result[position].toTensorVector().at(i));
      }
      stacked.push_back(make_batched(level, {at::stack(tensors), true}));
    }
    return stacked;
  }
  for (const auto& result : results) {
    TORCH_CHECK(result[position] == first, "functx.vmap: ", op.operator_name(),
                " gives a number or flag that differs between examples, which cannot be one "
                "value. Run it outside vmap.");
  }
  return first;
}

torch::jit::Stack call(const c10::OperatorHandle& op, const LevelPtr& level,
                       const torch::jit::Stack& arguments, int64_t index) {
  torch::jit::Stack result;
  result.reserve(arguments.size());
  for (const auto& argument : arguments) {
    result.push_back(example(level, argument, index));
  }
  op.callBoxed(&result);
  return result;
}

}  // namespace

bool allow_loop(bool allowed) { return loop_allowed.exchange(allowed); }

bool loop_is_allowed() { return loop_allowed; }

void set_warning_sink(void (*sink)(const std::string&)) { warning_sink = sink; }

void warn(const std::string& message) { warning_sink(message); }

bool warn_on_loop(bool enabled) {
  warned.take();
  return warnings_enabled.exchange(enabled);
}

std::vector<std::string> take_looped_operators() {
  std::vector<std::string> names;
  for (const auto& name : looped.take()) {
    names.push_back(c10::toString(name));
  }
  return names;
}

void loop_over_examples(const c10::OperatorHandle& op, const LevelPtr& level,
                        torch::jit::Stack* stack) {
  const auto arguments = torch::jit::last(*stack, op.schema().arguments().size());
  if (any_batched_at(level, arguments)) {
    TORCH_CHECK(loop_allowed, "functx.vmap: there is no batching rule for ",
                c10::toString(op.operator_name()),
                ", and the loop over the examples has been switched off. Give it a rule by "
                "functx.register_batching_rule.");
    warn_once(op);
  }
  loop_silently(op, level, stack);
}

void loop_silently(const c10::OperatorHandle& op, const LevelPtr& level, torch::jit::Stack* stack) {
  loop_with([] {}, op, level, stack);
}

void loop_with(const std::function<void()>& before_example, const c10::OperatorHandle& op,
               const LevelPtr& level, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const torch::jit::Stack arguments = torch::jit::pop(*stack, schema.arguments().size());
  check_loopable(op, level, arguments);
  const bool any_batched = any_batched_at(level, arguments);
  if (any_batched) {
    looped.add(op);
    if (level->batch_size == 0) {
      stack->insert(stack->end(), arguments.begin(), arguments.end());
      batch_one_made_up(op, level, stack);
      return;
    }
  }
  std::vector<torch::jit::Stack> results;
  const int64_t calls = any_batched ? level->batch_size : 1;
  for (int64_t index = 0; index < calls; ++index) {
    before_example();
    results.push_back(call(op, level, arguments, index));
  }
  for (size_t position = 0; position < schema.returns().size(); ++position) {
    if (const auto written = written_argument(schema, schema.returns()[position])) {
      stack->push_back(arguments[*written]);
    } else if (any_batched) {
      stack->push_back(stack_results(op, level, results, position));
    } else {
      const c10::IValue& result = results.front()[position];
      stack->push_back(result.isTensor()
                           ? c10::IValue(make_batched(level, {result.toTensor(), false}))
                           : result);
    }
  }
}

}  // namespace functx
