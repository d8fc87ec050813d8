// Sees every random operator while a vmap or jvp is active, whatever its arguments are: a draw has
// to be made for each example even if nothing about it is batched.
#include "batching/random.h"

#include "batching/boxed_rules.h"
#include "core/operands.h"
#include "core/registry.h"
#include "core/rule_scope.h"
#include "core/traits.h"
#include "forward_ad/dual_tensor.h"

namespace functx {
namespace {

// These get the state of the generator as an argument, or do not draw.
bool is_deterministic(const c10::OperatorHandle& op) {
  const std::string& name = op.schema().name();
  return name.ends_with("_backward") || name == "aten::_fused_sdp_choice" ||
         name == "aten::_fill_mem_eff_dropout_mask_" || name == "rngprims::philox_rand";
}

// These are composed of others, like the composite operators (random_composites.cpp).
bool is_composed(const c10::OperatorHandle& op) {
  return traits_of(op).is_composite || op.schema().name().starts_with("aten::rrelu_with_noise");
}

// Attention and recurrent operators that drop elements on the way: their rules are elsewhere.
bool drops_inside(const c10::OperatorHandle& op) {
  return op.schema().argumentIndexWithName("dropout_p").has_value() ||
         op.schema().argumentIndexWithName("dropout").has_value();
}

// What is drawn under jvp is a constant, but somebody may write a tangent into it.
void wrap_results(const c10::OperatorHandle& op, const LevelPtr& level, torch::jit::Stack* stack) {
  const auto& returns = op.schema().returns();
  auto* results = stack->data() + (stack->size() - returns.size());
  for (size_t i = 0; i < returns.size(); ++i) {
    const bool is_argument = returns[i].alias_info() != nullptr;
    if (!is_argument && results[i].isTensor() && can_have_tangent(results[i].toTensor())) {
      results[i] = make_dual(level, {results[i].toTensor(), {}});
    }
  }
}

void check_draws_differ(const c10::OperatorHandle& op, const Level& level) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      level.transform != Transform::Vmap || level.randomness == Randomness::Different,
      "functx.vmap: ", op.operator_name(),
      " cannot make the same draw for examples that differ. Pass randomness=\"different\" to "
      "vmap.");
}

// Handles the innermost level only; the operator is called again for those outside.
void random_kernel(const c10::OperatorHandle& op, c10::DispatchKeySet keys,
                   torch::jit::Stack* stack) {
  const LevelPtr level = innermost_wrapper_level();
  if (level == nullptr || !draws(op, *stack)) {
    op.redispatchBoxed(keys & kBelowModeKeys, stack);
    return;
  }
  if (level->transform == Transform::Vmap) {
    check_may_draw(op, *level);
  }
  const Wrapper* top = Operands::of_stack(*stack, op.schema().arguments().size()).top();
  if (top != nullptr && top->level() == level) {
    // The rule of the level does it, after a tape at this level has recorded.
    if (drops_inside(op)) {
      check_draws_differ(op, *level);
    }
    op.redispatchBoxed(keys & kBelowModeKeys, stack);
    return;
  }
  const RuleScope scope(*level);
  if (level->transform == Transform::Vmap) {
    draw_for_batch(op, level, stack);
    return;
  }
  op.callBoxed(stack);
  wrap_results(op, level, stack);
}

// Operators that are registered later than this have to be called with a batched argument to be
// seen, and then run in the loop.
FUNCTX_RULES(random_operators) {
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const auto& name : dispatcher.getAllOpNames()) {
    const auto op = dispatcher.findSchema(name);
    if (!op || !op->hasTag(at::Tag::nondeterministic_seeded) || is_composed(*op) ||
        is_deterministic(*op)) {
      continue;
    }
    register_kernel(name, kModeKey, c10::KernelFunction::makeFromBoxedFunction<&random_kernel>());
    if (!drops_inside(*op)) {
      boxed_batching_rule({c10::toString(name).c_str()}, draw_for_batch);
    }
  }
}

}  // namespace
}  // namespace functx
