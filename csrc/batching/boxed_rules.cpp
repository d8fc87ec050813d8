#include "batching/boxed_rules.h"

#include <unordered_map>

#include "batching/empty_batch.h"
#include "batching/functional_variants.h"
#include "batching/rule.h"
#include "core/registry.h"
#include "core/schema.h"

namespace functx {
namespace {

std::unordered_map<c10::OperatorName, BoxedBatchingRule>& rules() {
  static std::unordered_map<c10::OperatorName, BoxedBatchingRule> table;
  return table;
}

LibraryRules library_rules = nullptr;

// PyTorch keeps such a rule in a kernel at this key.
bool may_have_library_rule(const c10::OperatorHandle& op) {
  return library_rules != nullptr &&
         op.hasKernelForDispatchKey(c10::DispatchKey::FuncTorchBatched) &&
         !op.operator_name().name.starts_with("aten::");
}

// A rule of ours for this very operator.
BoxedBatchingRule find_own_rule(const c10::OperatorHandle& op) {
  const auto found = rules().find(op.operator_name());
  return found == rules().end() ? nullptr : found->second;
}

bool is_pointwise(const c10::OperatorHandle& op) { return op.hasTag(at::Tag::pointwise); }

void batch(const c10::OperatorHandle& op, const LevelPtr& level, torch::jit::Stack* stack) {
  if (find_own_rule(op) == nullptr && may_have_library_rule(op) &&
      library_rules(op, level, stack)) {
    return;
  }
  const BoxedBatchingRule found = find_boxed_batching_rule(op);
  const BoxedBatchingRule rule = found != nullptr ? found : loop_over_examples;
  if (level->batch_size == 0) [[unlikely]] {
    batch_without_examples(rule, op, level, stack);
    return;
  }
  rule(op, level, stack);
}

FUNCTX_RULES(batching_fallback) { set_fallback(Transform::Vmap, batch); }

}  // namespace

void set_library_rules(LibraryRules rules) { library_rules = rules; }

void boxed_batching_rule(std::initializer_list<const char*> names, BoxedBatchingRule rule) {
  for (const char* name : names) {
    const std::string_view full(name);
    const size_t dot = full.find('.');
    const bool has_overload = dot != std::string_view::npos;
    rules().emplace(c10::OperatorName(std::string(full.substr(0, dot)),
                                      std::string(has_overload ? full.substr(dot + 1) : "")),
                    rule);
  }
}

BoxedBatchingRule find_boxed_batching_rule(const c10::OperatorHandle& op) {
  if (const BoxedBatchingRule rule = find_own_rule(op)) {
    return rule;
  }
  // A pointwise operator treats what it writes to as an operand: right in place, wrong for `out=`.
  if (is_pointwise(op) && !takes_out(op.schema())) {
    return batch_pointwise;
  }
  return has_functional_variant(op) ? batch_by_functional_variant : nullptr;
}

c10::IValue without_tape(const LevelPtr& level, const c10::IValue& argument) {
  if (argument.isTensor()) {
    return detail::without_tape(level, argument.toTensor());
  }
  if (argument.isTensorList()) {
    c10::List<Tensor> tensors;
    for (const auto& element : argument.toListRef()) {
      tensors.push_back(without_tape(level, element).toTensor());
    }
    return tensors;
  }
  return argument;
}

}  // namespace functx
