#include "core/empty_batch.h"

#include <c10/util/ScopeExit.h>

#include <optional>
#include <utility>

#include "core/keys.h"
#include "core/operands.h"
#include "core/registry.h"

namespace functx {
namespace {

Fallback run_without_examples = nullptr;

// The operator whose next kernel runs its rule.
thread_local std::optional<c10::OperatorHandle> tried;

}  // namespace

void set_empty_batch(Fallback run) { run_without_examples = run; }

void empty_batch_kernel(const c10::OperatorHandle& op, c10::DispatchKeySet,
                        torch::jit::Stack* stack) {
  const LevelPtr level = Operands::of_stack(*stack, op.schema().arguments().size()).top()->level();
  run_without_examples(op, level, stack);
}

void run_typed_rule(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& name = op.operator_name();
  auto kernel = registered_kernel(name, kBackKey);
  if (!kernel) {
    kernel = registered_kernel(name, kFrontKey);  // of a composite operator, which has one only
  }
  tried = op;
  const auto forget = c10::make_scope_exit([] { tried.reset(); });
  kernel->callBoxed(op, c10::DispatchKeySet(kBackKey), stack);
}

bool takes_rule(const c10::OperatorHandle& op) {
  if (!tried || *tried != op) {
    return false;
  }
  tried.reset();
  return true;
}

}  // namespace functx
