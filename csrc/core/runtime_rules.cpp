#include "core/runtime_rules.h"

#include <algorithm>
#include <array>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "core/autocast.h"
#include "core/coverage.h"
#include "core/keys.h"
#include "core/load.h"
#include "core/recording.h"
#include "core/registry.h"
#include "core/rule_scope.h"
#include "core/stand_ins.h"
#include "core/torch_func.h"

namespace functx {
namespace {

// The rules of one operator; for each transform, the one added last applies.
class RuleStack {
 public:
  RuntimeRulePtr top(Transform transform) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto& rules = rules_.at(static_cast<size_t>(transform));
    return rules.empty() ? nullptr : rules.back();
  }

  void add(Transform transform, RuntimeRulePtr rule) {
    const std::lock_guard<std::mutex> lock(mutex_);
    rules_.at(static_cast<size_t>(transform)).push_back(std::move(rule));
  }

  // The caller still holds the rule, so it is not destroyed in here: that may run anything.
  void remove(Transform transform, const RuntimeRulePtr& rule) {
    const std::lock_guard<std::mutex> lock(mutex_);
    auto& rules = rules_.at(static_cast<size_t>(transform));
    rules.erase(std::remove(rules.begin(), rules.end(), rule), rules.end());
  }

 private:
  mutable std::mutex mutex_;
  std::array<std::vector<RuntimeRulePtr>, 2> rules_;  // of vmap and jvp
};

// Stands before the kernel that the operator had, and stays when its rules are gone: a kernel that
// runs on another thread must not be destroyed.
class RuntimeKernel final : public c10::OperatorKernel {
 public:
  RuntimeKernel(const c10::OperatorHandle& op, std::shared_ptr<const RuleStack> rules,
                c10::KernelFunction otherwise)
      : traits_(op), rules_(std::move(rules)), otherwise_(std::move(otherwise)) {}

  void operator()(const c10::OperatorHandle& op, c10::DispatchKeySet keys,
                  torch::jit::Stack* stack) {
    const auto operands = Operands::of_stack(*stack, op.schema().arguments().size());
    const bool is_front = keys.has(kFrontKey);
    const bool applies =
        operands.top() != nullptr && !(is_front && passes_on(operands, keys, *stack));
    const RuntimeRulePtr rule = applies ? rules_->top(operands.top()->level()->transform) : nullptr;
    if (rule == nullptr) {
      otherwise_.callBoxed(op, keys, stack);
      return;
    }
    const LevelPtr level = operands.top()->level();
    if (is_front) {
      bump_versions(op.schema(), *stack);
    }
    const RuleScope scope(*level);
    (*rule)(op, level, stack);
  }

 private:
  // Whether torch.func, autocast or the tape comes first, or stand-ins for the arguments; the
  // kernel behind us knows how to call them.
  bool passes_on(const Operands& operands, c10::DispatchKeySet keys,
                 const torch::jit::Stack& stack) const {
    return yields_to_torch_func(operands, keys) || !autocast_keys(traits_.handle, keys).empty() ||
           need_stand_ins(operands, traits_.handle.schema(), stack) ||
           is_recorded(traits_, operands, *operands.top()->level());
  }

  OperatorTraits traits_;
  std::shared_ptr<const RuleStack> rules_;
  c10::KernelFunction otherwise_;
};

void install(const c10::OperatorHandle& op, c10::DispatchKey key,
             const std::shared_ptr<RuleStack>& rules) {
  const auto& name = op.operator_name();
  auto otherwise = registered_kernel(name, key).value_or(boxed_kernel_of(op));
  register_kernel(name, key,
                  c10::KernelFunction::makeFromBoxedFunctor(
                      std::make_unique<RuntimeKernel>(op, rules, std::move(otherwise))));
}

RuleStack& rules_of(const c10::OperatorHandle& op) {
  static std::mutex mutex;
  static auto& all = *new std::unordered_map<c10::OperatorName, std::shared_ptr<RuleStack>>();
  const std::lock_guard<std::mutex> lock(mutex);
  auto& rules = all[op.operator_name()];
  if (rules == nullptr) {
    load();
    rules = std::make_shared<RuleStack>();
    cover(op);
    install(op, kFrontKey, rules);
    // A back kernel would switch off the decomposition of a composite operator at the autograd key.
    if (!traits_of(op).is_composite) {
      install(op, kBackKey, rules);
    }
  }
  return *rules;
}

}  // namespace

void add_runtime_rule(Transform transform, const c10::OperatorHandle& op, RuntimeRulePtr rule) {
  rules_of(op).add(transform, std::move(rule));
}

void remove_runtime_rule(Transform transform, const c10::OperatorHandle& op,
                         const RuntimeRulePtr& rule) {
  rules_of(op).remove(transform, rule);
}

}  // namespace functx
