#include "batching/boxed_rules.h"

#include <unordered_map>

#include "core/registry.h"

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

bool is_pointwise(const c10::OperatorHandle& op) { return op.hasTag(at::Tag::pointwise); }

void batch(const c10::OperatorHandle& op, const LevelPtr& level, torch::jit::Stack* stack) {
  if (may_have_library_rule(op) && library_rules(op, level, stack)) {
    return;
  }
  const BoxedBatchingRule rule = find_boxed_batching_rule(op);
  (rule != nullptr ? rule : loop_over_examples)(op, level, stack);
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
  const auto found = rules().find(op.operator_name());
  if (found != rules().end()) {
    return found->second;
  }
  return is_pointwise(op) ? batch_pointwise : nullptr;
}

}  // namespace functx
